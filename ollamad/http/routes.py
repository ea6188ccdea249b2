"""The whole HTTP application: routes, what happens to errors, and the wrappers around both."""

from __future__ import annotations

import logging
from typing import Final
from urllib.parse import quote

from quart import Response, redirect, request
from quart_trio import QuartTrio
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound

from ollamad.errors import BodyTooLarge, OllamadError
from ollamad.http import errors
from ollamad.http.anthropic import messages
from ollamad.http.anthropic import models as anthropic_models
from ollamad.http.dialects import error_answer, error_body
from ollamad.http.doors import JSON_TYPE, LIMITS_KEY, Doors
from ollamad.http.linger import Linger
from ollamad.http.ollama import blobs, chat, cloud, create, embed, generate, models, rerank
from ollamad.http.openai import chat as openai_chat
from ollamad.http.openai import completions, embeddings, responses
from ollamad.http.openai import models as openai_models
from ollamad.http.openai import rerank as openai_rerank
from ollamad.http.openai.errors import unknown_route
from ollamad.http.openapi import door as openapi
from ollamad.http.origins import Origins
from ollamad.http.scope import AsgiApp, BodyLimit, RequestScope
from ollamad.units import KIB, MIB, format_bytes

SMALL_BODY_BYTES: Final = 64 * KIB
"""What a body that only names models may have."""
BODY_BYTES_MAX: Final = {
    "/api/show": SMALL_BODY_BYTES,
    "/api/copy": SMALL_BODY_BYTES,
    "/api/delete": SMALL_BODY_BYTES,
    "/api/create": 16 * MIB,  # Templates, licences and messages are in it.
}
"""Bodies by path, in bytes. Other paths take what the configuration says."""

OPENAI: Final = (openai_chat, completions, embeddings, openai_models, openai_rerank, responses)
ANTHROPIC: Final = (messages, anthropic_models)

BODY_PATIENCE_S: Final = 60
"""How long a body may take to arrive, for the routes that read it whole."""

_log = logging.getLogger(__name__)


def build_app(doors: Doors, *, is_loopback: bool) -> AsgiApp:
    """Return the application with all its wrappers."""
    app = QuartTrio("ollamad", static_folder=None)
    app.config.update(
        MAX_CONTENT_LENGTH=None,  # BodyLimit keeps the limit, by path.
        BODY_TIMEOUT=BODY_PATIENCE_S,
        RESPONSE_TIMEOUT=None,
        PROPAGATE_EXCEPTIONS=False,
        **{LIMITS_KEY: doors.config},
    )
    ollama = (models, generate, chat, embed, rerank, create, cloud)
    for room in (*ollama, *OPENAI, *ANTHROPIC, openapi):
        room.register(app, doors)
    _register_errors(app)
    inner: AsgiApp = RequestScope(app)  # type: ignore[arg-type] # Quart types messages one by one
    limited = BodyLimit(
        inner,
        limits=BODY_BYTES_MAX,
        unlimited_prefix=blobs.PREFIX,
        default_bytes=doors.config.body_bytes_max,
        refusal=_too_large,
    )
    origins = Origins(
        blobs.BlobDoor(limited, doors), extra=doors.config.origins, is_loopback=is_loopback
    )
    return Linger(origins)


def _too_large(path: str, limit_bytes: int) -> bytes:
    error = BodyTooLarge(f"the body is too large: {path} takes at most {format_bytes(limit_bytes)}")
    return error_body(path, 413, error.message, error)


def _is_route(app: QuartTrio, path: str) -> bool:
    """Return whether there is such a route, with whatever method."""
    try:
        app.url_map.bind("").match(path)
    except MethodNotAllowed:
        return True
    except HTTPException:
        return False
    return True


def _register_errors(app: QuartTrio) -> None:
    @app.errorhandler(OllamadError)
    async def ollamad_error(exc: OllamadError) -> Response:
        return error_answer(request.path, exc)

    @app.errorhandler(NotFound)
    async def not_found(_exc: NotFound) -> Response:
        there = request.path.removesuffix("/")
        if there != request.path and _is_route(app, there):
            code = 301 if request.method == "GET" else 307
            query = request.query_string.decode("ascii", "replace")
            location = f"{quote(there)}?{query}" if query else quote(there)
            return redirect(location, code)  # type: ignore[return-value]
        if request.path.startswith("/v1/"):
            told = unknown_route(request.method, request.path)
            return Response(error_body(request.path, 404, told), 404, content_type=JSON_TYPE)
        return Response("404 page not found", 404, content_type="text/plain")

    @app.errorhandler(MethodNotAllowed)
    async def method_not_allowed(exc: MethodNotAllowed) -> Response:
        allowed = ", ".join(sorted(exc.valid_methods or ()))
        return Response(
            "405 method not allowed", 405, {"Allow": allowed}, content_type="text/plain"
        )

    @app.errorhandler(HTTPException)
    async def http_exception(exc: HTTPException) -> Response:
        text, status = (exc.description or exc.name).rstrip("."), exc.code or 500
        body = error_body(request.path, status, text)
        return Response(body, status, content_type=JSON_TYPE)

    @app.errorhandler(Exception)
    async def unexpected(exc: Exception) -> Response:
        only = errors.only_error(exc)
        if isinstance(only, OllamadError):
            return error_answer(request.path, only)
        _log.error("a bug: %s %s failed", request.method, request.path, exc_info=exc)
        return Response(
            error_body(request.path, 500, "internal error; the daemon's log says more"),
            500,
            content_type=JSON_TYPE,
        )
