"""Where a model is to be looked for, as its name says: Ollama's suffixes `:local` and `:cloud`.

A model that is stored under the very name that was asked for comes before all of this.
"""

from __future__ import annotations

import enum
from typing import Final

from ollamad.errors import InvalidName

_LOCAL: Final = ":local"
_CLOUD: Final = ":cloud"
_CLOUD_TAG: Final = "-cloud"


class Source(enum.Enum):
    """Where a model is."""

    UNSAID = "unsaid"
    LOCAL = "local"
    CLOUD = "cloud"


def read_source(name: str) -> tuple[str, Source]:
    """Return *name* without the suffix that says where its model is, and what that says.

    Raises InvalidName for one that says both.
    """
    base, source = _split(name)
    if source is not Source.UNSAID and _split(base)[1] not in {source, Source.UNSAID}:
        raise InvalidName(f'use either :local or :cloud, not both: "{name}"')
    return base, source


def _split(name: str) -> tuple[str, Source]:
    low = name.lower()
    if low.endswith(_LOCAL):
        return name[: -len(_LOCAL)], Source.LOCAL
    if low.endswith(_CLOUD):
        return name[: -len(_CLOUD)], Source.CLOUD
    tag = low.rpartition("/")[2].partition(":")[2]
    if tag.endswith(_CLOUD_TAG):
        return name[: -len(_CLOUD_TAG)], Source.CLOUD
    return name, Source.UNSAID
