"""The contracts: what "a model works" means here, implemented once for every class.

    hfseq check CHECKPOINT           every contract on a checkpoint, ours or a stranger's
    pytest tests/contracts                       every contract on every class of hfseq, tiny
    make contracts                               the same in all variants

A *case* is a class in one configuration (`families/`), a *kind* knows what goes in and comes out (`kinds.py`), a
*contract* is a function of a case that raises `ContractViolation` saying what differed by how much (one module each),
and `table.py` says which contract applies to which class. A new family adds cases and rows, no code.
"""

from __future__ import annotations

from .cases import BadInput, Case
from .families import CASES
from .kinds import Kind
from .table import CONTRACTS, RUN, TABLE, Contract, Row, cell
from .violation import ContractViolation

__all__ = [
    "CASES",
    "CONTRACTS",
    "RUN",
    "TABLE",
    "BadInput",
    "Case",
    "Contract",
    "ContractViolation",
    "Kind",
    "Row",
    "cell",
]
