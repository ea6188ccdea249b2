"""Fixtures of more than one kind of test."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fakes.nvml.library import build
from tests.templatefolder import templates
from tools.machine import SetupError


@pytest.fixture(scope="session")
def nvml_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the fake `libnvidia-ml.so.1`, compiled once a session."""
    folder = tmp_path_factory.mktemp("nvml")
    build(folder)
    return folder


@pytest.fixture(scope="session")
def chat_templates() -> dict[str, str]:
    """The chat templates of larger models, by name; fetched once, so the first time takes long."""
    try:
        return templates()
    except SetupError as exc:
        pytest.skip(f"the templates cannot be fetched: {exc}")
