"""The whole HTTP application on fakes, in virtual time: what goes over the wire, byte for byte."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import trio
import trio.testing

from ollamad.config import HttpConfig, SchedulingConfig
from ollamad.http.doors import Doors
from ollamad.http.routes import build_app
from ollamad.http.scope import AsgiApp, Message
from ollamad.names import ModelName
from ollamad.registry.catalog import Catalog
from ollamad.registry.create import CreateSpec
from ollamad.registry.store import Store
from tests.builders import a_gguf_blob, created
from tests.fakes.launcher import Script
from tests.scenario.house import House, a_house

NOW = datetime(2026, 8, 21, 10, 0, 0, 123000, tzinfo=UTC)
CHAT_TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }} {% endfor %}"


class FixedClock:
    """Calendar time stands still."""

    def now(self) -> datetime:
        return NOW


@dataclasses.dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.body.splitlines()]


@dataclasses.dataclass
class Site:
    """The application and what it stands on."""

    app: AsgiApp
    house: House
    store: Store

    async def ask(self, method: str, path: str, body: object = None, **headers: str) -> Answer:
        """Send one request and return its answer."""
        data = (
            body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        )
        given = {"host": "localhost", "content-length": str(len(data)), **headers}
        scope: dict[str, Any] = {
            "type": "http",
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 11434),
            "headers": [(k.encode(), v.encode()) for k, v in given.items()],
            "extensions": {},
        }
        sent: list[Message] = []
        unread = [data]

        async def receive() -> Message:
            if unread:
                await trio.lowlevel.checkpoint()
                return {"type": "http.request", "body": unread.pop(), "more_body": False}
            await trio.sleep_forever()
            raise AssertionError

        async def send(message: Message) -> None:
            await trio.lowlevel.checkpoint()
            sent.append(message)

        await self.app(scope, receive, send)
        raw_headers = sent[0]["headers"]
        return Answer(
            sent[0]["status"],
            {name.decode().lower(): value.decode() for name, value in raw_headers},
            b"".join(message.get("body", b"") for message in sent[1:]),
        )


@contextlib.asynccontextmanager
async def a_site(
    folder: Path,
    *scripts: Script,
    scheduling: SchedulingConfig | None = None,
    http: HttpConfig | None = None,
    chat_template: str = CHAT_TEMPLATE,
    **gguf: Any,
) -> AsyncIterator[Site]:
    """Serve the application with one stored model, `tiny:latest`, its file with *gguf*'s fields."""
    store = Store(folder / "models")
    digest = a_gguf_blob(store, folder, chat_template=chat_template, **gguf)
    spec = CreateSpec(name=ModelName.parse("tiny"), files={"tiny.gguf": str(digest)})
    created(store, spec)
    # Words take no time that a duration on the wire would show.
    async with a_house(*(scripts or (Script(),)), scheduling=scheduling) as house:
        doors = Doors(
            supervisor=house.supervisor,
            catalog=Catalog(store),
            store=store,
            config=http or HttpConfig(),
            clock=FixedClock(),
        )
        app = build_app(doors, is_loopback=True)
        yield Site(app, house, store)
