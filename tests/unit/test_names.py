from __future__ import annotations

from pathlib import PurePosixPath

import pytest

from ollamad.errors import InvalidName
from ollamad.names import ModelName


@pytest.mark.parametrize(
    ("text", "full"),
    [
        ("llama3", "registry.ollama.ai/library/llama3:latest"),
        ("llama3:8b", "registry.ollama.ai/library/llama3:8b"),
        ("me/mine", "registry.ollama.ai/me/mine:latest"),
        ("me/mine:x", "registry.ollama.ai/me/mine:x"),
        ("hf.co/me/mine", "hf.co/me/mine:latest"),
        ("localhost:5000/me/mine", "localhost:5000/me/mine:latest"),
        ("localhost:5000/me/mine:x", "localhost:5000/me/mine:x"),
        ("http://localhost:5000/me/mine:x", "localhost:5000/me/mine:x"),
        ("Llama3.2_x-y:Q4_K.M", "registry.ollama.ai/library/Llama3.2_x-y:Q4_K.M"),
        ("_h/_n/_m:_t", "_h/_n/_m:_t"),
        ("m" * 80 + ":" + "t" * 80, f"registry.ollama.ai/library/{'m' * 80}:{'t' * 80}"),
        ("h" * 350 + "/n/m", f"{'h' * 350}/n/m:latest"),
    ],
)
def test_missing_parts_have_defaults(text: str, full: str) -> None:
    assert ModelName.parse(text).full == full


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "/",
        "m:",
        ":t",
        "/m",
        "n/",
        "//m",
        "h//m",
        "/n/m",
        "a/b/c/d",
        "://h/n/m:t:u",
        "localhost:5000/m",
        "name.space/m",
        ".m",
        "-m",
        "m:.t",
        "m:..",
        "../m",
        "../../m",
        "h/../m",
        "m..\x00",
        "m\n",
        "m ",
        " m",
        "m@sha256:abc",
        "mödel",
        "m:tág",
        "m\ud800",
        "m" * 81,
        "m:" + "t" * 81,
        "n" * 81 + "/m",
        "h" * 351 + "/n/m",
        "a" * 1_000_000,
        ":" * 100_000,
        "/" * 100_000,
    ],
    ids=lambda text: repr(text[:20]),
)
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(InvalidName, match=r"^invalid model name$"):
        ModelName.parse(text)


@pytest.mark.parametrize("field", ["host", "namespace", "model", "tag"])
def test_a_name_cannot_be_built_from_invalid_parts(field: str) -> None:
    with pytest.raises(InvalidName):
        ModelName(**{"model": "m", field: "a/b"})


@pytest.mark.parametrize(
    ("text", "display"),
    [
        ("llama3", "llama3:latest"),
        ("REGISTRY.ollama.ai/Library/llama3", "llama3:latest"),
        ("me/mine:x", "me/mine:x"),
        ("hf.co/library/mine", "hf.co/library/mine:latest"),
        ("http://hf.co/me/mine:x", "hf.co/me/mine:x"),
    ],
)
def test_a_name_is_shown_as_short_as_it_can_be(text: str, display: str) -> None:
    name = ModelName.parse(text)

    assert name.display == str(name) == display
    assert ModelName.parse(display).key == name.key


def test_a_name_keeps_its_case_and_looking_it_up_ignores_it() -> None:
    upper, lower = ModelName.parse("Me/Mine:X"), ModelName.parse("me/mine:x")

    assert upper.display == "Me/Mine:X"
    assert upper != lower
    assert upper.key == lower.key


def test_the_scheme_is_no_part_of_the_identity() -> None:
    plain, secure = (ModelName.parse(f"{scheme}://h/n/m") for scheme in ("http", "https"))

    assert (plain.scheme, secure.scheme) == ("http", "https")
    assert plain == secure
    assert ModelName.parse("m").scheme == "https"


def test_every_part_is_one_component_of_the_path() -> None:
    assert ModelName.parse("localhost:5000/me/mine:x").path == PurePosixPath(
        "localhost:5000", "me", "mine", "x"
    )
