"""Numbers and tables as a card prints them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """A Markdown table with a column for every key, in order of appearance."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = [
        "| " + " | ".join(column.replace("_", " ") for column in columns) + " |",
        "|" + " --- |" * len(columns),
    ]
    lines += ["| " + " | ".join(cell(row.get(column)) for column in columns) + " |" for row in rows]
    return "\n".join(lines)


def cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.1f}" if abs(value) >= 1000 else f"{value:.4g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return str(value).replace("|", "\\|").replace("\n", " ")


def finite(value: float, where: str) -> float:
    if not math.isfinite(value):
        raise ValueError(f"A model card cannot claim {where} = {value}: evaluate the model again.")
    return float(value)


def plain(value: Any) -> Any:
    """The value through JSON, so that YAML writes no Python types."""
    return json.loads(json.dumps(value, default=str))


__all__ = ["finite", "plain", "table"]
