"""Our changes to llama.cpp's sources, before our wheel is built of them. Small, few, and explained.

Each names a text that must be there exactly once: where a new version has changed it, the build
stops and says so, rather than go on without. Nothing depends on a patch but speed.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Final

from tools.machine import SetupError


@dataclasses.dataclass(frozen=True)
class Patch:
    """One text of one file, replaced."""

    why: str
    path: str
    """Below the source package."""
    old: str
    new: str


PATCHES: Final = (
    Patch(
        why="Attention on a processor skips the cells of other sequences four at a time. In a "
        "unified cache most cells are others'; looking at each by itself cost eight streams a "
        "tenth of their speed, and more with every idle text that is kept.",
        path="vendor/llama.cpp/ggml/src/ggml-cpu/ops.cpp",
        old="""\
            const float mv = mp ? slope*GGML_CPU_FP16_TO_FP32(mp[ic]) : 0.0f;
            if (mv == -INFINITY) {
                continue;
            }

            float s; // KQ value
""",
        new="""\
            const float mv = mp ? slope*GGML_CPU_FP16_TO_FP32(mp[ic]) : 0.0f;
            if (mv == -INFINITY) {
                // 0xFC00 is minus infinity in 16 bits
                uint64_t four;
                while (ic + 4 < ic_end &&
                       (memcpy(&four, mp + ic + 1, sizeof(four)), four == 0xFC00FC00FC00FC00ull)) {
                    ic += 4;
                }
                continue;
            }

            float s; // KQ value
""",
    ),
)


def apply_patches(source: Path, patches: tuple[Patch, ...] = PATCHES) -> None:
    """Change the sources below *source*; what is changed already stays. Raises SetupError."""
    for patch in patches:
        path = source / patch.path
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as exc:
            raise SetupError(f"cannot patch {path}: {exc.strerror}") from exc
        if patch.new in text:
            continue
        if text.count(patch.old) != 1:
            raise SetupError(
                f"{patch.path} is not what our patch was made for; look at tools/patches.py "
                f"({patch.why})"
            )
        path.write_text(text.replace(patch.old, patch.new), encoding="utf-8")
