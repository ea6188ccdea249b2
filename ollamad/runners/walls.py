"""The walls around a runner, by name: what the daemon orders, a runner reports and status shows."""

from __future__ import annotations

import enum


class Wall(enum.StrEnum):
    """One thing that a runner cannot do, or cannot do to others."""

    PROCESS_GROUP = "process-group"
    DESCRIPTORS = "descriptors"
    CGROUP = "cgroup"
    LIMITS = "limits"
    CORE_DUMPS = "no-core-dumps"
    OOM_SCORE = "oom-score"
    CAPABILITIES = "capabilities"
    NO_NEW_PRIVILEGES = "no-new-privileges"
    FILES = "files"
    NETWORK = "network"
    SCOPES = "scopes"
    SYSTEM_CALLS = "system-calls"
