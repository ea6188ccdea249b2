from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import pytest
from click.testing import CliRunner, Result

from ollamactl.cli import cli
from tests.unit.ollamactl.fakedaemon import FakeDaemon, running_daemon


class Ctl(Protocol):
    def __call__(self, *args: str, stdin: str | bytes = b"") -> Result: ...


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeDaemon]:
    with running_daemon() as fake:
        monkeypatch.setenv("OLLAMA_HOST", fake.url)
        yield fake


@pytest.fixture
def ctl() -> Ctl:
    """Run one command line; nothing but an exit may leave it."""

    def call(*args: str, stdin: str | bytes = b"") -> Result:
        result = CliRunner().invoke(cli, list(args), input=stdin)
        assert result.exception is None or isinstance(result.exception, SystemExit)
        return result

    return call
