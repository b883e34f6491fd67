"""Runs scripts/examples/swatches.py, whose name this once was."""

import runpy
from pathlib import Path

if __name__ == "__main__":
    runpy.run_path(str(Path(__file__).parent / "examples" / "swatches.py"), run_name="__main__")
