"""The sizes of llama.cpp's buffers, read from its log: it has no other way to tell them.

The totals of the context and the sizes for computing are the same in a dry run as in a real load.
The lines for each buffer of the weights and the context are not read: a dry run has zeros there.
"""

from __future__ import annotations

import re
from typing import Final

from ollamad.buffersizes import BufferSizes
from ollamad.units import MIB

_CONTEXT: Final = re.compile(rb": size = +([0-9.]+) MiB \(")
_OUTPUT: Final = re.compile(rb" output buffer size = +([0-9.]+) MiB")
_COMPUTE: Final = re.compile(rb"([A-Za-z0-9_]+) compute buffer size = +([0-9.]+) MiB")
_HOST_BUFFERS: Final = ("CPU", "_Host")
"""How the names of buffers in main memory begin or end; all others are on devices."""
BUFFERS_MAX: Final = 64
"""Compute buffers that are remembered: there is one for each device."""


class BufferLog:
    """Takes log lines and knows what they said of one model."""

    def __init__(self) -> None:
        self._context_mib = 0.0
        self._output_mib = 0.0
        self._compute_mib: dict[str, float] = {}

    def clear(self) -> None:
        """Forget everything: another model comes."""
        self._context_mib = self._output_mib = 0.0
        self._compute_mib.clear()

    def take(self, line: bytes) -> None:
        """Read *line* if it says a size."""
        if b" MiB" not in line:
            return
        if found := _COMPUTE.search(line):
            name = found[1].decode()
            if name in self._compute_mib or len(self._compute_mib) < BUFFERS_MAX:
                # It may be reserved more than once; what is kept is the largest.
                self._compute_mib[name] = max(self._compute_mib.get(name, 0.0), float(found[2]))
        elif found := _OUTPUT.search(line):
            self._output_mib = max(self._output_mib, float(found[1]))
        elif found := _CONTEXT.search(line):
            self._context_mib += float(found[1])

    def sizes(self) -> BufferSizes | None:
        """Return what was said; `None` if nothing was."""
        if not self._compute_mib:
            return None
        on_host = [mib for name, mib in self._compute_mib.items() if _is_on_host(name)]
        on_devices = [mib for name, mib in self._compute_mib.items() if not _is_on_host(name)]
        return BufferSizes(
            context_bytes=int(self._context_mib * MIB),
            compute_bytes=int(sum(on_host) * MIB),
            device_compute_bytes=int(max(on_devices, default=0.0) * MIB),
            output_bytes=int(self._output_mib * MIB),
        )


def _is_on_host(name: str) -> bool:
    begin, end = _HOST_BUFFERS
    return name.startswith(begin) or name.endswith(end)
