"""Files of any kind, written where a test wants them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest


@pytest.fixture
def write(tmp_path):
    """Writes a file: text as it is, rows as JSON lines; .gz is packed."""

    def write(name: str, content) -> Path:
        path = tmp_path / name
        text = content if isinstance(content, str) else "\n".join(json.dumps(row) for row in content)
        if name.endswith(".gz"):
            path.write_bytes(gzip.compress(text.encode()))
        else:
            path.write_text(text, encoding="utf-8")
        return path

    return write
