from __future__ import annotations

from pathlib import Path

import pytest

from tools.machine import SetupError
from tools.patching import apply_patches, parse, read_patches

DIFF = """\
It is faster.

--- a/a/b.c
+++ b/a/b.c
@@ -1,3 +1,4 @@
 begin();
-slow();
+fast();
+faster();
 end();
"""
HUNKS = tuple(parse("1-fast.patch", DIFF))

BEFORE = "int main() {\nbegin();\nslow();\nend();\n}\n"
AFTER = "int main() {\nbegin();\nfast();\nfaster();\nend();\n}\n"


def a_source(folder: Path, text: str) -> Path:
    (folder / "a").mkdir()
    (folder / "a/b.c").write_text(text)
    return folder / "a/b.c"


def test_a_text_is_replaced_where_it_stands_and_nothing_else(tmp_path: Path) -> None:
    file = a_source(tmp_path, BEFORE)

    apply_patches(tmp_path, HUNKS)

    assert file.read_text() == AFTER


def test_sources_of_an_unfinished_build_are_not_patched_twice(tmp_path: Path) -> None:
    file = a_source(tmp_path, BEFORE)

    apply_patches(tmp_path, HUNKS)
    apply_patches(tmp_path, HUNKS)

    assert file.read_text() == AFTER


def test_of_equal_texts_the_one_at_the_named_line_is_meant(tmp_path: Path) -> None:
    text = BEFORE.removeprefix("int main() {\n")
    file = a_source(tmp_path, text + text)

    apply_patches(tmp_path, HUNKS)

    assert file.read_text() == AFTER.removeprefix("int main() {\n") + text


@pytest.mark.parametrize("text", ["other();\n", BEFORE + BEFORE])
def test_another_version_stops_the_build_and_says_where_to_look(text: str, tmp_path: Path) -> None:
    file = a_source(tmp_path, text)

    with pytest.raises(SetupError, match=r"a/b\.c is not what tools/patches/1-fast\.patch"):
        apply_patches(tmp_path, HUNKS)

    assert file.read_text() == text


def test_a_file_that_is_gone_is_said(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="cannot patch"):
        apply_patches(tmp_path, HUNKS)


def test_a_patch_that_was_cut_short_is_refused() -> None:
    with pytest.raises(SetupError, match="is damaged"):
        tuple(parse("1-fast.patch", DIFF.removesuffix(" end();\n")))


def test_several_hunks_and_files_are_read_in_their_order() -> None:
    second = DIFF.replace("a/b.c", "a/c.c").replace("slow", "lame")

    hunks = tuple(parse("1-fast.patch", DIFF + second))

    assert [hunk.path for hunk in hunks] == ["a/b.c", "a/c.c"]
    assert "lame();\n" in hunks[1].old


def test_every_patch_of_ours_says_why_and_changes_something() -> None:
    folder = Path(__file__).resolve().parents[3] / "tools/patches"
    files = sorted(folder.glob("*.patch"))

    assert files
    for file in files:
        why, _, _ = file.read_text().partition("--- a/")
        assert len(why.split()) > 5, file.name
        assert any(hunk.patch == file.name for hunk in read_patches(folder))
