"""Write docs/api/openapi.yaml from the table of routes and the types of the wire.

Run `python -m tools.openapi` after a change of a route or of a wire type; a test compares the file
with what this writes. `--check` only says whether it is up to date.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Final

import yaml

from ollamad.http.openapi.document import document
from ollamad.http.openapi.table import APIS

ROOT: Final = Path(__file__).resolve().parent.parent
FILE: Final = ROOT / "docs" / "api" / "openapi.yaml"

_HEAD: Final = "# Written by `python -m tools.openapi`: edit ollamad/http/openapi/ instead.\n"
_COLUMNS: Final = 98


class _Dumper(yaml.SafeDumper):  # type: ignore[misc] # PyYAML carries no types of its own.
    """Writes texts of several lines as such, and everything out where it stands."""

    def ignore_aliases(self, _data: Any) -> bool:
        """Say that equal values are written each time: anchors are hard to read."""
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def contents() -> str:
    """Return the text of docs/api/openapi.yaml."""
    text: str = yaml.dump(
        document(APIS), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=_COLUMNS
    )
    return _HEAD + text


def main(arguments: list[str]) -> int:
    """Write the file, or with `--check` tell whether it is out of date; return the exit status."""
    text = contents()
    if FILE.exists() and FILE.read_text() == text:
        return 0
    if "--check" in arguments:
        print(f"{FILE.relative_to(ROOT)} is out of date: run python -m tools.openapi")
        return 1
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(text)
    print(f"wrote {FILE.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
