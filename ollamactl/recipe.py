"""From a Modelfile to a create request: which files it means, their digests, their upload.

Decides what FROM names: a path that exists is a file, everything else is a model's name. Files
are opened once, hashed and then sent from the same descriptor, so that what was hashed is what
is sent even if the name is given to another file meanwhile.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Final

from ollamactl.errors import CtlError, ModelfileError
from ollamactl.http import Client, open_chunks
from ollamactl.modelfile import MODELFILE_BYTES_MAX, Modelfile, decode, parse
from ollamactl.progress import Report
from ollamactl.wire import JsonObject
from ollamad.errors import InvalidName
from ollamad.names import ModelName

FILES_MAX: Final = 1000
"""Local files of one model; shards of the largest models are some hundred."""


def read_modelfile(path: Path, stdin: IO[bytes]) -> Modelfile:
    """Return the Modelfile at *path*, or the one on *stdin* if the path is `-`.

    Raises ModelfileError.
    """
    try:
        if str(path) == "-":
            return parse(decode(stdin.read(MODELFILE_BYTES_MAX + 1)))
        with path.open("rb") as file:
            return parse(decode(file.read(MODELFILE_BYTES_MAX + 1)))
    except FileNotFoundError as error:
        raise ModelfileError(f"no Modelfile at {path}, name one with -f") from error
    except OSError as error:
        raise ModelfileError(f"cannot read {path}: {error.strerror}") from error


def build_request(modelfile: Modelfile, folder: Path, client: Client, report: Report) -> JsonObject:
    """Upload the files that *modelfile* names and return the fields of its create request.

    Relative paths start at *folder*.
    """
    local = [path for path in (_local(text, folder) for text in modelfile.froms) if path]
    drafts = [_must_exist("DRAFT", text, folder) for text in modelfile.drafts]
    adapters = [_must_exist("ADAPTER", text, folder) for text in modelfile.adapters[-1:]]
    for path in drafts:
        if path in local:
            raise ModelfileError(f"DRAFT must not reference the same local path as FROM: {path}")
    if len(local) + len(drafts) + len(adapters) > FILES_MAX:
        raise ModelfileError(f"the Modelfile names more than {FILES_MAX} files")
    names = [text for text in modelfile.froms if _local(text, folder) is None]
    for name in names:
        _check_name(name)

    request: JsonObject = {}
    if names:
        request["from"] = names[-1]
    for field, paths in (("files", local), ("draft_files", drafts), ("adapters", adapters)):
        if paths:
            request[field] = _upload_all(paths, client, report)
    for field, value in (
        ("template", modelfile.template),
        ("system", modelfile.system),
        ("renderer", modelfile.renderer),
        ("parser", modelfile.parser),
        ("requires", modelfile.requires),
        ("license", list(modelfile.licenses)),
        ("parameters", modelfile.parameters),
        ("messages", [{"role": role, "content": text} for role, text in modelfile.messages]),
    ):
        if value:
            request[field] = value
    return request


def _local(text: str, folder: Path) -> Path | None:
    """Return the path that *text* names, or None if there is nothing at it."""
    try:
        path = folder / Path(text).expanduser()
        path.lstat()
    except (OSError, ValueError, RuntimeError):
        # RuntimeError: `~user` of no known user. All mean: this is no path here.
        return None
    return Path(os.path.normpath(path.absolute()))


def _must_exist(instruction: str, text: str, folder: Path) -> Path:
    path = _local(text, folder)
    if path is None:
        raise ModelfileError(f"{instruction}: no file {text}")
    return path


def _check_name(name: str) -> None:
    try:
        ModelName.parse(name)
    except InvalidName as error:
        raise ModelfileError(
            f"FROM {name}: there is no such file, and it is no valid model name"
        ) from error


def _upload_all(paths: Sequence[Path], client: Client, report: Report) -> dict[str, str]:
    """Upload *paths* and return their digests by the names that the request gives them."""
    digests: dict[str, str] = {}
    base = Path(os.path.commonpath([path.parent for path in paths]))
    for path in paths:
        with _opened(path) as (file, size_bytes):
            digest = _digest(file, size_bytes, report)
            if not client.has_blob(digest):
                _upload(client, digest, file, size_bytes, report)
        digests[path.relative_to(base).as_posix()] = digest
    return digests


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tuple[IO[bytes], int]]:
    """Open a model's file. Raises CtlError for what cannot be one."""
    try:
        # Asked before opening: opening a named pipe would wait for its other end.
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise CtlError(
                f"{path} is a directory: creating models from directories is not supported yet, "
                "name a GGUF file (a stored model of the same name needs its tag: name:latest)"
            )
        if not stat.S_ISREG(mode):
            raise CtlError(f"{path} is not a regular file")
        if path.suffix.lower() == ".safetensors":
            raise CtlError(
                f"{path}: creating models from safetensors is not supported yet, "
                "convert it to GGUF first"
            )
        file = path.open("rb")
    except OSError as error:
        raise CtlError(f"cannot read {path}: {error.strerror}") from error
    with file:
        yield file, os.fstat(file.fileno()).st_size


def _digest(file: IO[bytes], size_bytes: int, report: Report) -> str:
    title = f"hashing {Path(file.name).name}"
    digest = hashlib.sha256()
    for chunk in _counted(file, size_bytes, report, title):
        digest.update(chunk)
    return f"sha256:{digest.hexdigest()}"


def _upload(client: Client, digest: str, file: IO[bytes], size_bytes: int, report: Report) -> None:
    title = f"copying file {digest[:19]}"
    client.upload(digest, _counted(file, size_bytes, report, title), size_bytes=size_bytes)


def _counted(file: IO[bytes], size_bytes: int, report: Report, title: str) -> Iterator[bytes]:
    """Yield the file's content, with a bar."""
    done = 0
    try:
        for chunk in open_chunks(file, size_bytes):
            yield chunk
            done += len(chunk)
            report.bar(f"{title} {file.name}", title, completed=done, total=size_bytes)
    except OSError as error:
        raise CtlError(f"cannot read {file.name}: {error.strerror}") from error
