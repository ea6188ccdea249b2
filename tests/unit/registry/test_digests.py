from __future__ import annotations

import hashlib

import pytest

from ollamad.errors import InvalidDigest
from ollamad.registry.digests import Digest

HEX = "0123456789abcdef" * 4


@pytest.mark.parametrize("text", [f"sha256:{HEX}", f"sha256-{HEX}", f"sha256:{HEX.upper()}"])
def test_both_spellings_and_cases_are_the_same_digest(text: str) -> None:
    digest = Digest.parse(text)

    assert str(digest) == f"sha256:{HEX}"
    assert digest.file_name == f"sha256-{HEX}"


@pytest.mark.parametrize(
    "text",
    ["", HEX, f"sha256:{HEX}0", f"sha256:{HEX[:-1]}", f"SHA256:{HEX}", f"sha256:{HEX}\n",
     f"sha256:../{HEX[3:]}", f"sha512:{HEX}", "sha256:" + "\u0661" * 64],
)  # fmt: skip
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(InvalidDigest, match=r"^invalid digest format$"):
        Digest.parse(text)


def test_a_digest_cannot_be_made_of_something_that_is_no_file_name() -> None:
    with pytest.raises(InvalidDigest):
        Digest("../../etc/passwd")


def test_the_digest_of_content_is_its_sha256() -> None:
    assert Digest.of(b"abc").hex == hashlib.sha256(b"abc").hexdigest()
