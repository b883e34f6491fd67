"""The site: Sphinx with MyST and Furo, built by `make docs` without the network; warnings are errors.

Most pages of the reference are written here, from the programs themselves, so that they cannot be out of date.
"""

from __future__ import annotations

import importlib
import inspect
import io
import os
import sys
from contextlib import redirect_stdout, suppress
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ["COLUMNS"] = "100"  # of the printed help

import hfseq  # noqa: E402
from hfseq.__main__ import COMMANDS  # noqa: E402
from hfseq.__main__ import main as command_line  # noqa: E402

project = "hfseq"
author = "The hfseq authors"
project_copyright = "The hfseq authors, Apache-2.0"
version = release = hfseq.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
exclude_patterns = ["_build", "published"]
# As it stands: the report of a real run, report/index.html of the site.
html_extra_path = ["published"]
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]

default_role = "code"  # docstrings write `name`
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_member_order = "bysource"
autodoc_default_options = {"show-inheritance": True}
napoleon_use_ivar = True

html_theme = "furo"
html_title = f"hfseq {release}"
html_show_sphinx = False
copybutton_exclude = ".linenos, .gp, .go"


def printed(*words: str) -> str:
    """What `hfseq WORDS` prints."""
    output = io.StringIO()
    with redirect_stdout(output), suppress(SystemExit):
        command_line(list(words))
    return output.getvalue().rstrip()


def write(path: Path, text: str) -> None:
    """Only where it differs: Sphinx reads again what is newer."""
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


# Page, title, and the modules whose public names it documents.
REFERENCE = {
    "data": ("Data", ("hfseq.data",)),
    "training": ("Training", ("hfseq.training",)),
    "metrics": ("Metrics and evaluation", ("hfseq.metrics", "hfseq.evaluation")),
    "tasks": ("Tasks of fine-tuning", ("hfseq.tasks",)),
    "convert": ("Convert and share", ("hfseq.convert", "hfseq.hub")),
}


def reference(title: str, modules: tuple[str, ...]) -> str:
    """A page with a module's docstring and its names; autodoc does not see names that load when first used."""
    lines = [f"# {title}", "", "```{eval-rst}"]
    for module_name in modules:
        module = importlib.import_module(module_name)
        lines += [f".. automodule:: {module_name}", "   :no-members:", ""]
        for name in sorted(module.__all__):
            value = getattr(module, name)
            if inspect.isclass(value):
                lines += [f".. autoclass:: {module_name}.{name}", "   :members:", ""]
            elif inspect.isfunction(value):
                lines += [f".. autofunction:: {module_name}.{name}", ""]
    return "\n".join([*lines, "```", ""])


def write_pages(app: object = None) -> None:
    """Of reference/, all but the models and the objectives."""
    for page, (title, modules) in REFERENCE.items():
        write(HERE / "reference" / f"{page}.md", reference(title, modules))
    commands = "# Commands\n\nWhat `hfseq NAME --help` prints; `python -m hfseq NAME` starts the same.\n"
    for name in COMMANDS:
        commands += f"\n## {name}\n\n```text\n{printed(name, '--help')}\n```\n"
    write(HERE / "reference" / "commands.md", commands)
    recipes = "# Recipes\n\nWhat `hfseq recipes` prints: each name, what it trains, and the number that it reached.\n"
    write(HERE / "reference" / "recipes.md", f"{recipes}\n```text\n{printed('recipes')}\n```\n")


def mark_code(app, what, name, obj, options, lines: list[str]) -> None:
    """Docstrings set code and tables apart by indentation alone; here "::" is added."""
    marked: list[str] = []
    for number, line in enumerate(lines):
        begins = line.startswith("    ") and number > 1 and not lines[number - 1].strip()
        before = next((above for above in reversed(marked) if above.strip()), "")
        if begins and before and not before.startswith(" "):
            marked += ["::", ""]
        marked.append(line)
    lines[:] = marked


def setup(app) -> dict[str, bool]:
    app.connect("builder-inited", write_pages)
    app.connect("autodoc-process-docstring", mark_code, priority=100)  # before Napoleon
    return {"parallel_read_safe": True}
