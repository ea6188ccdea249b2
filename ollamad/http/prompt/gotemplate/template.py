"""`Template`: a parsed template that can be rendered. The front door of the language.

It knows Go's language and Ollama's functions, and nothing of chats: that is `chat`.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping
from typing import Final

from ollamad.http.prompt.gotemplate import functions
from ollamad.http.prompt.gotemplate.evaluate import Budget, execute
from ollamad.http.prompt.gotemplate.nodes import Block, Defined
from ollamad.http.prompt.gotemplate.parser import parse_source
from ollamad.http.prompt.gotemplate.trees import identifiers_of
from ollamad.wallclock import SystemWallClock, WallClock

_SYSTEM_CLOCK: Final = SystemWallClock()


@dataclasses.dataclass(frozen=True, slots=True)
class Template:
    """A template that parsed. Immutable; may be kept and used by many requests."""

    root: Block
    """The main text."""
    defined: Defined
    """The texts of `define` and `block`, by name."""
    identifiers: frozenset[str]
    """The fields that it mentions anywhere, in lower case: which data, and so what it can do."""

    def render(
        self,
        data: Mapping[str, object],
        *,
        clock: WallClock = _SYSTEM_CLOCK,
        budget: Budget | None = None,
    ) -> str:
        """Return the text that the template makes of *data*; *clock* tells `currentDate`.

        Data is plain Python and the classes of `values`. Raises TemplateBroken.
        """
        return execute(self.root, self.defined, data, clock, budget or Budget())


def parse(text: str) -> Template:
    """Return the template that *text* is. Raises TemplateBroken with the line."""
    root, defined = parse_source(text, functions.NAMES)
    blocks = (root, *defined.values())
    names = frozenset(name.lower() for block in blocks for name in identifiers_of(block))
    return Template(root, types.MappingProxyType(defined), names)
