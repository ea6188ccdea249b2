from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ollamad.convert import ggufheader
from ollamad.convert.gguffacts import facts
from ollamad.convert.ggufheader import LazyArray, read_header
from ollamad.errors import NotGguf, StorageFailed
from tests.builders import a_gguf


def _text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def _file(
    folder: Path,
    *,
    keys: tuple[bytes, ...] = (),
    tensors: tuple[bytes, ...] = (),
    version: int = 3,
    n_keys: int | None = None,
    n_tensors: int | None = None,
    data: bytes = b"",
) -> Path:
    """Write a header by hand, so that it can be wrong."""
    head = b"GGUF" + struct.pack(
        "<IQQ",
        version,
        len(tensors) if n_tensors is None else n_tensors,
        len(keys) if n_keys is None else n_keys,
    )
    path = folder / "made.gguf"
    path.write_bytes(head + b"".join(keys) + b"".join(tensors) + data)
    return path


def _u32(key: str, value: int) -> bytes:
    return _text(key) + struct.pack("<II", 4, value)


def _tensor(
    name: str, shape: tuple[int, ...], *, kind: int = 0, offset: int = 0, n: int | None = None
) -> bytes:
    dimensions = len(shape) if n is None else n
    packed = struct.pack(f"<I{len(shape)}Q", dimensions, *shape)
    return _text(name) + packed + struct.pack("<IQ", kind, offset)


def test_a_small_file_is_read_completely(tmp_path: Path) -> None:
    header = read_header(a_gguf(tmp_path / "a.gguf", n_head_kv=[2, 0]))

    assert header.version == 3
    assert header.text("general.architecture") == "llama"
    assert header.integer("llama.block_count") == 2
    assert header.metadata["llama.attention.head_count_kv"] == (2, 0)
    assert header.metadata["tokenizer.ggml.tokens"] == ("<unk>", "<s>", "</s>", "a", "b")
    first = header.tensors[0]
    assert (first.name, first.shape, first.type.name) == ("token_embd.weight", (32, 5), "F16")
    assert (first.n_elements, first.n_bytes) == (160, 320)
    assert header.data_offset % header.alignment == 0
    assert header.file_bytes == (tmp_path / "a.gguf").stat().st_size


def test_accessors_do_not_take_a_value_of_another_type_for_theirs(tmp_path: Path) -> None:
    header = read_header(a_gguf(tmp_path / "a.gguf", metadata={"x.flag": True, "x.text": "t"}))

    assert header.flag("x.flag") is True
    assert header.integer("x.flag") is None
    assert header.text("x.flag") == ""
    assert header.flag("x.text") is None


def test_a_large_array_is_left_in_the_file_until_asked_for(tmp_path: Path) -> None:
    tokens = [f"token{i}" for i in range(5000)]
    header = read_header(a_gguf(tmp_path / "a.gguf", tokens=tokens, metadata={"x.n": [7] * 3000}))

    lazy, numbers = header.metadata["tokenizer.ggml.tokens"], header.metadata["x.n"]
    assert isinstance(lazy, LazyArray)
    assert isinstance(numbers, LazyArray)
    assert len(lazy) == 5000
    assert lazy.materialise() == tuple(tokens)
    assert lazy.pick([4999, 3, 5000, -1]) == {3: "token3", 4999: "token4999"}
    assert lazy.pick([]) == {}
    assert numbers.materialise() == (7,) * 3000
    assert numbers.pick([2999]) == {2999: 7}


def test_a_lazy_array_of_a_file_cut_since_is_refused(tmp_path: Path) -> None:
    path = a_gguf(tmp_path / "a.gguf", tokens=[f"token{i}" for i in range(5000)])
    lazy = read_header(path).metadata["tokenizer.ggml.tokens"]
    assert isinstance(lazy, LazyArray)
    os.truncate(path, lazy.offset + 100)

    with pytest.raises(NotGguf, match="truncated GGUF"):
        lazy.materialise()


def test_a_truncated_file_is_refused_with_the_tensor_and_both_sizes(tmp_path: Path) -> None:
    path = a_gguf(tmp_path / "a.gguf")
    os.truncate(path, path.stat().st_size - 64)

    with pytest.raises(NotGguf, match=r"truncated GGUF: tensor '.*' ends at byte \d+ but the file"):
        read_header(path)


def test_every_cut_of_the_header_is_refused_as_truncated(tmp_path: Path) -> None:
    whole = a_gguf(tmp_path / "a.gguf").read_bytes()
    path = tmp_path / "cut.gguf"
    for length in range(24, len(whole) - 1, 7):
        path.write_bytes(whole[:length])
        with pytest.raises(NotGguf, match="truncated GGUF"):
            read_header(path)


@pytest.mark.parametrize(
    ("start", "words"),
    [
        (b"", "it starts with b''"),
        (b"hello world", "starts with b'hell'"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"PK\x03\x04rest", "PyTorch checkpoint"),
        (b"tjgg\1\0\0\0", "old GGML file"),
        (b"<!DOCTYPE html>", "a web page"),
        (b"FUGG\0\0\0\3", "big-endian"),
        (b"GGUF\0\0\0\3" + bytes(16), "big-endian"),
        (b"GGUF\1\0\0\0" + bytes(16), "version 1 is too old"),
        (b"GGUF\x63\0\0\0" + bytes(16), "version 99 is not supported"),
    ],
)
def test_what_is_no_gguf_is_named_for_what_it_is(tmp_path: Path, start: bytes, words: str) -> None:
    path = tmp_path / "x"
    path.write_bytes(start)

    with pytest.raises(NotGguf, match=words):
        read_header(path)


def test_a_version_2_file_is_read(tmp_path: Path) -> None:
    path = _file(tmp_path, version=2, keys=(_u32("a.b", 5),))

    assert read_header(path).integer("a.b") == 5


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"n_keys": 1 << 40}, "keys, at most"),
        ({"n_tensors": 1 << 40}, "tensors, at most"),
        ({"keys": (_u32("a", 1), _u32("a", 2))}, "'a' occurs twice"),
        ({"keys": (_text("a") + struct.pack("<I", 13),)}, "unknown value type 13"),
        ({"keys": (_text("a") + struct.pack("<IQ", 8, 1 << 60),)}, "string at byte"),
        ({"keys": (_text("a") + struct.pack("<IIQ", 9, 4, 1 << 60),)}, "elements,"),
        ({"keys": (_text("a") + struct.pack("<IIQ", 9, 8, 1 << 25),)}, "truncated"),
        ({"keys": (_text("a") + struct.pack("<IIQ", 9, 12, 1 << 25),)}, "truncated"),
        ({"keys": (_text("a") + struct.pack("<IIQ", 9, 9, 1),)}, "arrays of arrays"),
        ({"keys": (_text("a") + struct.pack("<IIQ", 9, 99, 5000),)}, "unknown type 99"),
        ({"keys": (_u32("general.alignment", 0),)}, "general.alignment is '0'"),
        ({"keys": (_u32("general.alignment", 1 << 30),)}, "general.alignment"),
        ({"tensors": (_tensor("t", (1,), n=5),)}, "5 dimensions"),
        ({"tensors": (_tensor("t", (1,), kind=31),)}, "type 31, which is not supported"),
        ({"tensors": (_tensor("t", (1 << 63, 1 << 63)),)}, "elements"),
        ({"tensors": (_tensor("t", (33,), kind=2),)}, "no whole blocks of Q4_0"),
        ({"tensors": (_tensor("t", (1,), offset=8),)}, "not aligned"),
        ({"tensors": (_tensor("t", (1 << 40,)),)}, "truncated GGUF: tensor 't' ends at"),
        ({"tensors": (_tensor("t", (1,), offset=1 << 63),)}, "truncated GGUF: tensor 't' ends"),
    ],
)
def test_a_broken_header_is_refused_with_its_place(
    tmp_path: Path, fields: dict[str, Any], words: str
) -> None:
    path = _file(tmp_path, **fields, data=bytes(64))

    with pytest.raises(NotGguf, match=words):
        read_header(path)


def test_a_header_larger_than_the_limit_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = a_gguf(tmp_path / "a.gguf")
    monkeypatch.setattr(ggufheader, "HEADER_BYTES_MAX", 100)

    with pytest.raises(NotGguf, match="the header is larger than 100 bytes"):
        read_header(path)


def test_a_string_over_the_limit_inside_a_long_array_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = a_gguf(tmp_path / "a.gguf", tokens=["short"] * 4999 + ["long" * 10])
    monkeypatch.setattr(ggufheader, "STRING_BYTES_MAX", 39)

    with pytest.raises(NotGguf, match="has 40 bytes, at most 39"):
        read_header(path)


def test_a_missing_file_is_a_storage_error_and_a_pipe_does_not_block(tmp_path: Path) -> None:
    with pytest.raises(StorageFailed, match="cannot open"):
        read_header(tmp_path / "absent")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(NotGguf, match="not a regular file"):
        read_header(tmp_path / "pipe")
    with pytest.raises(NotGguf, match="not a regular file"):
        read_header(tmp_path)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=300), with_magic=st.booleans())
def test_random_bytes_only_ever_raise_not_gguf(
    tmp_path: Path, data: bytes, with_magic: bool
) -> None:
    path = tmp_path / "random"
    path.write_bytes((b"GGUF\3\0\0\0" if with_magic else b"") + data)

    try:
        facts(read_header(path))
    except NotGguf as exc:
        assert exc.message  # noqa: PT017 - any other exception fails the test


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    changes=st.lists(
        st.tuples(st.integers(min_value=8, max_value=1200), st.integers(0, 255)),
        min_size=1,
        max_size=6,
    )
)
def test_a_changed_header_is_read_or_refused_and_nothing_else(
    tmp_path: Path, changes: list[tuple[int, int]]
) -> None:
    original = tmp_path / "original.gguf"
    if not original.exists():
        a_gguf(original)
    data = bytearray(original.read_bytes())
    for place, value in changes:
        data[place % len(data)] = value
    path = tmp_path / "changed.gguf"
    path.write_bytes(data)

    try:
        known = facts(read_header(path))
    except NotGguf as exc:
        assert exc.message  # noqa: PT017 - any other exception fails the test
    else:
        assert known.file_bytes == len(data)
