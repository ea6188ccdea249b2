from __future__ import annotations

import os
from pathlib import Path

import pytest

from ollamad.runners import landlock

CREATE_RULESET = 444
ADD_RULE = 445


@pytest.mark.parametrize(
    ("abi", "rights"),
    [(0, 0), (1, 0x1FFF), (2, 0x3FFF), (3, 0x7FFF), (4, 0x7FFF), (5, 0xFFFF), (7, 0xFFFF)],
)
def test_each_version_can_refuse_what_it_knows(abi: int, rights: int) -> None:
    assert landlock.handled_files(abi) == rights


def test_a_kernel_without_it_has_version_0(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_number: int, *_arguments: object) -> int:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(landlock, "_call", refuse)

    assert landlock.abi_version() == 0


def test_what_is_asked_of_the_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rights that a version does not know, or a plain file cannot have, are an error to it."""
    (tmp_path / "file").write_text("x")
    rules: list[int] = []

    def call(number: int, *arguments: object) -> int:
        if number == CREATE_RULESET:
            return os.open(tmp_path, os.O_PATH)
        if number == ADD_RULE:
            attributes = arguments[2]
            assert isinstance(attributes, bytes)
            rules.append(int.from_bytes(attributes[:8], "little"))
        return 0

    monkeypatch.setattr(landlock, "_call", call)
    landlock.restrict(
        [
            landlock.Rule(tmp_path, landlock.READ),
            landlock.Rule(tmp_path / "file", landlock.REWRITE),
            landlock.Rule(tmp_path / "nowhere", landlock.READ),
        ],
        1,
    )

    assert rules == [0b1100, 0b0110]
