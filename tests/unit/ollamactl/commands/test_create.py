from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from tests.unit.ollamactl.conftest import Ctl
from tests.unit.ollamactl.fakedaemon import Answer, FakeDaemon, refused, stream

DONE = stream({"status": "writing manifest"}, {"status": "success"})
WEIGHTS = b"GGUF" + b"w" * 3_000_000


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "model.gguf").write_bytes(WEIGHTS)
    return tmp_path


def a_modelfile(folder: Path, text: str) -> str:
    path = folder / "Modelfile"
    path.write_text(text)
    return str(path)


def test_a_file_is_hashed_asked_for_sent_and_named(
    daemon: FakeDaemon, ctl: Ctl, folder: Path
) -> None:
    blob = f"/api/blobs/{digest_of(WEIGHTS)}"
    daemon.on("POST", blob, Answer(status=201))
    daemon.on("POST", "/api/create", DONE)
    path = a_modelfile(folder, "FROM ./model.gguf\nSYSTEM Arr.\nPARAMETER stop a\nLICENSE free")
    result = ctl("create", "mine", "-f", path, "-q", "Q8_0")

    assert (result.exit_code, result.stdout) == (0, "")
    assert [(request.method, request.path) for request in daemon.requests] == [
        ("HEAD", "/"),
        ("HEAD", blob),
        ("POST", blob),
        ("POST", "/api/create"),
    ]
    assert daemon.requests[2].body == WEIGHTS
    assert daemon.requests[3].json == {
        "model": "mine",
        "stream": True,
        "files": {"model.gguf": digest_of(WEIGHTS)},
        "system": "Arr.",
        "parameters": {"stop": ["a"]},
        "license": ["free"],
        "quantize": "Q8_0",
    }
    assert result.stderr.splitlines() == [
        "gathering model components",
        "hashing model.gguf",
        f"copying file {digest_of(WEIGHTS)[:19]}",
        "writing manifest",
        "success",
    ]


def test_a_file_that_the_daemon_has_is_not_sent_again(
    daemon: FakeDaemon, ctl: Ctl, folder: Path
) -> None:
    blob = f"/api/blobs/{digest_of(WEIGHTS)}"
    daemon.on("HEAD", blob, Answer())
    daemon.on("POST", "/api/create", DONE)
    result = ctl("create", "mine", "-f", a_modelfile(folder, "FROM model.gguf"), "--json")

    assert json.loads(result.stdout) == {"created": "mine"}
    assert [request.method for request in daemon.sent(blob)] == ["HEAD"]


def test_a_name_that_is_no_file_is_a_model(daemon: FakeDaemon, ctl: Ctl, folder: Path) -> None:
    daemon.on("POST", "/api/create", DONE)
    path = a_modelfile(folder, "FROM llama3.2\nMESSAGE user hi\nTEMPLATE {{ .Prompt }}")
    result = ctl("create", "mine", "-f", path)

    assert result.exit_code == 0
    assert daemon.sent("/api/create")[0].json == {
        "model": "mine",
        "stream": True,
        "from": "llama3.2",
        "template": "{{ .Prompt }}",
        "messages": [{"role": "user", "content": "hi"}],
    }


def test_several_files_are_named_below_their_common_folder(
    daemon: FakeDaemon, ctl: Ctl, folder: Path
) -> None:
    (folder / "sub").mkdir()
    (folder / "sub" / "mmproj.gguf").write_bytes(b"p")
    (folder / "lora.gguf").write_bytes(b"l")
    for content in (WEIGHTS, b"p", b"l"):
        daemon.on("HEAD", f"/api/blobs/{digest_of(content)}", Answer())
    daemon.on("POST", "/api/create", DONE)
    path = a_modelfile(folder, "FROM model.gguf\nFROM sub/mmproj.gguf\nADAPTER ./lora.gguf")
    ctl("create", "mine", "-f", path)

    sent = daemon.sent("/api/create")[0].json
    assert sent["files"] == {
        "model.gguf": digest_of(WEIGHTS),
        "sub/mmproj.gguf": digest_of(b"p"),
    }
    assert sent["adapters"] == {"lora.gguf": digest_of(b"l")}


def test_a_modelfile_may_come_from_standard_input(
    daemon: FakeDaemon, ctl: Ctl, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    daemon.on("HEAD", f"/api/blobs/{digest_of(WEIGHTS)}", Answer())
    daemon.on("POST", "/api/create", DONE)

    assert ctl("create", "mine", "-f", "-", stdin="FROM ./model.gguf").exit_code == 0
    assert "model.gguf" in daemon.sent("/api/create")[0].json["files"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("FROM .", "is a directory: creating models from directories is not supported yet"),
        ("FROM ./w.safetensors", "creating models from safetensors is not supported yet"),
        ("FROM ./pipe", "is not a regular file"),
        ("FROM ./dangling", "cannot read"),
        ("FROM ./missing.gguf", "there is no such file, and it is no valid model name"),
        ("FROM x\nADAPTER a.gguf", "ADAPTER: no file a.gguf"),
        (
            "FROM model.gguf\nDRAFT ./model.gguf",
            "DRAFT must not reference the same local path as FROM",
        ),
        ("FROM ~nobody-of-that-name/x", "no valid model name"),
        ("FOO", "(line 1): command must be one of"),
    ],
)
def test_what_cannot_be_made_a_model_is_told_and_nothing_is_created(
    daemon: FakeDaemon, ctl: Ctl, folder: Path, text: str, message: str
) -> None:
    (folder / "w.safetensors").touch()
    (folder / "dangling").symlink_to("nowhere")
    os.mkfifo(folder / "pipe")
    result = ctl("create", "mine", "-f", a_modelfile(folder, text))

    assert result.exit_code == 1
    assert message in result.stderr
    assert daemon.sent("/api/create") == []


def test_a_missing_modelfile_says_how_to_name_one(
    daemon: FakeDaemon, ctl: Ctl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    assert ctl("create", "mine").stderr == "Error: no Modelfile at Modelfile, name one with -f\n"


def test_an_invalid_name_is_refused_before_anything_is_read(ctl: Ctl) -> None:
    assert ctl("create", "../x").stderr == "Error: invalid model name\n"


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (refused(400, "template error: x"), "Error: 400 Bad Request: template error: x"),
        (stream({"status": "parsing GGUF"}, {"error": "unknown type"}), "Error: unknown type"),
        (stream({"status": "parsing GGUF"}), "ended the creation without saying success"),
    ],
)
def test_a_creation_that_fails_ends_with_1(
    daemon: FakeDaemon, ctl: Ctl, folder: Path, answer: Answer, message: str
) -> None:
    daemon.on("POST", "/api/create", answer)
    result = ctl("create", "mine", "-f", a_modelfile(folder, "FROM x"))

    assert result.exit_code == 1
    assert message in result.stderr


def test_a_refused_upload_ends_the_command(daemon: FakeDaemon, ctl: Ctl, folder: Path) -> None:
    daemon.on("POST", f"/api/blobs/{digest_of(WEIGHTS)}", refused(400, "digest mismatch"))
    result = ctl("create", "mine", "-f", a_modelfile(folder, "FROM model.gguf"))

    assert result.exit_code == 1
    assert "Error: digest mismatch" in result.stderr
    assert daemon.sent("/api/create") == []


def test_progress_bars_are_told_once_where_no_terminal_is(
    daemon: FakeDaemon, ctl: Ctl, folder: Path
) -> None:
    bar = {"status": "quantizing F16 model to Q8_0", "digest": "0", "total": 9}
    daemon.on(
        "POST",
        "/api/create",
        stream(bar | {"completed": 1}, bar | {"completed": 9}, {"status": "success"}),
    )
    result = ctl("create", "mine", "-f", a_modelfile(folder, "FROM x"))

    assert result.stderr.splitlines()[1:] == ["quantizing F16 model to Q8_0", "success"]
