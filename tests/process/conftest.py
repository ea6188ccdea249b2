"""Fixtures of the tests with real processes: one daemon with the embedded model for all of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import ollama
import pytest

from ollamad.registry.embedded import embedded_model_file
from tests.process.daemonprocess import DaemonProcess, a_daemon

MODEL = "smollm2:135m"


@pytest.fixture(scope="session")
def model_file() -> Path:
    """The embedded model's GGUF file."""
    path = embedded_model_file()
    assert path is not None, "install the extra `embedded`: the tests use its model"
    return path


@pytest.fixture(scope="session")
def daemon(tmp_path_factory: pytest.TempPathFactory, model_file: Path) -> Iterator[DaemonProcess]:
    """A real daemon with the embedded model and eight slots."""
    folder = tmp_path_factory.mktemp("daemon")
    environ = {"OLLAMA_NUM_PARALLEL": "8", "OLLAMA_CONTEXT_LENGTH": "4096"}
    with a_daemon(folder, environ) as running:
        yield running


@pytest.fixture
def client(daemon: DaemonProcess) -> Iterator[ollama.Client]:
    """The official Python client, talking to the daemon."""
    talking = ollama.Client(daemon.url)
    yield talking
    talking._client.close()
