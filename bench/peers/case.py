"""What a case is: a name, what it measures, and the function that measures it on one server."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Mapping

from bench.peers.figures import Figure
from bench.peers.prompts import Prompts
from bench.peers.servers import Server

Measure = Callable[[Server, Prompts], Mapping[str, float]]
"""Returns a value for each figure; a figure that this server cannot have is left out."""


class Needs(enum.Enum):
    """What the model of a case must be able to do."""

    TEXT = "text"
    EMBEDDING = "embedding"


@dataclasses.dataclass(frozen=True, slots=True)
class Case:
    """One thing that is compared."""

    name: str
    title: str
    figures: tuple[Figure, ...]
    measure: Measure
    needs: Needs = Needs.TEXT
    is_fresh: bool = True
    """Whether both servers load the model anew first."""
