"""docs/api/openapi.yaml is what the code says."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from ollamad.http.openapi.document import document
from ollamad.http.openapi.table import APIS
from tools import openapi


def test_the_document_is_up_to_date() -> None:
    """Else `python -m tools.openapi` was not run after a change of a route or a wire type."""
    assert openapi.FILE.read_text() == openapi.contents()


def test_it_is_the_document_that_is_served() -> None:
    assert yaml.safe_load(openapi.contents()) == document(APIS)


def test_a_stale_file_is_told_and_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stale = tmp_path / "openapi.yaml"
    stale.write_text("old")
    monkeypatch.setattr(openapi, "FILE", stale)
    monkeypatch.setattr(openapi, "ROOT", stale.parent)

    status = openapi.main(["--check"])

    assert status == 1
    assert stale.read_text() == "old"
    assert "python -m tools.openapi" in capsys.readouterr().out
    assert openapi.main([]) == 0
    assert openapi.main(["--check"]) == 0
