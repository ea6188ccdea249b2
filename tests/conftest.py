"""Fixtures of more than one kind of test."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fakes.nvml.library import build


@pytest.fixture(scope="session")
def nvml_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the fake `libnvidia-ml.so.1`, compiled once a session."""
    folder = tmp_path_factory.mktemp("nvml")
    build(folder)
    return folder
