"""Run the contracts on a checkpoint: what "this model works" means, line by line.

    hfseq check outputs/lstm-kjv
    hfseq check someone/model --trust_remote_code --only caching padding

Each contract (hfseq/contracts, one module each) passes, fails with what differed and by how much, or does not apply
with the reason. The exit status is 1 if one fails. Code that the checkpoint brings runs only with --trust_remote_code.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Collection, Iterator

import transformers

from hfseq.commands.console import CommandParser, mistakes_told, model_id
from hfseq.contracts import CONTRACTS, RUN, Case, Contract, ContractViolation, cell
from hfseq.contracts.checkpoints import checkpoint_case
from hfseq.loading import load_model

PASSED, FAILED, NOT_APPLICABLE = "passed", "FAILED", "does not apply"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=model_id, help="a checkpoint directory or a Hub id")
    parser.add_argument(
        "--only", nargs="+", choices=[c.key for c in CONTRACTS], help="run only these contracts"
    )
    parser.add_argument(
        "--trust_remote_code", action="store_true", help="run code that the checkpoint brings"
    )


def main(argv: list[str] | None = None) -> None:
    parser = CommandParser("check", __doc__)
    add_arguments(parser)
    arguments = parser.parse_args(argv)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    with mistakes_told(parser):
        case = checkpoint_case(arguments.model, arguments.trust_remote_code)
        # What random weights hold says nothing of the checkpoint.
        load_model(case.model_class, case.name, trust_remote_code=arguments.trust_remote_code)
    source = ("trusted-checkpoint:" if arguments.trust_remote_code else "checkpoint:") + case.name

    print(f"{case.model_class.__name__} in {arguments.model}\n")
    failed = 0
    for contract, verdict, details, seconds in verdicts(case, source, arguments.only):
        failed += verdict == FAILED
        reason = f": {details}" if verdict == NOT_APPLICABLE else f"\n{details}" if details else ""
        time_taken = " " * 8 if verdict == NOT_APPLICABLE else f"{seconds:6.1f} s"
        print(f"{contract.number:3}  {contract.title:42}{time_taken}  {verdict}{reason}", flush=True)
    print(f"\n{failed} contracts failed" if failed else "\nevery contract that applies holds")
    sys.exit(1 if failed else 0)


def verdicts(
    case: Case, source: str, only: Collection[str] | None = None
) -> Iterator[tuple[Contract, str, str, float]]:
    """(contract, verdict, details, seconds) of each contract: what was violated by how much, or why it does not apply.

    Args:
        case: what is checked.
        source: where a subprocess finds the case again (`hfseq.contracts.sources.find_cases`).
        only: keys of the contracts to run; None: all.
    """
    for contract in CONTRACTS:
        if only and contract.key not in only:
            continue
        reason, begun = cell(case, contract), time.perf_counter()
        if reason != RUN:
            yield contract, NOT_APPLICABLE, reason, 0.0
            continue
        try:
            contract.run([case], source) if contract.per_family else contract.run(case)
            verdict, details = PASSED, ""
        except ContractViolation as violation:
            verdict, details = FAILED, str(violation)
        yield contract, verdict, details, time.perf_counter() - begun
