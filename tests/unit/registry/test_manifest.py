from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollamad.errors import ModelCorrupt
from ollamad.registry import manifest as module
from ollamad.registry.digests import Digest
from ollamad.registry.manifest import (
    CONFIG_TYPE,
    LICENSE_TYPE,
    MODEL_TYPE,
    Layer,
    Manifest,
    ModelConfig,
    encode_config,
    encode_manifest,
    parse_config,
    parse_manifest,
)

A, B = Digest.of(b"a"), Digest.of(b"b")


def _manifest() -> Manifest:
    return Manifest(
        config=Layer(media_type=CONFIG_TYPE, digest=A, size=10),
        layers=(
            Layer(media_type=MODEL_TYPE, digest=B, size=100, from_="base:latest"),
            Layer(media_type=LICENSE_TYPE, digest=A, size=10),
        ),
    )


def test_a_manifest_is_written_as_ollama_writes_it() -> None:
    assert encode_manifest(_manifest()) == (
        b'{"schemaVersion":2,'
        b'"mediaType":"application/vnd.docker.distribution.manifest.v2+json",'
        b'"config":{"mediaType":"application/vnd.docker.container.image.v1+json",'
        b'"digest":"' + str(A).encode() + b'","size":10},'
        b'"layers":[{"mediaType":"application/vnd.ollama.image.model",'
        b'"digest":"' + str(B).encode() + b'","size":100,"from":"base:latest"},'
        b'{"mediaType":"application/vnd.ollama.image.license",'
        b'"digest":"' + str(A).encode() + b'","size":10}]}\n'
    )


def test_a_manifest_survives_the_round_trip() -> None:
    manifest = parse_manifest(encode_manifest(_manifest()))

    assert manifest == _manifest()
    assert manifest.size_bytes == 120
    assert manifest.digests == {A, B}
    assert [layer.digest for layer in manifest.of_type(MODEL_TYPE)] == [B]


def test_layers_of_null_are_none() -> None:
    text = f'{{"config":{{"digest":"{A}","size":1}},"layers":null,"unknown":[1]}}'

    assert parse_manifest(text.encode()).layers == ()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b'{"config":{"digest":"sha256:zz","size":1}}',
        b'{"config":{"digest":{"hex":"../../x"},"size":1}}',
        b'{"config":{"digest":"../../x","size":1}}',
        f'{{"config":{{"digest":"{A}","size":-1}}}}'.encode(),
        f'{{"config":{{"digest":"{A}","size":1e99}}}}'.encode(),
        f'{{"config":{{"digest":"{A}","size":{1 << 60}}}}}'.encode(),
        b'{"config":{"digest":"\xff"}}',
        b'{"config":' + b'{"a":' * 100_000,
    ],
)
def test_a_broken_manifest_is_corrupt(data: bytes) -> None:
    with pytest.raises(ModelCorrupt, match="manifest"):
        parse_manifest(data)


def test_a_manifest_over_the_limits_is_corrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode_manifest(_manifest())
    monkeypatch.setattr(module, "LAYERS_MAX", 1)
    with pytest.raises(ModelCorrupt, match="2 layers, at most 1"):
        parse_manifest(data)
    monkeypatch.setattr(module, "MANIFEST_BYTES_MAX", len(data) - 1)
    with pytest.raises(ModelCorrupt, match="larger than"):
        parse_manifest(data)


@given(st.binary(max_size=200))
def test_random_bytes_are_corrupt_and_nothing_else(data: bytes) -> None:
    with pytest.raises(ModelCorrupt):
        parse_manifest(data)


def test_a_config_has_the_fields_ollama_always_writes() -> None:
    config = ModelConfig(model_format="gguf", model_families=("llama",), requires="0.1.0")
    data = encode_config(config)

    assert data == (
        b'{"model_format":"gguf","model_family":"","model_families":["llama"],"model_type":"",'
        b'"file_type":"","requires":"0.1.0","architecture":"amd64","os":"linux"}'
    )
    assert parse_config(data) == config


def test_a_config_of_ollama_is_read_without_what_we_do_not_know() -> None:
    data = (
        b'{"model_format":"gguf","model_family":"llama","model_families":null,"model_type":"8.0B",'
        b'"file_type":"Q4_0","architecture":"amd64","os":"linux",'
        b'"rootfs":{"type":"layers","diff_ids":["sha256:1"]}}'
    )

    config = parse_config(data)

    assert (config.model_family, config.model_families) == ("llama", None)
    with pytest.raises(ModelCorrupt, match="config"):
        parse_config(b'{"model_format":3}')
