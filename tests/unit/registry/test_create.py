from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

from ollamad.errors import (
    BlobNotFound,
    InvalidBody,
    InvalidDigest,
    InvalidName,
    ModelNotFound,
    NotGguf,
    OllamadError,
    StorageFailed,
    TemplateBroken,
    UnsupportedOption,
)
from ollamad.modelinfo import StoredMessage
from ollamad.names import ModelName
from ollamad.registry import create as module
from ollamad.registry.catalog import Catalog
from ollamad.registry.create import CreateSpec, create
from ollamad.registry.digests import Digest
from ollamad.registry.manifest import OLD_TEMPLATE_TYPE, TEMPLATE_TYPE
from ollamad.registry.store import Store
from tests.builders import a_gguf_blob, created
from tests.fakes.files import FaultyFiles

MINE = ModelName(model="mine")
HI = StoredMessage(role="user", content="hi")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "models")


def _base(store: Store, folder: Path, **fields: Any) -> Digest:
    digest = a_gguf_blob(store, folder)
    created(
        store, CreateSpec(name=ModelName(model="base"), files={"b.gguf": str(digest)}, **fields)
    )
    return digest


def test_a_model_is_created_from_an_uploaded_file(store: Store, tmp_path: Path) -> None:
    digest = a_gguf_blob(store, tmp_path)
    spec = CreateSpec(
        name=MINE,
        files={"dir/model.gguf": str(digest)},
        template="{{ .Prompt }}",
        system="Be kind.",
        licenses=("MIT", "more"),
        parameters={"stop": ["a"], "num_ctx": 64.0, "tfs_z": 1, "seed": None},
        messages=(HI,),
        requires="v0.2.0",
    )

    statuses = created(store, spec)

    model = Catalog(store).find("mine")
    texts = (b"{{ .Prompt }}", b"Be kind.", b"MIT", b"more")
    assert statuses[:2] == ["parsing GGUF", f"using existing layer {digest}"]
    assert statuses[2:6] == [f"creating new layer {Digest.of(text)}" for text in texts]
    assert statuses[-2:] == ["writing manifest", "success"]
    assert len(statuses) == 10
    assert model.facts.architecture == "llama"
    assert model.details.parent_model == "dir/model.gguf"
    assert model.details.parameter_size == "224"
    assert model.details.quantization_level == "F16"
    assert (model.template, model.system, model.licenses) == (
        "{{ .Prompt }}",
        "Be kind.",
        ("MIT", "more"),
    )
    assert model.parameters == {"stop": ["a"], "num_ctx": 64}
    assert model.messages == (HI,)
    assert model.requires == "0.2.0"


def test_no_template_is_guessed_for_weights_that_bring_one(store: Store, tmp_path: Path) -> None:
    digest = a_gguf_blob(store, tmp_path, chat_template="{% if tools %}{% endif %}")

    created(store, CreateSpec(name=MINE, files={"m.gguf": str(digest)}))

    model = Catalog(store).find("mine")
    assert model.template is None
    assert model.capabilities == ("tools", "completion")


def test_a_model_inherits_what_it_does_not_change(store: Store, tmp_path: Path) -> None:
    digest = _base(
        store,
        tmp_path,
        template="old",
        system="old system",
        licenses=("MIT",),
        parameters={"top_k": 1, "stop": ["x", "y"]},
        messages=(HI,),
        renderer="r",
        requires="0.1.0",
    )
    spec = CreateSpec(
        name=MINE,
        from_="BASE",
        system="new system",
        licenses=("GPL",),
        parameters={"stop": ["z"], "seed": 7},
    )

    statuses = created(store, spec)

    model = Catalog(store).find("mine")
    assert "parsing GGUF" not in statuses
    assert statuses[0] == f"using existing layer {digest}"
    assert model.details.parent_model == "base:latest"
    assert model.weights_id == str(digest)
    assert (model.template, model.system) == ("old", "new system")
    assert model.licenses == ("MIT", "GPL")
    assert model.parameters == {"top_k": 1, "stop": ["z"], "seed": 7}
    assert model.messages == (HI,)
    assert model.requires == "0.1.0"
    assert Catalog(store).find("base").system == "old system"


def test_from_wins_over_files(store: Store, tmp_path: Path) -> None:
    digest = _base(store, tmp_path)

    created(store, CreateSpec(name=MINE, from_="base", files={"x.gguf": str(Digest.of(b"x"))}))

    assert Catalog(store).find("mine").weights_id == str(digest)


def test_an_adapter_is_added_to_its_model(store: Store, tmp_path: Path) -> None:
    _base(store, tmp_path)
    adapter = a_gguf_blob(store, tmp_path, kind="adapter")

    statuses = created(
        store, CreateSpec(name=MINE, from_="base", adapters={"lora.gguf": str(adapter)})
    )

    assert statuses[0] == "parsing GGUF"
    assert Catalog(store).find("mine").adapter_paths == (store.blob_path(adapter),)


def test_projector_and_adapter_files_are_put_where_they_belong(
    store: Store, tmp_path: Path
) -> None:
    files = {
        "c-model.gguf": a_gguf_blob(store, tmp_path),
        "a-lora.gguf": a_gguf_blob(store, tmp_path, kind="adapter"),
        "b-mmproj.gguf": a_gguf_blob(
            store, tmp_path, kind="mmproj", architecture="clip", n_layer=0
        ),
    }

    statuses = created(
        store, CreateSpec(name=MINE, files={name: str(digest) for name, digest in files.items()})
    )

    model = Catalog(store).find("mine")
    assert statuses.count("parsing GGUF") == 3
    assert model.weights_path == store.blob_path(files["c-model.gguf"])
    assert model.adapter_paths == (store.blob_path(files["a-lora.gguf"]),)
    assert model.projector_paths == (store.blob_path(files["b-mmproj.gguf"]),)
    assert model.details.families == ("llama",)


def test_a_replaced_model_leaves_nothing_that_only_it_needed(store: Store, tmp_path: Path) -> None:
    old = a_gguf_blob(store, tmp_path, n_layer=3)
    created(store, CreateSpec(name=MINE, files={"m.gguf": str(old)}, system="old"))
    new = a_gguf_blob(store, tmp_path)

    created(store, CreateSpec(name=ModelName(model="MINE"), files={"m.gguf": str(new)}))

    assert store.names() == [MINE]
    assert not store.has_blob(old)
    assert not store.has_blob(Digest.of(b"old"))
    assert len(list((store.root / "blobs").iterdir())) == 2


def test_without_pruning_the_old_blobs_stay(store: Store, tmp_path: Path) -> None:
    old = a_gguf_blob(store, tmp_path, n_layer=3)
    created(store, CreateSpec(name=MINE, files={"m.gguf": str(old)}))
    new = a_gguf_blob(store, tmp_path)

    list(create(CreateSpec(name=MINE, files={"m": str(new)}), store, Catalog(store), prune=False))

    assert store.has_blob(old)


def test_a_model_may_be_created_from_itself(store: Store, tmp_path: Path) -> None:
    _base(store, tmp_path, system="old", licenses=("MIT",))

    created(store, CreateSpec(name=ModelName(model="base"), from_="base", system="new"))

    assert Catalog(store).find("base").system == "new"
    assert not store.has_blob(Digest.of(b"old"))


def test_a_corrupt_model_is_replaced(store: Store, tmp_path: Path) -> None:
    _base(store, tmp_path)
    store.manifest_path(ModelName(model="base")).write_bytes(b"{")

    _base(store, tmp_path)

    assert Catalog(store).find("base").name.model == "base"


def test_info_overrides_what_the_weights_say(store: Store, tmp_path: Path) -> None:
    _base(store, tmp_path)
    info = {
        "capabilities": ["vision"],
        "model_family": "mine",
        "parameter_size": "1T",
        "quantization_level": "Q0",
        "context_length": 5.0,
    }

    created(store, CreateSpec(name=MINE, from_="base", info=info))

    model = Catalog(store).find("mine")
    details = model.details
    assert (details.family, details.families) == ("mine", ("mine",))
    assert (details.parameter_size, details.quantization_level) == ("1T", "Q0")
    assert model.capabilities == ("vision", "completion")


@pytest.mark.parametrize(
    ("fields", "error", "words"),
    [
        ({}, InvalidBody, "^neither 'from' or 'files' was specified$"),
        ({"files": {"/m.gguf": "sha256:x"}}, InvalidBody, "^file path must be relative$"),
        ({"files": {"a/../../m": "sha256:x"}}, InvalidBody, "^file path must be relative$"),
        ({"files": {"": "sha256:x"}}, InvalidBody, "^file path must be relative$"),
        ({"adapters": {"..": "sha256:x"}}, InvalidBody, "^file path must be relative$"),
        ({"files": {"m.gguf": ""}}, InvalidDigest, "^invalid digest format$"),
        ({"files": {"m.gguf": str(Digest.of(b"x"))}}, BlobNotFound, "^blob .* not found$"),
        ({"from_": "a//b"}, InvalidName, "^invalid model name$"),
        (
            {"from_": "Gone"},
            ModelNotFound,
            '^model "Gone" not found, try pulling it first$',
        ),
        ({"from_": "base", "quantize": "Q4_K_M"}, UnsupportedOption, "quantize is not supported"),
        ({"from_": "base", "remote_host": "x"}, UnsupportedOption, "remote_host is not supported"),
        (
            {"from_": "base", "draft_files": {"a": "b"}},
            UnsupportedOption,
            "draft_files are not supported",
        ),
        (
            {"files": {"model.safetensors": str(Digest.of(b"x"))}},
            UnsupportedOption,
            "safetensors files are not supported yet",
        ),
        (
            {"from_": "base", "parameters": {"temprature": 1}},
            UnsupportedOption,
            "^unknown parameter 'temprature'$",
        ),
        (
            {"from_": "base", "parameters": {"num_ctx": "big"}},
            UnsupportedOption,
            'option "num_ctx" must be of type integer',
        ),
        (
            {"from_": "base", "messages": (StoredMessage(role="boss", content=""),)},
            InvalidBody,
            "message role must be one of",
        ),
        ({"from_": "base", "system": "\ud800"}, InvalidBody, "system has a lone surrogate"),
        (
            {"from_": "base", "parameters": {"stop": ["\ud800"]}},
            InvalidBody,
            "parameters has a lone surrogate",
        ),
        (
            {"from_": "base", "adapters": {"a": str(Digest.of(b"x")), "b": str(Digest.of(b"y"))}},
            InvalidBody,
            "^only one adapter is currently supported$",
        ),
        ({"from_": "base", "info": {"base_name": 1}}, InvalidBody, '"base_name" must be a string'),
        (
            {"from_": "base", "info": {"context_length": "1"}},
            InvalidBody,
            '"context_length" must be a number',
        ),
        (
            {"from_": "base", "info": {"context_length": -1}},
            InvalidBody,
            "must be a non-negative integer",
        ),
        (
            {"from_": "base", "info": {"context_length": float("nan")}},
            InvalidBody,
            "must be a non-negative integer",
        ),
        ({"from_": "base", "info": {"capabilities": "x"}}, InvalidBody, "must be a list"),
        ({"from_": "base", "licenses": ("x",) * 65}, InvalidBody, "at most 64"),
        ({"from_": "base", "messages": (HI,) * 4097}, InvalidBody, "at most 4096"),
        ({"files": {f"{n}": "x" for n in range(65)}}, InvalidBody, "65 files, at most 64"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_written(
    store: Store,
    tmp_path: Path,
    fields: dict[str, Any],
    error: type[OllamadError],
    words: str,
) -> None:
    _base(store, tmp_path)
    before = sorted(store.root.rglob("*"))

    with pytest.raises(error, match=words):
        created(store, CreateSpec(name=MINE, **fields))

    assert sorted(store.root.rglob("*")) == before


def test_texts_over_the_limit_are_refused(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _base(store, tmp_path)
    monkeypatch.setattr(module, "TEXT_BYTES_MAX", 100)

    for fields in ({"system": "é" * 51}, {"messages": (HI,) * 10}, {"licenses": ("x" * 101,)}):
        with pytest.raises(InvalidBody, match="longer than 100 bytes"):
            created(store, CreateSpec(name=MINE, from_="base", **fields))


def test_what_is_not_gguf_is_refused_with_its_reason(store: Store, tmp_path: Path) -> None:
    whole = store.blob_path(a_gguf_blob(store, tmp_path)).read_bytes()
    for data, words in ((b"PK\x03\x04", "zip archive"), (whole[:-64], "truncated GGUF: tensor")):
        digest, _ = store.put_bytes(data)
        with pytest.raises(
            NotGguf, match=rf"^supplied file was not in GGUF format: m\.gguf: .*{words}"
        ):
            created(store, CreateSpec(name=MINE, files={"m.gguf": str(digest)}))
    assert store.names() == []


def test_one_part_of_a_split_model_is_refused(store: Store, tmp_path: Path) -> None:
    digest = a_gguf_blob(store, tmp_path, metadata={"split.count": 3})

    with pytest.raises(UnsupportedOption, match="one of 3 parts: split GGUF"):
        created(store, CreateSpec(name=MINE, files={"m-00001-of-00003.gguf": str(digest)}))


def test_an_adapter_alone_or_of_another_family_is_refused(store: Store, tmp_path: Path) -> None:
    _base(store, tmp_path)
    adapter = a_gguf_blob(store, tmp_path, kind="adapter")
    foreign = a_gguf_blob(store, tmp_path, kind="adapter", architecture="gemma2")
    model = a_gguf_blob(store, tmp_path, n_layer=3)

    with pytest.raises(InvalidBody, match="the files hold no model"):
        created(store, CreateSpec(name=MINE, files={"a.gguf": str(adapter)}))
    for digest, words in ((foreign, "for gemma2, the model is llama"), (model, "is no adapter")):
        with pytest.raises(InvalidBody, match=words):
            created(store, CreateSpec(name=MINE, from_="base", adapters={"a": str(digest)}))


def test_a_template_is_checked_before_it_is_stored(store: Store, tmp_path: Path) -> None:
    _base(store, tmp_path)

    def check(text: str) -> None:
        raise TemplateBroken(f"template error: {text}")

    spec = CreateSpec(name=MINE, from_="base", template="{{")
    with pytest.raises(TemplateBroken, match=r"template error: \{\{"):
        list(create(spec, store, Catalog(store), check_template=check))
    assert not store.has(MINE)


def test_a_template_takes_the_place_of_one_in_the_old_spelling(
    store: Store, tmp_path: Path
) -> None:
    _base(store, tmp_path, template="old")
    name = ModelName(model="base")
    data = store.read(name).data.replace(TEMPLATE_TYPE.encode(), OLD_TEMPLATE_TYPE.encode())
    store.write_bytes(name, data)

    created(store, CreateSpec(name=MINE, from_="base", template="new"))

    assert Catalog(store).find("base").template == "old"
    assert Catalog(store).find("mine").template == "new"
    assert len(store.read(MINE).manifest.layers) == 2


def test_leaving_early_creates_nothing(store: Store, tmp_path: Path) -> None:
    digest = a_gguf_blob(store, tmp_path)
    spec = CreateSpec(name=MINE, files={"m.gguf": str(digest)}, system="x")
    for n_steps in range(1, 5):
        steps = create(spec, store, Catalog(store))
        for _ in range(n_steps):
            next(steps)
        steps.close()
        assert not store.has(MINE)


def test_whichever_change_fails_the_old_model_or_the_new_one_stays(tmp_path: Path) -> None:
    counted = FaultyFiles()
    root = tmp_path / "models"
    digest = _base(Store(root), tmp_path, system="old")
    spec = CreateSpec(name=ModelName(model="base"), from_="base", system="new")
    created(Store(root, files=counted), spec)
    assert "remove" in counted.done

    for fails_at in range(len(counted.done)):
        _base(Store(root), tmp_path, system="old")
        faulty = Store(root, files=FaultyFiles(fails_at=fails_at, code=errno.EIO))
        try:
            created(faulty, spec)
        except StorageFailed as exc:
            assert "check it and the system's log" in exc.message  # noqa: PT017 - may also succeed
        model = Catalog(Store(root)).find("base")
        assert model.system in {"old", "new"}
        assert model.weights_id == str(digest)
        assert Store(root).problems() == []
