"""Which clients are tried, and what each can do.

Clients are imported when they are tried, and not by whoever wants to know of them: some take
seconds.
"""

from __future__ import annotations

import dataclasses
import enum
import importlib
from collections.abc import Mapping
from typing import Final

from tests.compat.place import Place


class Feature(enum.StrEnum):
    """What clients do. Each is a method of a client's class."""

    CHAT = "chat"
    STREAMING = "streaming"
    TOOLS = "tools"
    STRUCTURED_OUTPUT = "structured_output"
    EMBEDDINGS = "embeddings"
    ERRORS = "errors"
    CANCELLATION = "cancellation"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One client, as it is used."""

    package: str
    room: str
    """The module with its class, `Client`."""
    route: str = ""
    """Which of several APIs it speaks; given to its class."""
    lacks: Mapping[Feature, str] = dataclasses.field(default_factory=dict)
    """What the client has no function for, and why."""

    @property
    def name(self) -> str:
        """What it is called in the table."""
        return f"{self.package}:{self.route}" if self.route else self.package

    @property
    def features(self) -> list[Feature]:
        """What it can do."""
        return [feature for feature in Feature if feature not in self.lacks]

    def run(self, feature: Feature, place: Place) -> None:
        """Try *feature*. Raises whatever goes wrong."""
        room = importlib.import_module(f"tests.compat.{self.room}")
        client = room.Client(place, self.route) if self.route else room.Client(place)
        getattr(client, feature.value)()


_NO_EMBEDDINGS: Final = {Feature.EMBEDDINGS: "Anthropic's API has none"}
ROWS: Final = (
    Row(package="ollama", room="ollamaclient"),
    Row(package="openai", room="openaiclient"),
    Row(package="anthropic", room="anthropicclient", lacks=_NO_EMBEDDINGS),
    Row(package="langchain-ollama", room="langchainclient"),
    Row(package="litellm", room="litellmclient", route="ollama_chat"),
    Row(package="litellm", room="litellmclient", route="openai"),
    Row(package="litellm", room="litellmclient", route="anthropic", lacks=_NO_EMBEDDINGS),
)
