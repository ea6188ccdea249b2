from __future__ import annotations

import dataclasses
import math
import re
import tomllib
from pathlib import Path

import pytest

from ollamad.config import (
    SECTIONS,
    SETTINGS,
    Config,
    LogConfig,
    SchedulingConfig,
    StoreConfig,
    changed_keys,
    config_from,
)
from ollamad.modelconfig import POLICY_SETTINGS
from ollamad.modelpolicy import ModelPolicy, PolicyBook
from ollamad.names import ModelName
from ollamad.units import MIB
from tools import config_reference

HERE = StoreConfig(models_path=Path("/models"))


def test_the_sections_are_the_ones_of_the_design() -> None:
    assert tuple(SECTIONS) == ("http", "scheduling", "runner", "gpu", "store", "admin", "log")


def test_every_field_is_a_documented_setting() -> None:
    fields = {
        f"{section}.{field.name}"
        for section, cls in SECTIONS.items()
        for field in dataclasses.fields(cls)
    }

    assert fields == set(SETTINGS)
    for key, known in SETTINGS.items():
        assert known.doc.endswith("."), key


def test_every_default_is_one_that_its_own_reader_accepts() -> None:
    for key, known in SETTINGS.items():
        if known.default_doc is None:
            assert known.read(known.kind.show(known.default)) == known.default, key


def test_defaults_are_the_promised_ones() -> None:
    config = Config(store=HERE)

    assert (config.http.host, config.http.port) == ("127.0.0.1", 11434)
    assert config.http.body_bytes_max == 64 * MIB
    assert config.scheduling.keep_alive_s == 300.0
    assert config.scheduling.queue_length_max == 512
    assert config.scheduling.load_timeout_s == 300.0
    assert config.runner.kv_type == "f16"
    assert config.runner.use_mmap is None
    assert config.gpu.host_headroom_bytes == 512 * MIB
    assert config.store.prune is True
    assert config.log.level == "info"


def test_a_config_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config(store=HERE).http.port = 1  # type: ignore[misc]


def test_values_out_of_range_are_refused_with_the_limit() -> None:
    with pytest.raises(ValueError, match="at most 65535, but is 65536"):
        SETTINGS["http.port"].read(65536)
    with pytest.raises(ValueError, match="at least 1, but is 0"):
        SETTINGS["scheduling.queue_length_max"].read(0)


@pytest.mark.parametrize(
    ("text", "level"),
    [("1", "debug"), ("true", "debug"), ("2", "debug"), ("0", None), ("false", None)],
)
def test_the_debug_variable_sets_the_level_or_says_nothing(text: str, level: str | None) -> None:
    assert SETTINGS["log.level"].read_env(text) == level


def test_the_no_prune_variable_has_the_opposite_sense() -> None:
    assert SETTINGS["store.prune"].read_env("1") is False
    assert SETTINGS["store.prune"].read_env("0") is True


def test_a_config_made_of_values_has_defaults_for_the_rest() -> None:
    config = config_from({"store.models_path": Path("/m"), "scheduling.keep_alive_s": math.inf})

    assert config.scheduling == SchedulingConfig(keep_alive_s=math.inf)
    assert config.log == LogConfig()
    assert config.value("store.models_path") == Path("/m")


def test_changed_keys_are_what_a_reload_looks_at() -> None:
    old = Config(store=HERE)
    new = Config(store=HERE, log=LogConfig(level="debug"))

    assert changed_keys(old, old) == ()
    assert changed_keys(old, new) == ("log.level",)
    assert SETTINGS["log.level"].reloadable
    assert not SETTINGS["http.port"].reloadable


def test_the_reference_and_the_default_file_are_up_to_date() -> None:
    """Else `python -m tools.config_reference` was not run after a change of settings."""
    assert config_reference.REFERENCE.read_text() == config_reference.reference()
    assert config_reference.DEFAULT_FILE.read_text() == config_reference.default_file()


def test_the_default_file_changes_nothing_and_shows_every_default() -> None:
    text = config_reference.default_file()
    assert all(table == {} for table in tomllib.loads(text).values())

    uncommented = tomllib.loads(re.sub(r"(?m)^#(?=[\w\[])", "", text))
    assert set(uncommented.pop("models")["NAME"]) == set(POLICY_SETTINGS)
    shown = {f"{section}.{name}" for section, table in uncommented.items() for name in table}
    assert shown == set(SETTINGS)
    for key, known in SETTINGS.items():
        section, _, name = key.partition(".")
        if known.default_doc is None:
            assert known.read(uncommented[section][name]) == known.default, key


def test_no_line_of_the_default_file_is_too_wide_for_a_terminal() -> None:
    assert max(map(len, config_reference.default_file().splitlines())) <= 92


def test_every_rule_for_a_model_is_documented_and_can_be_reloaded() -> None:
    for name, known in POLICY_SETTINGS.items():
        assert known.doc.endswith("."), name
        assert known.reloadable, name
        assert f'### models."NAME".{name}' in config_reference.reference()


def test_changed_rules_for_models_are_one_change() -> None:
    old = Config(store=HERE)
    book = PolicyBook(((ModelName.parse("a"), ModelPolicy(pinned=True)),))
    new = dataclasses.replace(old, models=book)

    assert changed_keys(old, new) == ("models",)
    assert changed_keys(new, new) == ()
