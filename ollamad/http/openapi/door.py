"""GET /openapi.json: the document about all routes.

Made of the types when somebody asks for the first time, within a few milliseconds, and kept: a
file that is packaged could differ from what is served.
"""

from __future__ import annotations

import functools

import msgspec
from quart import Quart, Response

from ollamad.http.doors import JSON_TYPE, Doors
from ollamad.http.openapi.document import document
from ollamad.http.openapi.table import APIS

PATH = "/openapi.json"


def register(app: Quart, _doors: Doors) -> None:
    """Add the route."""

    @app.get(PATH)
    async def openapi() -> Response:
        return Response(_encoded(), content_type=JSON_TYPE)


@functools.cache
def _encoded() -> bytes:
    return msgspec.json.encode(document(APIS))
