"""Writes hfseq/recipes/claims.json, which `hfseq recipes` shows, from the model cards: after a card has changed.

python scripts/write_claims.py
"""

from pathlib import Path

from hfseq.cards.claims import read_claims
from hfseq.training import write_json

if __name__ == "__main__":
    root = Path(__file__).parents[1]
    print(f"written to {write_json(root / 'hfseq/recipes/claims.json', read_claims(root / 'model_cards'))}")
