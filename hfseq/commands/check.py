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

import transformers

from hfseq.commands.console import CommandParser, mistakes_told, model_id
from hfseq.contracts import CONTRACTS, RUN, ContractViolation, cell
from hfseq.contracts.checkpoints import checkpoint_case
from hfseq.loading import load_model


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
    for contract in CONTRACTS:
        if arguments.only and contract.key not in arguments.only:
            continue
        reason, details, begun = cell(case, contract), "", time.perf_counter()
        if reason == RUN:
            try:
                contract.run([case], source) if contract.per_family else contract.run(case)
                verdict = "passed"
            except ContractViolation as violation:
                verdict, details = "FAILED", f"\n{violation}"
                failed += 1
        else:
            verdict = f"does not apply: {reason}"
        seconds = f"{time.perf_counter() - begun:6.1f} s" if reason == RUN else " " * 8
        print(f"{contract.number:3}  {contract.title:42}{seconds}  {verdict}{details}", flush=True)
    print(f"\n{failed} contracts failed" if failed else "\nevery contract that applies holds")
    sys.exit(1 if failed else 0)
