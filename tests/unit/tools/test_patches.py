from __future__ import annotations

from pathlib import Path

import pytest

from tools.machine import SetupError
from tools.patches import Patch, apply_patches

PATCH = Patch(why="it is faster", path="a/b.c", old="slow();\n", new="fast();\n")


def a_source(folder: Path, text: str) -> Path:
    (folder / "a").mkdir()
    (folder / "a/b.c").write_text(text)
    return folder / "a/b.c"


def test_a_text_is_replaced_where_it_stands_and_nothing_else(tmp_path: Path) -> None:
    file = a_source(tmp_path, "begin();\nslow();\nend();\n")

    apply_patches(tmp_path, (PATCH,))

    assert file.read_text() == "begin();\nfast();\nend();\n"


def test_sources_of_an_unfinished_build_are_not_patched_twice(tmp_path: Path) -> None:
    file = a_source(tmp_path, "slow();\n")

    apply_patches(tmp_path, (PATCH,))
    apply_patches(tmp_path, (PATCH,))

    assert file.read_text() == "fast();\n"


@pytest.mark.parametrize("text", ["other();\n", "slow();\nslow();\n"])
def test_another_version_stops_the_build_and_says_where_to_look(text: str, tmp_path: Path) -> None:
    file = a_source(tmp_path, text)

    with pytest.raises(SetupError, match=r"tools/patches\.py \(it is faster\)"):
        apply_patches(tmp_path, (PATCH,))

    assert file.read_text() == text


def test_a_file_that_is_gone_is_said(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="cannot patch"):
        apply_patches(tmp_path, (PATCH,))
