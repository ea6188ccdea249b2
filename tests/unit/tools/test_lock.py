"""The locks hold what pyproject.toml asks for, by hash, and nothing about where it came from."""

from __future__ import annotations

import re
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tools import lock
from tools.workshop import count_pins, locked_version

REQUIREMENTS = lock.ROOT / "requirements"
NAMES = ["bench", "build", "dev", "embedded", "llama", "native", "runtime", "testmodels"]


def pins_of(name: str) -> dict[str, str]:
    text = (REQUIREMENTS / f"{name}.txt").read_text(encoding="utf-8")
    found = re.findall(r"^([A-Za-z0-9._-]+)==([^ ;\\]+)", text, re.MULTILINE)
    return {canonicalize_name(package): version for package, version in found}


def project() -> tuple[list[str], dict[str, list[str]]]:
    table = tomllib.loads((lock.ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return table["dependencies"], table["optional-dependencies"]


def unmet(requirements: list[str], pins: dict[str, str]) -> list[str]:
    wanted = [Requirement(text) for text in requirements]
    return [
        str(requirement)
        for requirement in wanted
        if pins.get(canonicalize_name(requirement.name), "") not in requirement.specifier
    ]


def test_the_runtime_locks_meet_every_dependency() -> None:
    """Without it, a dependency added to pyproject.toml alone fails only on another machine."""
    dependencies, _ = project()

    assert unmet(dependencies, pins_of("runtime") | pins_of("llama")) == []


def test_the_other_locks_meet_their_extras() -> None:
    _, extras = project()

    assert unmet(extras["bench"], pins_of("bench")) == []
    assert unmet(extras["dev"], pins_of("dev")) == []
    assert unmet(extras["embedded"], pins_of("embedded")) == []
    assert unmet(extras["testmodels"], pins_of("testmodels")) == []


def test_runtime_and_development_agree_on_every_version() -> None:
    runtime, dev, bench = pins_of("runtime"), pins_of("dev"), pins_of("bench")

    assert {name: dev.get(name) for name in runtime} == runtime
    assert {name: runtime[name] for name in bench if name in runtime}.items() <= bench.items()


def test_llama_is_in_no_lock_that_pip_would_build_it_from() -> None:
    assert "llama-cpp-python" not in pins_of("runtime") | pins_of("dev")
    assert locked_version(REQUIREMENTS / "llama.txt") == pins_of("llama")["llama-cpp-python"]


@pytest.mark.parametrize("name", NAMES)
def test_every_pin_has_a_hash_and_no_lock_names_a_place(name: str) -> None:
    text = (REQUIREMENTS / f"{name}.txt").read_text(encoding="utf-8")

    assert not re.search(r"https?://|--index|--find-links|^\s*#.*\s/\w", text, re.MULTILINE)
    blocks = re.split(r"^(?=[A-Za-z0-9])", text, flags=re.MULTILINE)[1:]
    assert blocks
    assert all("--hash=sha256:" in block for block in blocks)
    assert 0 < count_pins(REQUIREMENTS / f"{name}.txt") <= len(blocks)


def test_an_unpinned_package_cannot_be_locked() -> None:
    assert lock.pinned(["a>=1", "llama-cpp-python==1"], lock.LLAMA) == "llama-cpp-python==1"
    with pytest.raises(ValueError, match="llama-cpp-python==VERSION"):
        lock.pinned(["llama-cpp-python>=1"], lock.LLAMA)
