"""How a contract says no.

A contract is a handful of checks; it runs all of them and reports every one that failed, because the pattern of
failures (left padding only, float32 only) usually names the cause.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path


class ContractViolation(Exception):  # noqa: N818 - what it is, not an error of this program
    """A model broke a contract; the message says what differed, and by how much."""


def require(condition: bool, message: str) -> None:
    """Raises `ContractViolation(message)` unless the condition holds."""
    if not condition:
        raise ContractViolation(message)


def run_checks(case, *checks: Callable) -> None:
    """Calls every check with the case.

    Raises:
        ContractViolation: naming the case and each failed check. A check in which the model raised anything at all
            has failed too.
    """
    failures = []
    for check in checks:
        label = check.__name__.replace("_", " ")
        try:
            check(case)
        except ContractViolation as violation:
            failures.append(f"{label}: {violation}")
        except Exception as error:  # noqa: BLE001  a stranger's model may raise anything, and that is the finding
            frame = traceback.extract_tb(error.__traceback__)[-1]
            failures.append(
                f"{label}: raised {type(error).__name__}: {error} ({Path(frame.filename).name}:{frame.lineno})"
            )
    if failures:
        raise ContractViolation(f"{case.name}\n" + "\n".join(f"  - {failure}" for failure in failures))
