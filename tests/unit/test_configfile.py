from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollamad.config import SETTINGS
from ollamad.configfile import (
    FILE_BYTES_MAX,
    LoadedConfig,
    Origin,
    OriginKind,
    config_as_json,
    config_candidates,
    line_of,
    load_config,
    render_config,
)
from ollamad.deviceshare import DeviceShare, DeviceShares
from ollamad.errors import ConfigError
from ollamad.modelconfig import POLICIES_MAX
from ollamad.modelpolicy import NO_POLICY, ModelPolicy, PolicyBook

Load = Callable[..., LoadedConfig]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Load a config from a text, variables and flags, in a home of its own."""
    counted = iter(range(100))

    def loading(text: str | None = None, /, **rest: Any) -> LoadedConfig:
        # Without a text, an empty folder of configuration: the machine's own file stays out.
        environ = {"CONFIGURATION_DIRECTORY": str(tmp_path), **rest.get("environ", {})}
        file = rest.get("file")
        if text is not None:
            file = tmp_path / f"given{next(counted)}.toml"
            file.write_text(text)
        return load_config(rest.get("flags", {}), environ, file, home=tmp_path / "home")

    return loading


def refusal(load: Load, *given: Any, **rest: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        load(*given, **rest)
    return str(caught.value)


def test_flags_go_before_variables_before_the_file_before_defaults(load: Load) -> None:
    text = '[http]\nport = 1\nhost = "1.1.1.1"\n[scheduling]\nkeep_alive_s = "1h"\n'

    loaded = load(text, environ={"OLLAMA_HOST": "2.2.2.2:2"}, flags={"http.port": "3"})

    assert loaded.config.http.port == 3
    assert loaded.config.http.host == "2.2.2.2"
    assert loaded.config.scheduling.keep_alive_s == 3600.0
    assert loaded.config.scheduling.queue_length_max == 512
    assert loaded.origins["http.port"] == Origin(OriginKind.FLAG, "--port")
    assert loaded.origins["http.host"] == Origin(OriginKind.ENVIRONMENT, "OLLAMA_HOST")
    assert loaded.origins["scheduling.keep_alive_s"] == Origin(OriginKind.FILE, f"{loaded.file}:5")
    assert loaded.origins["log.level"] == Origin(OriginKind.DEFAULT)
    assert set(loaded.origins) == set(SETTINGS)
    assert loaded.warnings == ()


def test_every_ollama_variable_reaches_its_setting(load: Load) -> None:
    config = load(
        environ={
            "OLLAMA_HOST": ' "0.0.0.0" ',
            "OLLAMA_ORIGINS": "http://a,app://*",
            "OLLAMA_KEEP_ALIVE": "-1",
            "OLLAMA_MAX_QUEUE": "7",
            "OLLAMA_MAX_LOADED_MODELS": "2",
            "OLLAMA_LOAD_TIMEOUT": "0",
            "OLLAMA_NUM_PARALLEL": "3",
            "OLLAMA_CONTEXT_LENGTH": "8192",
            "OLLAMA_KV_CACHE_TYPE": "q8_0",
            "OLLAMA_FLASH_ATTENTION": "1",
            "OLLAMA_GPU_OVERHEAD": "1048576",
            "OLLAMA_MODELS": "/models",
            "OLLAMA_NOPRUNE": "true",
            "OLLAMA_DEBUG": "'1'",
        }
    ).config

    assert (config.http.host, config.http.port) == ("0.0.0.0", 11434)  # noqa: S104 - no socket
    assert config.http.origins == ("http://a", "app://*")
    assert config.scheduling.keep_alive_s == math.inf
    assert config.scheduling.queue_length_max == 7
    assert config.scheduling.models_loaded_max == 2
    assert config.scheduling.load_timeout_s == math.inf
    assert (config.runner.n_slots, config.runner.n_ctx) == (3, 8192)
    assert (config.runner.kv_type, config.runner.flash_attention) == ("q8_0", "on")
    assert config.gpu.overhead_bytes == 1048576
    assert (config.store.models_path, config.store.prune) == (Path("/models"), False)
    assert config.log.level == "debug"


def test_an_empty_variable_is_the_same_as_none(load: Load) -> None:
    loaded = load(environ={"OLLAMA_KEEP_ALIVE": ' "" ', "OLLAMA_NEWS": ""})

    assert loaded.config.scheduling.keep_alive_s == 300.0
    assert loaded.origins["scheduling.keep_alive_s"].kind is OriginKind.DEFAULT
    assert loaded.warnings == ()


@pytest.mark.parametrize(
    ("variable", "text", "part"),
    [
        ("OLLAMA_KEEP_ALIVE", "soon", 'seconds or a duration such as "1m30s", not "soon"'),
        ("OLLAMA_MAX_QUEUE", "many", 'a whole number, not "many"'),
        ("OLLAMA_MAX_QUEUE", "9" * 5000, "a whole number"),
        ("OLLAMA_KV_CACHE_TYPE", "q9", "f16, q8_0, q4_0, f32 or bf16"),
        ("OLLAMA_NOPRUNE", "perhaps", "true or false"),
        ("OLLAMA_DEBUG", "perhaps", "true or false"),
        ("OLLAMA_ORIGINS", "example.com", "must contain * or start with"),
        ("OLLAMA_HOST", "a b", "a host name or an IP address"),
        ("OLLAMA_MODELS", "a\0b", "control characters"),
    ],
)
def test_a_bad_variable_is_refused_by_name(load: Load, variable: str, text: str, part: str) -> None:
    message = refusal(load, environ={variable: text})

    assert message.startswith(f"{variable} (for ")
    assert part in message


def test_variables_that_do_nothing_are_warned_about(load: Load) -> None:
    environ = {
        "OLLAMA_KEEPALIVE": "5m",
        "OLLAMA_SCHED_SPREAD": "1",
        "OLLAMA_TMPDIR": "/tmp",  # noqa: S108 - a value that is never used
        "OLLAMA_EDITOR": "vi",
        "OLLAMA_HOST": "127.0.0.1:port",
        "OLLAMAD_FLAVOUR": "native",
        "OLLAMA_ZZZZ\x1b": "1",
    }

    assert load(environ=environ).warnings == (
        'OLLAMA_HOST: "port" is not a port, using 11434',
        "OLLAMA_KEEPALIVE is set, but nothing reads it, did you mean OLLAMA_KEEP_ALIVE?",
        "OLLAMA_SCHED_SPREAD is set, but has no effect in ollamad yet",
        "OLLAMA_TMPDIR is set, but no longer has an effect, in Ollama neither; remove it",
        "OLLAMA_ZZZZ\\u001b is set, but nothing reads it, remove it",
    )


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("[http]\n\nprot = 1\n", ':3: unknown setting "prot" in [http], did you mean port?'),
        ("[store]\nport = 1\n", ':2: unknown setting "port" in [store], did you mean the one of'),
        ("[log]\nxyzzy = 1\n", ':2: unknown setting "xyzzy" in [log], known are level, format'),
        ("\n[htpp]\n", ':2: unknown section "htpp", did you mean [http]?'),
        ("[xyzzy]\n", ':1: unknown section "xyzzy", known are http, scheduling'),
        ("[model]\n", ':1: unknown section "model", did you mean [models]?'),
        ("\nmodels = 1\n", ':2: models is a section, write [models."NAME"]'),
        ("[models]\npinned = true\n", ':2: unknown setting "pinned" in [models], its tables'),
        ('[models."a b"]\n', ':1: "a b" is no model\'s name'),
        ("[models.a]\n[models.'A:latest']\n", ":2: there are rules for A:latest already"),
        (
            "[models.'a:b']\n\npinnned = true\n",
            ':3: unknown setting "pinnned" in [models."a:b"], did you mean pinned?',
        ),
        ("[models.a]\nxyzzy = 1\n", ':2: unknown setting "xyzzy" in [models."a"], known are dev'),
        ("[models.a]\nn_ctx = -1\n", ':2: models."a".n_ctx must be at least 0, but is -1'),
        ("[models.a]\npriority = 101\n", ':2: models."a".priority must be at most 100'),
        ("[models.a]\nkv_type = 'q9'\n", ':2: models."a".kv_type must be f16, q8_0, q4_0, f32'),
        ("[models.a]\ndevices = 0\n", ':2: models."a".devices must be a list of at most 256'),
        ("[models.a]\ndevices = ['card0']\n", ':2: models."a".devices must name devices by UUID'),
        (
            "[models.a]\ncpu_only = true\ndevices = [0]\n",
            ":1: cpu_only and the GPUs in devices contradict each other",
        ),
        ("[gpu]\nbudgets = 5\n", ":2: gpu.budgets must be a table of at most 256 devices"),
        ("[gpu.budgets]\nhost = '101%'\n", ":1: gpu.budgets has more than 100 percent"),
        ("[gpu.headroom]\n0 = -5\n", ":1: gpu.headroom must be bytes or an amount"),
        ("[gpu.headroom]\ncpu = 5\n", ":1: gpu.headroom must name devices by UUID"),
        ("port = 1\n", ':1: "port" stands outside a section, move it below [http]'),
        ("\nhttp = 1\n", ":2: http is a section, write [http] above its settings"),
        ("[[http]]\nport = 1\n", ":1: http is a section"),
        ("[http]\nport = 70000\n", ":2: http.port must be at most 65535, but is 70000"),
        ('[http]\nport = "1"\n', ':2: http.port must be a whole number, not "1"'),
        ("[http]\nport = {a = 1}\n", ":2: http.port must be a whole number, not a table"),
        ("[http]\nport.a = 1\n", ":2: http.port must be a whole number, not a table"),
        ("[http]\nport = 2020-01-01\n", ":2: http.port must be a whole number, not"),
        ("[gpu]\nmemory_period_s = nan\n", ":2: gpu.memory_period_s must be seconds"),
        ('[store]\nmodels_path = "models"\n', ":2: store.models_path must be an absolute path"),
        ("[http]\nport = \n", ":2: Invalid value"),
        ("[http]\na = 1\na = 2\n", ":3: Cannot overwrite a value"),
        ('[http]\nhost = """\n\n', ":"),
        ("a = " + "[" * 20_000, ":"),
        ("a = " + "9" * 20_000, ":"),
        ("http." + ".".join(["a"] * 2_000) + " = 1", ":1: unknown setting"),
    ],
)
def test_a_bad_file_is_refused_with_the_line(load: Load, text: str, part: str) -> None:
    assert part in refusal(load, text)


def test_a_file_that_was_named_must_be_there(load: Load, tmp_path: Path) -> None:
    missing = tmp_path / "no.toml"

    assert refusal(load, file=missing) == f"{missing}: there is no such config file"
    assert "cannot read the config file" in refusal(load, file=tmp_path)


def test_a_file_that_is_no_text_is_refused_with_the_line(load: Load, tmp_path: Path) -> None:
    file = tmp_path / "latin.toml"
    file.write_bytes(b"[http]\n# caf\xe9\n")

    assert refusal(load, file=file) == f"{file}:2: the file is not UTF-8 text"


def test_a_file_is_read_up_to_a_limit(load: Load) -> None:
    assert load("#" * FILE_BYTES_MAX).config.http.port == 11434
    assert "bytes at most" in refusal(load, "#" * (FILE_BYTES_MAX + 1))


def test_the_service_the_user_and_the_system_have_a_place_each(tmp_path: Path) -> None:
    system = Path("/etc/ollamad/ollamad.toml")

    assert config_candidates({}, tmp_path) == (tmp_path / ".config/ollamad/ollamad.toml", system)
    assert config_candidates({"XDG_CONFIG_HOME": "/x"}, tmp_path) == (
        Path("/x/ollamad/ollamad.toml"),
        system,
    )
    assert config_candidates({"XDG_CONFIG_HOME": "relative"}, tmp_path)[0].is_absolute()
    assert config_candidates({"CONFIGURATION_DIRECTORY": "/c:/d"}, tmp_path) == (
        Path("/c/ollamad.toml"),
    )


def test_the_users_file_is_found(tmp_path: Path) -> None:
    file = tmp_path / "ollamad" / "ollamad.toml"
    file.parent.mkdir()
    file.write_text("[http]\nport = 5\n")

    loaded = load_config({}, {"XDG_CONFIG_HOME": str(tmp_path)}, home=tmp_path)

    assert (loaded.file, loaded.config.http.port) == (file, 5)


@pytest.mark.parametrize(
    ("environ", "path"),
    [
        ({}, "/home/me/.local/share/ollamad/models"),
        ({"XDG_DATA_HOME": "/data"}, "/data/ollamad/models"),
        ({"XDG_DATA_HOME": "data"}, "/home/me/.local/share/ollamad/models"),
        (
            {"STATE_DIRECTORY": "/var/lib/ollamad:/var/lib/ollamad/models"},
            "/var/lib/ollamad/models",
        ),
        ({"OLLAMA_MODELS": "~/mine", "STATE_DIRECTORY": "/s"}, "/home/me/mine"),
    ],
)
def test_models_are_kept_in_the_services_state_or_the_users_data(
    environ: dict[str, str], path: str, tmp_path: Path
) -> None:
    nowhere = {"CONFIGURATION_DIRECTORY": str(tmp_path), "HOME": "/home/me"}

    assert load_config({}, nowhere | environ).config.store.models_path == Path(path)


def test_a_relative_path_of_a_variable_or_flag_means_the_current_folder(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    assert load(flags={"store.models_path": "m"}).config.store.models_path == tmp_path / "m"


def test_flags_may_have_values_of_their_own_type_and_none_is_not_given(load: Load) -> None:
    flags = {"http.port": 5, "http.host": None, "log.level": "DEBUG", "runner.n_ctx": "1"}

    loaded = load(flags=flags)

    assert (loaded.config.http.port, loaded.config.http.host) == (5, "127.0.0.1")
    assert loaded.config.log.level == "debug"
    assert str(loaded.origins["runner.n_ctx"]) == "--set runner.n_ctx"


def test_a_bad_flag_is_refused_by_name(load: Load) -> None:
    assert refusal(load, flags={"http.port": "x"}).startswith("--port must be a whole number")
    assert refusal(load, flags={"http.prot": "1"}).endswith("did you mean http.port?")


LINES = '''\
# port = 0
[scheduling]
keep_alive_s = """
[http]
port = 1
"""  # not these
[ "http" ]
origins = [
  "http://a=b",
]
'port' = 2
[log]
[gpu]
'''


def test_the_line_of_a_key_is_found_past_comments_and_long_texts() -> None:
    assert tomllib.loads(LINES)["http"]["port"] == 2
    assert line_of(LINES, ("http",)) == 7
    assert line_of(LINES, ("http", "port")) == 11
    assert line_of(LINES, ("scheduling", "keep_alive_s")) == 3
    assert line_of("a = 1\nhttp . port = 1\n", ("http", "port")) == 2
    assert line_of("a = 1\nhttp = { port = 1 }\n", ("http", "port")) == 2
    assert line_of('[http]\n"po\\u0072t" = 1\n', ("http", "port")) == 1


@given(st.text(alphabet="[]\"=.\n\\ht#po' 1{}", max_size=60))
def test_any_text_has_a_line_for_any_key(text: str) -> None:
    assert 1 <= line_of(text, ("http", "port")) <= text.count("\n") + 1


def test_the_table_shows_every_value_with_its_origin(load: Load) -> None:
    loaded = load('[runner]\nuse_mmap = "auto"\n', environ={"OLLAMA_KEEP_ALIVE": "-1"})

    lines = render_config(loaded).splitlines()

    assert [line.split()[0] for line in lines] == list(SETTINGS)
    row = next(line for line in lines if line.startswith("scheduling.keep_alive_s"))
    assert row.split() == ["scheduling.keep_alive_s", "-1", "OLLAMA_KEEP_ALIVE"]
    assert len({line.index(line.split()[1]) for line in lines}) == 1
    assert f"{loaded.file}:2" in render_config(loaded)


def test_a_path_that_is_no_text_can_still_be_shown(load: Load) -> None:
    loaded = load(environ={"OLLAMA_MODELS": "/m\udcff"})

    assert "/m\\udcff" in render_config(loaded)
    assert json.loads(config_as_json(loaded))["store.models_path"]["value"] == "/m\udcff"


def test_the_json_shows_every_value_with_its_origin(load: Load) -> None:
    shown = json.loads(config_as_json(load(environ={"OLLAMA_LOAD_TIMEOUT": "-1"})))

    assert list(shown) == list(SETTINGS)
    assert shown["scheduling.load_timeout_s"] == {
        "value": 0,
        "origin": "environment",
        "detail": "OLLAMA_LOAD_TIMEOUT",
    }


MODELS = """
[models."Llama3:8B"]
devices = [0, "GPU-12-ab", "host"]
pinned = true
keep_alive = "1h"
priority = -3

[models.embedder]
cpu_only = true
keep_alive = -1
n_ctx = 512
kv_type = "Q8_0"
"""


def test_models_have_rules_by_their_names_in_any_spelling(load: Load) -> None:
    models = load(MODELS).config.models

    assert models.of("llama3:8b") == ModelPolicy(
        devices=("0", "GPU-12-ab", "host"), pinned=True, keep_alive_s=3600.0, priority=-3
    )
    assert models.of("embedder:latest") == models.of("registry.ollama.ai/library/embedder")
    assert models.of("embedder") == ModelPolicy(
        cpu_only=True, keep_alive_s=math.inf, n_ctx=512, kv_type="q8_0"
    )
    assert models.of("llama3") == models.of("no name at all") == NO_POLICY


def test_without_a_file_no_model_has_rules(load: Load) -> None:
    assert load().config.models == PolicyBook()


def test_shares_of_devices_are_bytes_or_percent(load: Load) -> None:
    text = '[gpu.budgets]\nhost = "16GiB"\n0 = "80.5%"\nGPU-a = 1000\n'

    gpu = load(text).config.gpu

    assert gpu.budgets.find("host") == DeviceShare(16 << 30)
    assert gpu.budgets.find("GPU-b", "0") == DeviceShare(percent=80.5)
    assert gpu.budgets.find("GPU-a", "0") == DeviceShare(1000)
    assert gpu.headroom == DeviceShares()


def test_what_is_stated_of_models_and_devices_is_shown_with_its_line(load: Load) -> None:
    loaded = load(MODELS + '[gpu.budgets]\n0 = "80%"\nhost = "1GiB"\n')

    shown = render_config(loaded)
    rows = {line.split("  ")[0]: line.split("  ") for line in shown.splitlines()}

    row = [cell.strip() for cell in rows['models."Llama3:8B".keep_alive'] if cell]
    assert row == ['models."Llama3:8B".keep_alive', "3600", f"{loaded.file}:5"]
    assert '{ 0 = "80%", host = "1GiB" }' in shown
    assert json.loads(config_as_json(loaded))['models."embedder:latest".n_ctx'] == {
        "value": 512,
        "origin": "file",
        "detail": f"{loaded.file}:11",
    }


def test_what_is_shown_of_devices_reads_as_the_same(load: Load) -> None:
    loaded = load('[gpu.budgets]\n0 = "12.5%"\nhost = "1GiB"\n"GPU-1-2" = 7\n')
    row = next(line for line in render_config(loaded).splitlines() if "gpu.budgets" in line)
    literal = row.partition("{")[2].partition("}")[0]

    again = load(f"[gpu]\nbudgets = {{{literal}}}\n")

    assert again.config.gpu.budgets == loaded.config.gpu.budgets


def test_the_number_of_models_with_rules_is_limited(load: Load) -> None:
    tables = "".join(f"[models.m{number}]\n" for number in range(POLICIES_MAX + 1))

    assert f"at most {POLICIES_MAX} models can have rules" in refusal(load, tables)
