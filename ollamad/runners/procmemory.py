"""How much memory of its own a process has touched, as /proc counts it.

Mapped files are not counted: every runner shares them with the page cache. What is counted here is
what the system's reading of main memory has in use on the process's account.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from ollamad.units import KIB

_OWN: Final = ("RssAnon", "RssShmem")


def own_memory_bytes(pid: int | None = None) -> int:
    """Return it for the process with *pid*, or for this one; 0 if there is no such process."""
    try:
        lines = Path(f"/proc/{pid or 'self'}/status").read_text().splitlines()
    except OSError:
        return 0
    fields = dict(line.split(":", 1) for line in lines)
    # A process that has ended and was not waited for has a status without these.
    return sum(int(fields.get(name, "0").split()[0]) * KIB for name in _OWN)
