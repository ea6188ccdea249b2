"""What Ollama does with ollama.com: accounts, its cloud, searching the web.

Nothing of it is here: no request leaves this machine. The routes are, because clients ask them
(some at every start), and know what to make of these answers.
"""

from __future__ import annotations

from typing import Final, NoReturn

from quart import Quart, Response, request

from ollamad.errors import CloudDisabled, InvalidBody, SignedOut
from ollamad.http.doors import CLOUD_IS_OFF, Doors, json_answer
from ollamad.http.ollama.wire import (
    CloudStatus,
    RecommendationsResponse,
    StatusResponse,
)

_SIGNED_OUT: Final = "you are not currently signed in"


def register(app: Quart, _doors: Doors) -> None:
    """Add the routes."""

    @app.get("/api/status")
    async def status() -> Response:
        return json_answer(StatusResponse(CloudStatus(disabled=True, source="config")))

    @app.post("/api/me")
    async def me() -> NoReturn:
        raise SignedOut("unauthorized")

    @app.post("/api/signout")
    async def signout() -> NoReturn:
        raise SignedOut(_SIGNED_OUT)

    @app.delete("/api/user/keys/<key>")
    async def delete_key(key: str) -> NoReturn:
        raise SignedOut(_SIGNED_OUT)

    @app.post("/api/experimental/web_search")
    async def web_search() -> NoReturn:
        await _refuse("web search")

    @app.post("/api/experimental/web_fetch")
    async def web_fetch() -> NoReturn:
        await _refuse("web fetch")

    @app.get("/api/experimental/model-recommendations")
    async def recommendations() -> Response:
        return json_answer(RecommendationsResponse([]))


async def _refuse(service: str) -> NoReturn:
    if not await request.get_data(cache=False):
        raise InvalidBody("missing request body")
    raise CloudDisabled(f"{CLOUD_IS_OFF} {service} is unavailable")
