"""HEAD and POST /api/blobs/:digest: uploads, streamed straight to disk.

An ASGI application of its own, because a body of tens of gigabytes must press back on its sender:
Quart reads a body ahead of its handler without bound.
"""

from __future__ import annotations

from collections.abc import Mapping

from ollamad.errors import BlobNotFound, InvalidBody, OllamadError, StorageFailed
from ollamad.http.doors import JSON_TYPE, Doors
from ollamad.http.errors import body_of, headers_of, status_of
from ollamad.http.scope import AsgiApp, Receive, Scope, Send
from ollamad.registry.digests import Digest

PREFIX = "/api/blobs/"
_METHODS = ("HEAD", "POST")
WRITE_BYTES_MIN = 1 << 20
"""Received pieces are gathered to this size before a thread writes them."""


class BlobDoor:
    """Answers the blob routes; passes everything else on."""

    def __init__(self, app: AsgiApp, doors: Doors) -> None:
        self._app = app
        self._doors = doors

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http" or not _is_blob(scope["path"]):
            await self._app(scope, receive, send)
            return
        if scope["method"] not in _METHODS:
            await _answer(
                send,
                405,
                b"405 method not allowed",
                {"content-type": "text/plain", "allow": ", ".join(_METHODS)},
            )
            return
        try:
            digest = Digest.parse(scope["path"].removeprefix(PREFIX))
            if scope["method"] == "HEAD":
                status, body = await self._head(digest), b""
            else:
                status, body = await self._post(digest, receive), b""
            headers: dict[str, str] = {}
        except OllamadError as exc:
            status, body, headers = status_of(exc), body_of(exc.message), headers_of(exc)
            headers["content-type"] = JSON_TYPE
            if scope["method"] == "HEAD":
                body = b""
        await _answer(send, status, body, headers)

    async def _head(self, digest: Digest) -> int:
        store, on_files = self._doors.store, self._doors.on_files
        if not await on_files(lambda: store.has_blob(digest)):
            raise BlobNotFound(f'blob "{digest}" not found')
        # Whoever asks will not upload it: a deletion meanwhile must leave it for their creation.
        await on_files(lambda: store.touch_blob(digest))
        return 200

    async def _post(self, digest: Digest, receive: Receive) -> int:
        store, on_files = self._doors.store, self._doors.on_files
        if await on_files(lambda: store.has_blob(digest)):
            await on_files(lambda: store.touch_blob(digest))
            await _discard(receive)
            return 200
        writer = await on_files(lambda: store.open_blob_writer(digest))
        try:
            gathered = bytearray()
            more = True
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise InvalidBody("the upload ended early")
                gathered += message.get("body", b"")
                more = message.get("more_body", False)
                if len(gathered) >= WRITE_BYTES_MIN or (gathered and not more):
                    piece, gathered = bytes(gathered), bytearray()
                    await on_files(lambda piece=piece: writer.write(piece))  # type: ignore[misc]
            await on_files(writer.commit)
        except OSError as exc:
            raise StorageFailed(f"the blob cannot be stored: {exc}") from exc
        finally:
            writer.abort()
        return 201


def _is_blob(path: str) -> bool:
    digest = path.removeprefix(PREFIX)
    return digest not in {"", path} and "/" not in digest


async def _answer(send: Send, status: int, body: bytes, headers: Mapping[str, str]) -> None:
    raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    raw.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body})


async def _discard(receive: Receive) -> None:
    """Read an upload to its end without keeping it.

    Answering at once would save the transfer, but most clients only look for an answer when they
    have sent everything, and take a connection that closes meanwhile for a failure.
    """
    while True:
        message = await receive()
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            return
