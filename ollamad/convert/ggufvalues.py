"""Numbers of a GGUF header as the engine's loader reads them: one, or one for each layer."""

from __future__ import annotations

from typing import Final

from ollamad.convert.ggufheader import GgufHeader, LazyArray
from ollamad.errors import NotGguf

DIMENSION_MAX: Final = 1 << 31
"""Largest length, width or head count we believe."""


def dimension(header: GgufHeader, key: str) -> int:
    """Return the length, width or count at *key*, 0 when unsaid. Raises NotGguf."""
    value = header.integer(key)
    if value is None:
        return 0
    if not 0 <= value <= DIMENSION_MAX:
        raise NotGguf(f"broken GGUF: {key[:80]} is {value}")
    return value


def per_layer(header: GgufHeader, key: str, n_layer: int) -> list[int] | None:
    """Return a number for each layer from a scalar or an array; `None` if there is neither.

    Truth values are 1 and 0. Raises NotGguf for an array that is too short.
    """
    value = header.metadata.get(key)
    if isinstance(value, LazyArray):
        raise NotGguf(f"broken GGUF: {key[:80]} has {value.count} values for {n_layer} layers")
    if isinstance(value, tuple):
        numbers = [int(item) for item in value if isinstance(item, int)]
        if len(numbers) < n_layer:
            raise NotGguf(f"broken GGUF: {key[:80]} has {len(numbers)} values for {n_layer} layers")
        return [min(max(number, 0), DIMENSION_MAX) for number in numbers[:n_layer]]
    return None if key not in header.metadata else [dimension(header, key)] * n_layer
