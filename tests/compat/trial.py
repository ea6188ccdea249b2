"""Tries one client, in a process of its own: `python -m tests.compat.trial ROW URL`.

Somebody else's client may warn, leave sockets open and threads behind; all of that ends with the
process and can be no other test's failure. What came of each feature is a line of JSON.
"""

from __future__ import annotations

import subprocess
import sys
import time
import traceback
from typing import Final

import msgspec

from tests.compat.place import Place
from tests.compat.rows import ROWS, Feature, Row

ROW_TIMEOUT_S: Final = 100.0
"""For all features of one client, its import included."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a cell: nothing, or what went wrong."""

    feature: Feature
    took_s: float
    failure: str = ""


def try_feature(row: Row, feature: Feature, place: Place) -> Outcome:
    """Try one feature, whatever somebody else's client may raise."""
    began = time.monotonic()
    failure = ""
    try:
        row.run(feature, place)
    except Exception:  # noqa: BLE001 - a table tells of every failure
        failure = traceback.format_exc()
    return Outcome(feature=feature, took_s=time.monotonic() - began, failure=failure)


def try_row(row: Row, place: Place) -> dict[Feature, Outcome]:
    """Try all features of *row* in a process; those it did not come to have failed."""
    command = [sys.executable, "-m", "tests.compat.trial", row.name, place.url]
    try:
        done = subprocess.run(
            command,
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=ROW_TIMEOUT_S,
        )
        lines, last_words = done.stdout, done.stderr.decode(errors="replace")
    except subprocess.TimeoutExpired as exc:
        lines, last_words = exc.stdout or b"", f"not finished after {ROW_TIMEOUT_S:.0f} s"
    told = [msgspec.json.decode(line, type=Outcome) for line in lines.splitlines()]
    missing = [
        Outcome(feature=feature, took_s=0, failure=f"the trial ended before it: {last_words}")
        for feature in row.features
    ]
    return {outcome.feature: outcome for outcome in (*missing, *told)}


def main(name: str, url: str) -> None:
    """Try the row of this name, one feature after another."""
    (row,) = [one for one in ROWS if one.name == name]
    out = sys.stdout
    sys.stdout = sys.stderr  # What a client prints is no outcome.
    for feature in row.features:
        outcome = try_feature(row, feature, Place(url))
        out.write(msgspec.json.encode(outcome).decode() + "\n")
        out.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
