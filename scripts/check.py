"""Runs the contracts on a checkpoint, ours or a stranger's: what "this model works" means, line by line.

    python scripts/check.py outputs/lstm-kjv
    python scripts/check.py someone/model --trust_remote_code --only caching padding

Each contract (hfseq/contracts, one module each) passes, fails with what differed and by how much, or does not apply
with the reason. The exit status is 1 if one fails. Code that the checkpoint brings runs only with --trust_remote_code.
"""

from __future__ import annotations

import argparse
import sys
import time

import transformers

from hfseq.contracts import CONTRACTS, RUN, ContractViolation, cell
from hfseq.contracts.checkpoints import checkpoint_case


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="a checkpoint directory or a Hub id")
    parser.add_argument(
        "--only", nargs="+", choices=[c.key for c in CONTRACTS], help="run only these contracts"
    )
    parser.add_argument(
        "--trust_remote_code", action="store_true", help="run code that the checkpoint brings"
    )
    arguments = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        case = checkpoint_case(arguments.model, arguments.trust_remote_code)
    except (ValueError, OSError) as error:
        parser.error(str(error))
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


if __name__ == "__main__":
    main()
