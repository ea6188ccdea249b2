"""The chat templates of larger models, from the sources of the llama.cpp that the lock pins.

They are fetched once and kept beside the built wheels. What is kept of the sources is this folder.
"""

from __future__ import annotations

import functools
import os
import sys
import tempfile
from pathlib import Path
from typing import Final

from tools import machine
from tools.console import Progress, Runner
from tools.wheelhouse import locked
from tools.workshop import PACKAGE, Workshop, locked_version

_REQUIREMENTS: Final = Path(__file__).parents[1] / "requirements"
_INSIDE: Final = Path("vendor/llama.cpp/models/templates")
FETCH_TIMEOUT_S: Final = 1800.0
"""For `pytest.mark.timeout` of a test that may be the first to ask: it downloads 77 MB."""


@functools.cache
def template_folder() -> Path:
    """Return the folder of `*.jinja` files. Raises SetupError when they cannot be fetched."""
    version = locked_version(_REQUIREMENTS / "llama.txt")
    home = machine.cache_home(dict(os.environ)) / "templates"
    home.mkdir(parents=True, exist_ok=True)
    folder = home / f"{PACKAGE}-{version}"
    progress = Progress(sys.stderr)
    with locked(home, progress, "another run fetches llama.cpp's sources"):
        if not folder.exists():
            with tempfile.TemporaryDirectory(dir=home) as name:
                _fetch(version, Path(name), progress).replace(folder)
    return folder


def _fetch(version: str, work: Path, progress: Progress) -> Path:
    runner = Runner(progress, work / "log")
    workshop = Workshop(work, _REQUIREMENTS, runner, sys.executable)
    workshop.prepare_tools()  # pip asks a source package for its metadata, which needs them.
    return workshop.source(version) / _INSIDE


def templates() -> dict[str, str]:
    """Return the text of each template by the name of its file, without `.jinja`."""
    files = sorted(template_folder().glob("*.jinja"))
    return {file.stem: file.read_text(encoding="utf-8") for file in files}
