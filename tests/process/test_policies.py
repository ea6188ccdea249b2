"""Rules for single models, in the file of a real daemon."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from tests.process.conftest import MODEL
from tests.process.daemonprocess import a_daemon

pytestmark = [pytest.mark.process, pytest.mark.model]


def test_a_model_that_is_to_be_there_from_the_start_is_loaded_by_its_rules(
    tmp_path: Path, model_file: Path
) -> None:
    config = tmp_path / "ollamad.toml"
    config.write_text(f'[models."{MODEL}"]\npreload = true\nn_ctx = 512\nparallel = 2\n')

    with a_daemon(tmp_path, {}, "--config", str(config)) as daemon:
        told = daemon.wait_for_log(lambda r: r["message"].startswith(f"{MODEL} is ready"))
        (model,) = httpx.get(f"{daemon.url}/api/ps").json()["models"]

    assert (model["name"], model["context_length"]) == (MODEL, 512)
    assert "2 slots of 512 tokens" in told["message"]


def test_a_model_that_is_to_be_there_and_is_not_is_a_warning(
    tmp_path: Path, model_file: Path
) -> None:
    config = tmp_path / "ollamad.toml"
    config.write_text('[models."nobody/knows:it"]\npreload = true\n')

    with a_daemon(tmp_path, {}, "--config", str(config)) as daemon:
        told = daemon.wait_for_log(
            lambda record: "was not loaded at the start" in record["message"]
        )

    assert told["level"] == "warning"
