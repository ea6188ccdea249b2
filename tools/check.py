"""Run what a reviewer runs: `python -m tools.check [--quick | --no-tests]`.

Prints one line a check and stops at the first that fails, with what it said. pytest comes last and
speaks for itself: its closing line is the last one printed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
CHECK_TIMEOUT_S: Final = 900.0
TESTS_TIMEOUT_S: Final = 3600.0
QUICK_MARKERS: Final = "not process and not model and not gpu"


def static_checks(python: str) -> list[tuple[str, list[str]]]:
    """Return the checks that run nothing of ours: a name and a command each."""
    return [
        ("ruff check", [python, "-m", "ruff", "check", "."]),
        ("ruff format", [python, "-m", "ruff", "format", "--check", "."]),
        ("mypy", [python, "-m", "mypy"]),
        ("lint-imports", [str(Path(python).with_name("lint-imports"))]),
    ]


def run_check(name: str, command: list[str]) -> bool:
    """Run one check quietly; print its line, and its output if it failed."""
    began = time.monotonic()
    try:
        done = subprocess.run(
            command,
            check=False,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=CHECK_TIMEOUT_S,
        )
        output, passed = done.stdout, done.returncode == 0
    except subprocess.TimeoutExpired as exc:
        output, passed = f"not finished after {exc.timeout:.0f} s", False
    except OSError as exc:
        output, passed = f"cannot start {command[0]}: {exc}. Run: make ready-dev", False
    verdict = "ok" if passed else "FAILED"
    print(f"{name:<14}{verdict:<8}{time.monotonic() - began:6.1f} s", flush=True)
    if not passed:
        print(output, flush=True)
    return passed


def run_tests(python: str, arguments: list[str]) -> int:
    """Run pytest with its own output; return its status (5, no tests, is a failure too)."""
    command = [python, "-m", "pytest", *arguments]
    try:
        return subprocess.run(
            command, check=False, cwd=ROOT, stdin=subprocess.DEVNULL, timeout=TESTS_TIMEOUT_S
        ).returncode
    except subprocess.TimeoutExpired as exc:
        print(f"pytest: not finished after {exc.timeout:.0f} s", flush=True)
        return 1


def main(arguments: list[str] | None = None) -> int:
    """Run the checks; return 0 if all passed."""
    parser = argparse.ArgumentParser(prog="check", description="Run what a reviewer runs.")
    extent = parser.add_mutually_exclusive_group()
    extent.add_argument("--quick", action="store_true", help="no processes, no models")
    extent.add_argument("--no-tests", action="store_true", help="lint, types and layers only")
    options, for_pytest = parser.parse_known_args(arguments)
    for name, command in static_checks(sys.executable):
        if not run_check(name, command):
            return 1
    if options.no_tests:
        return 0
    markers = ["-m", QUICK_MARKERS] if options.quick else []
    return run_tests(sys.executable, [*markers, *for_pytest])


if __name__ == "__main__":
    sys.exit(main())
