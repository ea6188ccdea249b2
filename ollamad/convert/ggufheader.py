"""A bounded reader of GGUF headers, for files that nobody vouches for.

Owns the byte format: magic, metadata, tensor table, and the check that every tensor lies inside
the file. What the values *mean* is `gguffacts`. Tensor data is never read.

The header is read into memory piece by piece, not mapped: a mapped file that someone truncates
kills the process with SIGBUS, and no exception handler sees it. Large arrays (vocabularies) are
only walked over, and read again when somebody asks for them (`LazyArray`).
"""

from __future__ import annotations

import dataclasses
import os
import stat
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Final, TypeAlias

from ollamad.convert.gguftypes import TENSOR_TYPES, TensorType
from ollamad.errors import NotGguf, StorageFailed
from ollamad.units import MIB

HEADER_BYTES_MAX: Final = 128 * MIB
"""Bytes before the tensor data. The largest vocabularies take 16 MiB."""
STRING_BYTES_MAX: Final = 16 * MIB
ARRAY_ELEMENTS_MAX: Final = 64 * 1024 * 1024
EAGER_ELEMENTS_MAX: Final = 1024
"""Arrays up to this length are read at once: per-layer values, not vocabularies."""
METADATA_KEYS_MAX: Final = 1 << 16
KEY_BYTES_MAX: Final = 1 << 16
TENSORS_MAX: Final = 1 << 17
DIMENSIONS_MAX: Final = 4
ELEMENTS_MAX: Final = (1 << 63) - 1
ALIGNMENT_DEFAULT: Final = 32
ALIGNMENT_MAX: Final = 1 << 20

_READ_BYTES: Final = 1 * MIB
_VERSIONS: Final = frozenset({2, 3})
_U32: Final = struct.Struct("<I")
_U64: Final = struct.Struct("<Q")
_STRING: Final = 8
_ARRAY: Final = 9
_SCALARS: Final[Mapping[int, struct.Struct]] = {
    0: struct.Struct("<B"),
    1: struct.Struct("<b"),
    2: struct.Struct("<H"),
    3: struct.Struct("<h"),
    4: struct.Struct("<I"),
    5: struct.Struct("<i"),
    6: struct.Struct("<f"),
    7: struct.Struct("<?"),
    10: struct.Struct("<Q"),
    11: struct.Struct("<q"),
    12: struct.Struct("<d"),
}
_LOOKALIKES: Final = (
    (b"version https://git-lfs", "a Git LFS pointer: fetch the real file with `git lfs pull`"),
    (b"lmgg", "an old GGML file: convert it again to GGUF"),
    (b"fmgg", "an old GGML file: convert it again to GGUF"),
    (b"tjgg", "an old GGML file: convert it again to GGUF"),
    (b"algg", "an old GGML adapter: convert it again to GGUF"),
    (b"PK\x03\x04", "a zip archive or PyTorch checkpoint: convert it to GGUF first"),
    (b"<", "a web page or XML: the download went wrong"),
)

Scalar: TypeAlias = int | float | bool | str


@dataclasses.dataclass(frozen=True, slots=True)
class LazyArray:
    """An array left in the file: its type, count and place."""

    path: Path
    element_type: int
    count: int
    offset: int
    n_bytes: int

    def __len__(self) -> int:
        return self.count

    def materialise(self) -> tuple[Scalar, ...]:
        """Return all elements, read from the file now. Raises NotGguf, StorageFailed."""
        with _Reader(self.path, start=self.offset) as reader:
            return reader.elements(self.element_type, self.count)

    def pick(self, indexes: Iterable[int]) -> dict[int, Scalar]:
        """Return the elements at *indexes*; those out of range are left out."""
        wanted = {index for index in indexes if 0 <= index < self.count}
        if not wanted:
            return {}
        with _Reader(self.path, start=self.offset) as reader:
            return reader.picked(self.element_type, wanted)


MetaValue: TypeAlias = Scalar | tuple[Scalar, ...] | LazyArray


@dataclasses.dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor of the table. `offset` counts from the start of the tensor data."""

    name: str
    shape: tuple[int, ...]
    type: TensorType
    offset: int
    n_bytes: int

    @property
    def n_elements(self) -> int:
        """Elements of the tensor."""
        return _product(self.shape)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class GgufHeader:
    """Everything before the tensor data, checked against the file's size."""

    path: Path
    version: int
    metadata: Mapping[str, MetaValue]
    tensors: tuple[TensorInfo, ...]
    alignment: int
    data_offset: int
    file_bytes: int

    def text(self, key: str) -> str:
        """Return the string at *key*, or an empty one if it is not there or is none."""
        value = self.metadata.get(key)
        return value if isinstance(value, str) else ""

    def integer(self, key: str) -> int | None:
        """Return the integer at *key*, or None if it is not there or is none."""
        value = self.metadata.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def flag(self, key: str) -> bool | None:
        """Return the boolean at *key*, or None if it is not there or is none."""
        value = self.metadata.get(key)
        return value if isinstance(value, bool) else None


def read_header(path: Path) -> GgufHeader:
    """Return the header of the GGUF file at *path*.

    Raises NotGguf, saying what is wrong and where, and StorageFailed if it cannot be read.
    """
    with _Reader(path) as reader:
        version = _check_magic(reader)
        n_tensors, n_keys = reader.u64(), reader.u64()
        if n_tensors > TENSORS_MAX:
            raise NotGguf(f"broken GGUF: {n_tensors} tensors, at most {TENSORS_MAX} are read")
        if n_keys > METADATA_KEYS_MAX:
            raise NotGguf(f"broken GGUF: {n_keys} keys, at most {METADATA_KEYS_MAX} are read")
        metadata = _read_metadata(reader, n_keys)
        tensors = tuple(_read_tensor(reader) for _ in range(n_tensors))
        alignment = _alignment(metadata)
        data_offset = -(-reader.position // alignment) * alignment
        _check_extents(tensors, data_offset, reader.file_bytes, alignment)
        return GgufHeader(
            path=path,
            version=version,
            metadata=MappingProxyType(metadata),
            tensors=tensors,
            alignment=alignment,
            data_offset=data_offset,
            file_bytes=reader.file_bytes,
        )


def _check_magic(reader: _Reader) -> int:
    """Return the version, or say what the file is instead."""
    start = reader.peek(24)
    if start[:4] == b"FUGG":
        raise NotGguf("big-endian GGUF is not supported: convert the model again on this machine")
    if start[:4] != b"GGUF":
        for magic, meaning in _LOOKALIKES:
            if start.startswith(magic):
                raise NotGguf(f"not a GGUF file: it is {meaning}")
        raise NotGguf(f"not a GGUF file: it starts with {start[:4]!r}, not b'GGUF'")
    reader.take(4)
    version = reader.u32()
    if version in _VERSIONS:
        return version
    if version == 1:
        raise NotGguf("GGUF version 1 is too old: convert the model again to version 3")
    if int.from_bytes(version.to_bytes(4, "little"), "big") in _VERSIONS:
        raise NotGguf("big-endian GGUF is not supported: convert the model again on this machine")
    raise NotGguf(f"GGUF version {version} is not supported, only 2 and 3 are")


def _read_metadata(reader: _Reader, n_keys: int) -> dict[str, MetaValue]:
    metadata: dict[str, MetaValue] = {}
    for _ in range(n_keys):
        key = reader.string(KEY_BYTES_MAX)
        if key in metadata:
            raise NotGguf(f"broken GGUF: the key {_shown(key)} occurs twice")
        metadata[key] = reader.value(reader.u32())
    return metadata


def _read_tensor(reader: _Reader) -> TensorInfo:
    name = reader.string(KEY_BYTES_MAX)
    n_dimensions = reader.u32()
    if n_dimensions > DIMENSIONS_MAX:
        raise NotGguf(
            f"broken GGUF: tensor {_shown(name)} has {n_dimensions} dimensions,"
            f" at most {DIMENSIONS_MAX} are possible"
        )
    shape = tuple(reader.u64() for _ in range(n_dimensions))
    type_number, offset = reader.u32(), reader.u64()
    tensor_type = TENSOR_TYPES.get(type_number)
    if tensor_type is None:
        raise NotGguf(f"tensor {_shown(name)} has type {type_number}, which is not supported")
    n_elements = _product(shape)
    if n_elements > ELEMENTS_MAX:
        raise NotGguf(f"broken GGUF: tensor {_shown(name)} has {n_elements} elements")
    row = shape[0] if shape else 1
    if row % tensor_type.block_elements:
        raise NotGguf(
            f"broken GGUF: rows of tensor {_shown(name)} have {row} elements, which are no whole"
            f" blocks of {tensor_type.name}"
        )
    n_bytes = n_elements // tensor_type.block_elements * tensor_type.block_bytes
    return TensorInfo(name, shape, tensor_type, offset, n_bytes)


def _alignment(metadata: Mapping[str, MetaValue]) -> int:
    value = metadata.get("general.alignment", ALIGNMENT_DEFAULT)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= ALIGNMENT_MAX:
        raise NotGguf(f"broken GGUF: general.alignment is {_shown(str(value))}")
    return value


def _check_extents(
    tensors: tuple[TensorInfo, ...], data_offset: int, file_bytes: int, alignment: int
) -> None:
    for tensor in tensors:
        if tensor.offset % alignment:
            raise NotGguf(
                f"broken GGUF: tensor {_shown(tensor.name)} lies at {tensor.offset}, which is not"
                f" aligned to {alignment}"
            )
        end = data_offset + tensor.offset + tensor.n_bytes
        if end > file_bytes:
            raise NotGguf(
                f"truncated GGUF: tensor {_shown(tensor.name)} ends at byte {end}"
                f" but the file has {file_bytes}"
            )


def _product(shape: tuple[int, ...]) -> int:
    product = 1
    for size in shape:
        product *= size  # At most four factors of 64 bits: never a large number.
    return product


def _shown(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:80] + "...")


class _Reader:
    """The file from *start* on, read ahead as far as it was asked for, and no further.

    Offsets are those of the file. Every length is checked against the file's size before
    anything is read or allocated for it.
    """

    def __init__(self, path: Path, *, start: int = 0) -> None:
        self._path = path
        self._start = start
        self._buffer = bytearray()
        self._at = 0
        try:
            # Not blocking: opening a pipe that nobody writes to would wait for ever.
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as exc:
            raise StorageFailed(f"cannot open {path}: {exc.strerror}") from exc
        try:
            status = os.fstat(self._fd)
            if not stat.S_ISREG(status.st_mode):
                raise NotGguf(f"not a GGUF file: {path} is not a regular file")
            self.file_bytes = status.st_size
            self._left = self.file_bytes - start
            os.lseek(self._fd, start, os.SEEK_SET)
        except BaseException:
            os.close(self._fd)
            raise

    def __enter__(self) -> _Reader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._fd)

    @property
    def position(self) -> int:
        return self._start + self._at

    def peek(self, n_bytes: int) -> bytes:
        """Return up to *n_bytes* from the front, without going on."""
        self._fill(min(n_bytes, self._left))
        return bytes(self._buffer[self._at : self._at + n_bytes])

    def take(self, n_bytes: int) -> int:
        """Go on by *n_bytes*, which are in the buffer then; return where they start in it."""
        at, end = self._at, self._at + n_bytes
        if end > len(self._buffer):
            self._fill(end)
        self._at = end
        return at

    def _fill(self, end: int) -> None:
        if end > self._left:
            raise NotGguf(
                f"truncated GGUF: the header goes on to byte {self._start + end}"
                f" but the file has {self.file_bytes}"
            )
        if end > HEADER_BYTES_MAX:
            raise NotGguf(f"broken GGUF: the header is larger than {HEADER_BYTES_MAX} bytes")
        while len(self._buffer) < end:
            wanted = max(end - len(self._buffer), _READ_BYTES)
            try:
                piece = os.read(self._fd, min(wanted, HEADER_BYTES_MAX))
            except OSError as exc:
                raise StorageFailed(f"cannot read {self._path}: {exc.strerror}") from exc
            if not piece:
                raise NotGguf(
                    f"truncated GGUF: the file ended at byte {self._start + len(self._buffer)}"
                    " while it was read"
                )
            self._buffer += piece

    def u32(self) -> int:
        at = self.take(4)
        return int(_U32.unpack_from(self._buffer, at)[0])

    def u64(self) -> int:
        at = self.take(8)
        return int(_U64.unpack_from(self._buffer, at)[0])

    def string(self, bytes_max: int | None = None) -> str:
        bytes_max = STRING_BYTES_MAX if bytes_max is None else bytes_max
        place, n_bytes = self.position, self.u64()
        if n_bytes > bytes_max:
            raise NotGguf(
                f"broken GGUF: the string at byte {place} has {n_bytes} bytes, at most"
                f" {bytes_max} are read"
            )
        at = self.take(n_bytes)
        return self._buffer[at : at + n_bytes].decode("utf-8", "replace")

    def value(self, kind: int) -> MetaValue:
        if kind == _ARRAY:
            return self._array()
        return self._scalar(kind)

    def _scalar(self, kind: int) -> Scalar:
        if kind == _STRING:
            return self.string()
        layout = _SCALARS.get(kind)
        if layout is None:
            raise NotGguf(f"broken GGUF: unknown value type {kind} before byte {self.position}")
        at = self.take(layout.size)
        value: Scalar = layout.unpack_from(self._buffer, at)[0]
        return value

    def _array(self) -> tuple[Scalar, ...] | LazyArray:
        kind, count = self.u32(), self.u64()
        if count > ARRAY_ELEMENTS_MAX:
            raise NotGguf(
                f"broken GGUF: the array before byte {self.position} has {count} elements,"
                f" at most {ARRAY_ELEMENTS_MAX} are read"
            )
        if count <= EAGER_ELEMENTS_MAX:
            return self.elements(kind, count)
        start = self.position
        if kind == _STRING:
            self._skip_strings(count)
        else:
            self.take(count * self._layout(kind).size)
        return LazyArray(self._path, kind, count, start, self.position - start)

    def _skip_strings(self, count: int) -> None:
        """Walk over *count* strings. Written flat: vocabularies have 10^5 of them, twice."""
        if count * 8 > self._left - self._at:
            self._fill(self._at + count * 8)  # Even empty strings would not fit: say so at once.
        at, buffer, unpack = self._at, self._buffer, _U64.unpack_from
        filled = len(buffer)
        for _ in range(count):
            if at + 8 > filled:
                self._fill(at + 8)
                filled = len(buffer)
            n_bytes = unpack(buffer, at)[0]
            if n_bytes > STRING_BYTES_MAX:
                self._at = at
                self.string()  # Raises, with the place.
            at += 8 + n_bytes
            if at > filled:
                self._fill(at)
                filled = len(buffer)
        self._at = at

    @staticmethod
    def _layout(kind: int) -> struct.Struct:
        layout = _SCALARS.get(kind)
        if layout is None:
            what = "arrays" if kind == _ARRAY else f"values of unknown type {kind}"
            raise NotGguf(f"broken GGUF: arrays of {what} are not supported")
        return layout

    def elements(self, kind: int, count: int) -> tuple[Scalar, ...]:
        """Return the next *count* elements."""
        if kind == _STRING:
            return tuple(self.string() for _ in range(count))
        layout = self._layout(kind)
        at = self.take(count * layout.size)
        return struct.unpack_from(f"<{count}{layout.format[-1]}", self._buffer, at)

    def picked(self, kind: int, wanted: set[int]) -> dict[int, Scalar]:
        """Return the elements at *wanted* of the array that starts here."""
        found: dict[int, Scalar] = {}
        done = 0
        for index in sorted(wanted):
            if kind == _STRING:
                self._skip_strings(index - done)
            else:
                self.take((index - done) * self._layout(kind).size)
            found[index] = self._scalar(kind)
            done = index + 1
        return found
