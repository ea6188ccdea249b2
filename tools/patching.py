"""Our changes to llama.cpp's sources, before our wheel is built of them: `tools/patches/*.patch`.

Each file says why in front of an ordinary unified diff. A hunk's text must be there exactly once,
or at the very line that the diff names: where a new version has changed it, the build stops and
says so, rather than go on without. Nothing depends on a patch but speed and memory.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from tools.machine import SetupError

FOLDER: Final = Path(__file__).resolve().parent / "patches"

_FILE: Final = "+++ b/"
_HUNK: Final = re.compile(r"@@ -\d+(?:,(\d+))? \+(\d+)(?:,(\d+))? @@")


@dataclasses.dataclass(frozen=True)
class Hunk:
    """One text of one file, and what becomes of it."""

    patch: str
    """The patch's file name."""
    path: str
    """Below the source package."""
    line: int
    """Where it begins once the hunks before it are applied, counted from 1."""
    old: str
    new: str


def read_patches(folder: Path = FOLDER) -> tuple[Hunk, ...]:
    """Return what the patches of *folder* change, in the order of their names."""
    return tuple(
        hunk
        for path in sorted(folder.glob("*.patch"))
        for hunk in parse(path.name, path.read_text(encoding="utf-8"))
    )


def parse(name: str, text: str) -> Iterator[Hunk]:
    """Yield the hunks of a unified diff. Raises SetupError for one that is damaged."""
    lines = iter(text.splitlines(keepends=True))
    path = ""
    for line in lines:
        if line.startswith(_FILE):
            path = line.removeprefix(_FILE).strip()
        elif (counts := _HUNK.match(line)) is not None:
            n_old, begin, n_new = (int(count or 1) for count in counts.groups())
            old, new = _texts(name, lines, n_old, n_new)
            yield Hunk(name, path, begin, old, new)


def _texts(name: str, lines: Iterator[str], n_old: int, n_new: int) -> tuple[str, str]:
    old: list[str] = []
    new: list[str] = []
    while len(old) < n_old or len(new) < n_new:
        line = next(lines, "")
        sign, rest = line[:1], line[1:]
        if sign not in {" ", "-", "+"}:
            raise SetupError(f"tools/patches/{name} is damaged: a hunk is cut short")
        if sign != "+":
            old.append(rest)
        if sign != "-":
            new.append(rest)
    return "".join(old), "".join(new)


def apply_patches(source: Path, hunks: Iterable[Hunk]) -> None:
    """Change the sources below *source*; what is changed already stays. Raises SetupError."""
    for hunk in hunks:
        path = source / hunk.path
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as exc:
            raise SetupError(f"cannot patch {path}: {exc.strerror}") from exc
        if hunk.new in text:
            continue
        begin = _place_of(hunk, text)
        if begin is None:
            raise SetupError(
                f"{hunk.path} is not what tools/patches/{hunk.patch} was made for; its first "
                "lines say what it is good for: make it anew, or remove it"
            )
        end = begin + len(hunk.old)
        path.write_text(text[:begin] + hunk.new + text[end:], encoding="utf-8")


def _place_of(hunk: Hunk, text: str) -> int | None:
    """Return where the text that *hunk* means stands, `None` if it cannot be told."""
    places = [match.start() for match in re.finditer(re.escape(hunk.old), text)]
    if len(places) > 1:
        places = [place for place in places if text.count("\n", 0, place) == hunk.line - 1]
    return places[0] if places else None
