"""The HTTP door from the client's side: requests, streams, and failures as messages.

The only importer of httpx. Knows nothing of commands or of what the answers mean.

Generations have no read timeout: a model may take minutes to load and to answer, and Ctrl-C ends
them at any moment. Connecting, and answers that need no model, are bounded.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator
from types import TracebackType
from typing import IO, Final, Self

import httpx

from ollamactl.errors import ApiError, BadAnswer, CannotConnect, ConnectionLost, CtlError
from ollamactl.host import HostUrl
from ollamactl.wire import JsonObject, parse_object, to_body
from ollamad import __version__

CONNECT_TIMEOUT_S: Final = 5.0
READ_TIMEOUT_S: Final = 60.0
"""For answers that need no model: list, ps, show, copy, delete."""
UPLOAD_TIMEOUT_S: Final = 600.0
"""For the answer after an upload: the daemon hashes and syncs the file first."""
WRITE_TIMEOUT_S: Final = 60.0

BODY_BYTES_MAX: Final = 256 << 20
"""A whole answer; `show` with all tensors and the vocabulary is tens of megabytes."""
ERROR_BYTES_MAX: Final = 64 << 10
LINE_BYTES_MAX: Final = 8_000_000
"""One line of a stream; Ollama's own client draws the line here too."""
UPLOAD_CHUNK_BYTES: Final = 1 << 20


class Client:
    """Talks to one daemon. Use as a context manager."""

    def __init__(self, address: HostUrl) -> None:
        self.address = address
        try:
            self._http = httpx.Client(
                base_url=address.text,
                headers={
                    "User-Agent": f"ollamactl/{__version__}",
                    # Compression would only cost time here, and hide a body's true size.
                    "Accept-Encoding": "identity",
                },
                timeout=_timeout(READ_TIMEOUT_S),
                # A proxy from the environment would send the prompt to a stranger, or fail.
                trust_env=not address.is_loopback,
            )
        except (httpx.InvalidURL, ValueError) as error:
            raise CtlError(f"OLLAMA_HOST or a proxy variable is wrong: {error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._http.close()

    def probe(self) -> None:
        """Return if something answers at the address. Raises CannotConnect."""
        with self._send("HEAD", "/", timeout_s=READ_TIMEOUT_S):
            return

    def get(self, path: str) -> JsonObject:
        """Return the JSON object at *path*."""
        with self._send("GET", path, timeout_s=READ_TIMEOUT_S) as response:
            return parse_object(_body(response))

    def ask(
        self, method: str, path: str, body: JsonObject, *, read_timeout_s: float | None
    ) -> JsonObject:
        """Send *body* and return the answer; an empty answer is an empty object."""
        with self._send(method, path, body=body, timeout_s=read_timeout_s) as response:
            content = _body(response)
            return parse_object(content) if content.strip() else {}

    def stream(
        self, path: str, body: JsonObject, *, read_timeout_s: float | None = None
    ) -> Generator[JsonObject]:
        """Yield each object of a stream as it arrives.

        Raises ApiError for an error in the stream too. Closing the iterator hangs up.
        """
        with (
            self._send(
                "POST", path, body=body, timeout_s=read_timeout_s, accept="application/x-ndjson"
            ) as response,
            self._translated(),
        ):
            for line in _lines(response):
                yield _stream_object(line)

    def has_blob(self, digest: str) -> bool:
        """Return whether the daemon stores the blob *digest* already."""
        try:
            with self._send("HEAD", f"/api/blobs/{digest}", timeout_s=READ_TIMEOUT_S):
                return True
        except ApiError as error:
            if error.status == httpx.codes.NOT_FOUND:
                return False
            raise

    def upload(self, digest: str, chunks: Iterator[bytes], *, size_bytes: int) -> None:
        """Send a blob, whose content *chunks* yields."""
        with self._send(
            "POST",
            f"/api/blobs/{digest}",
            chunks=chunks,
            size_bytes=size_bytes,
            timeout_s=UPLOAD_TIMEOUT_S,
        ):
            return

    @contextlib.contextmanager
    def _send(
        self,
        method: str,
        path: str,
        *,
        timeout_s: float | None,
        body: JsonObject | None = None,
        chunks: Iterator[bytes] | None = None,
        size_bytes: int = 0,
        accept: str = "application/json",
    ) -> Iterator[httpx.Response]:
        """Open a response, refused ones already raised as ApiError."""
        headers = {"Accept": accept}
        content: bytes | Iterator[bytes] | None = chunks
        if chunks is not None:
            # Without it httpx would send chunks, and the daemon could not see a short upload.
            headers["Content-Length"] = str(size_bytes)
            headers["Content-Type"] = "application/octet-stream"
        elif body is not None:
            content = to_body(body)
            headers["Content-Type"] = "application/json"
        # The command's own failures inside the block are no failures of HTTP.
        with contextlib.ExitStack() as stack:
            with self._translated():
                response = stack.enter_context(
                    self._http.stream(
                        method, path, headers=headers, content=content, timeout=_timeout(timeout_s)
                    )
                )
                if not response.is_success:
                    raise _refusal(response)
            yield response

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        where = self.address.text
        try:
            yield
        except httpx.ConnectTimeout as error:
            raise CannotConnect(
                f"{where} did not answer within {CONNECT_TIMEOUT_S:.0f} s, check OLLAMA_HOST"
            ) from error
        except httpx.ConnectError as error:
            if _was_refused(error):
                raise CannotConnect(
                    f"could not connect to ollamad at {where}, "
                    "run 'ollamad serve' (or 'ollamactl serve') to start it"
                ) from error
            raise CannotConnect(
                f"could not connect to ollamad at {where}: {error}; check OLLAMA_HOST"
            ) from error
        except httpx.TimeoutException as error:
            raise ConnectionLost(
                f"ollamad at {where} accepted the request but sends no answer; see its log"
            ) from error
        except (httpx.HTTPError, httpx.StreamError) as error:
            raise ConnectionLost(
                f"the connection to ollamad at {where} was lost ({error}); see its log"
            ) from error
        except (httpx.InvalidURL, UnicodeError) as error:
            raise CannotConnect(f"{where} is no usable address: {error}") from error


def _timeout(read_s: float | None) -> httpx.Timeout:
    return httpx.Timeout(
        connect=CONNECT_TIMEOUT_S, read=read_s, write=WRITE_TIMEOUT_S, pool=CONNECT_TIMEOUT_S
    )


def _was_refused(error: BaseException | None) -> bool:
    seen = 0
    while error is not None and seen < 10:
        if isinstance(error, ConnectionRefusedError):
            return True
        error, seen = error.__cause__ or error.__context__, seen + 1
    return False


def _body(response: httpx.Response) -> bytes:
    body = bytearray()
    try:
        for chunk in response.iter_bytes():
            body += chunk
            if len(body) > BODY_BYTES_MAX:
                raise BadAnswer(f"the answer is longer than {BODY_BYTES_MAX >> 20} MiB")
    except httpx.HTTPError as error:
        raise ConnectionLost(f"the connection was lost inside an answer: {error}") from error
    return bytes(body)


def _lines(response: httpx.Response) -> Iterator[bytes]:
    """Yield the non-empty lines of a body, each of bounded length."""
    rest = bytearray()
    for chunk in response.iter_bytes():
        searched = len(rest)
        rest += chunk
        start = 0
        while (end := rest.find(b"\n", max(start, searched))) >= 0:
            if line := bytes(rest[start:end]).strip():
                yield line
            start = end + 1
        del rest[:start]
        if len(rest) > LINE_BYTES_MAX:
            raise BadAnswer(f"a line of the answer is longer than {LINE_BYTES_MAX} bytes")
    if line := bytes(rest).strip():
        yield line


def _stream_object(line: bytes) -> JsonObject:
    try:
        piece = parse_object(line)
    except BadAnswer as error:
        # What is no JSON is usually a proxy's or a crashing server's plain text: show it.
        raise ApiError(line[:1000].decode("utf-8", errors="replace")) from error
    if error_text := piece.get("error"):
        raise ApiError(str(error_text))
    return piece


def _refusal(response: httpx.Response) -> ApiError:
    """Return the error that a response without success stands for."""
    body = bytearray()
    for chunk in response.iter_bytes():
        body += chunk[: ERROR_BYTES_MAX - len(body)]
        if len(body) >= ERROR_BYTES_MAX:
            break
    reason = response.reason_phrase or "error"
    try:
        said = parse_object(bytes(body)).get("error")
    except BadAnswer:
        said = bytes(body[:1000]).decode("utf-8", errors="replace").strip()
    message = str(said or f"{response.status_code} {reason}")
    return ApiError(message, status=response.status_code, reason=reason)


def open_chunks(file: IO[bytes], size_bytes: int) -> Iterator[bytes]:
    """Yield exactly *size_bytes* of *file* from its start.

    Raises CtlError if the file has become shorter since it was measured.
    """
    file.seek(0)
    left = size_bytes
    while left:
        chunk = file.read(min(UPLOAD_CHUNK_BYTES, left))
        if not chunk:
            raise CtlError(f"{file.name} became shorter while it was read, try again")
        left -= len(chunk)
        yield chunk
