"""Which GPUs the owner of the machine lets the daemon use. Pure.

Written as for CUDA and Ollama: UUIDs or their beginnings, or numbers as `nvidia-smi` shows them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ollamad.gpu.devices import DeviceFacts

NONE: Final = frozenset({"-1", "none"})
"""What stands for no GPU at all. CUDA ignores what comes after it."""


def only_visible(text: str) -> Callable[[DeviceFacts], bool]:
    """Return what tells whether a GPU is one of those in *text*; an empty one means all.

    A name that fits no GPU shows none: hiding too much is noticed, using what is not ours is not.
    """
    names: list[str] = []
    for part in text.split(","):
        name = part.strip().lower()
        if name in NONE:
            break
        if name:
            names.append(name)
    shows_all = not text.replace(",", " ").strip()

    def is_visible(facts: DeviceFacts) -> bool:
        uuids = [facts.device.lower(), (facts.parent or "").lower()]
        return shows_all or any(
            name == str(facts.index) if name.isdecimal() else any(u.startswith(name) for u in uuids)
            for name in names
        )

    return is_visible
