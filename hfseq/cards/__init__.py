"""Model cards: what a run measured, as the README.md that the Hub shows.

`write_model_card` turns the numbers that a run wrote into a card; `CardText` is what a kind of model adds to it.
"""

from .card_text import CardText
from .corpora import CORPORA
from .model_card import write_model_card
from .texts import TASKS

__all__ = ["CORPORA", "TASKS", "CardText", "write_model_card"]
