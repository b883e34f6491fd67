"""docs/deploy.md: its commands and its code run, in their order, as they stand."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.long

PAGE = (Path(__file__).parents[1] / "docs" / "deploy.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(bash|python)\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)
SERVER = next(code for language, code in BLOCKS if "loopback_hub.py" in code)
ADDRESS = "http://127.0.0.1:8765"
NO_HFSEQ = 'import sys\nsys.modules["hfseq"] = None\n'
NO_TORCH = 'sys.modules["torch"] = sys.modules["transformers"] = None\n'


class Machine:
    """Runs the page's blocks in one folder, with the variables that earlier ones have set."""

    def __init__(self, folder: Path, address: str, programs: Path):
        self.folder, self.address = folder, address
        self.variables = {
            **os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "HF_HUB_OFFLINE": "0",
            "HF_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8",
        }  # fmt: skip

    def shell(self, code: str) -> str:
        code = code.replace(ADDRESS, self.address)
        for line in re.findall(r"^export (.*)$", code, flags=re.MULTILINE):
            self.variables |= dict(pair.split("=", 1) for pair in line.split())
        return self._run(["bash", "-e", "-c", code])

    def python(self, code: str, before: str) -> str:
        file = self.folder / "block.py"
        file.write_text(before + code, encoding="utf-8")
        return self._run([sys.executable, "-I", str(file)])

    def _run(self, command: list[str]) -> str:
        done = subprocess.run(
            command, cwd=self.folder, env=self.variables, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            encoding="utf-8", timeout=1800,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def machine(loopback_hub_class, commands_in, tmp_path_factory):
    """After everything up to the conversion."""
    pytest.importorskip("sacrebleu")
    with loopback_hub_class() as hub:
        folder = tmp_path_factory.mktemp("page")
        machine = Machine(folder, hub.address, commands_in(folder))
        train, push = (code for language, code in BLOCKS[:3] if code != SERVER)
        machine.shell(train)
        machine.uploaded = machine.shell(push)
        yield machine


def test_the_page_has_the_blocks_that_are_run():
    assert [language for language, _ in BLOCKS] == ["bash", "bash", "bash", "python", "bash", "python"]
    assert ADDRESS in BLOCKS[2][1] and len(re.findall("ctranslate2", BLOCKS[5][1])) >= 2


def test_from_the_laptop_to_an_interpreter_without_hfseq(machine):
    assert f"uploaded: {machine.address}/me/en-de/commit/" in machine.uploaded
    said = machine.python(BLOCKS[3][1], NO_HFSEQ)
    assert re.fullmatch(r"\['.*'\]\n", said)


def test_from_the_hub_to_ctranslate2(machine):
    for name in ("ctranslate2", "onnx"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed: pip install 'hfseq[deploy]'")
    assert "as ctranslate2" in machine.shell(BLOCKS[4][1])
    assert (machine.folder / "en-de-onnx/decoder.onnx").is_file()
    machine.python(BLOCKS[5][1], NO_HFSEQ + NO_TORCH)
