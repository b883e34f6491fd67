"""Model cards: what a run measured, as the README.md that the Hub shows.

`write_model_card` turns the numbers that a run wrote into a card; `CardText` is what an objective adds to it.
"""

from .card_text import CardText
from .corpora import CORPORA
from .model_card import write_model_card

__all__ = ["CORPORA", "CardText", "write_model_card"]
