"""`ModelPolicy`: what the owner of the machine has laid down for one model.

Requests ask; a policy decides what they cannot override, and what holds where they say nothing.
"""

from __future__ import annotations

import dataclasses
from typing import Final

from ollamad.errors import InvalidName
from ollamad.names import ModelName


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ModelPolicy:
    """The rules for one model. A default is the absence of a rule."""

    devices: tuple[str, ...] = ()
    """UUIDs or indexes of the devices it may use, or `host`; empty for any."""
    cpu_only: bool = False
    """It never goes on a GPU."""
    pinned: bool = False
    """Once loaded it is never a victim, neither of others' need for room nor of its idle clock."""
    preload: bool = False
    """It is loaded when the daemon starts."""
    priority: int = 0
    """Its requests go before those of a lower one; waiting makes up for it."""
    parallel: int = 0
    """Slots; 0 for the runner's setting."""
    n_ctx: int = 0
    """Context length of one sequence, in tokens; 0 for the runner's setting."""
    kv_type: str = ""
    """How its context is stored; empty for the runner's setting."""
    keep_alive_s: float | None = None
    """How long it stays after its last request; `None` for the scheduler's setting."""


NO_POLICY: Final = ModelPolicy()


@dataclasses.dataclass(frozen=True, slots=True)
class PolicyBook:
    """The policies of all models that have one."""

    policies: tuple[tuple[ModelName, ModelPolicy], ...] = ()

    def of(self, name: str) -> ModelPolicy:
        """Return the policy of the model called *name*, `NO_POLICY` if it has none.

        Names are compared as everywhere: with their defaults, in any case.
        """
        try:
            wanted = ModelName.parse(name).key
        except InvalidName:
            return NO_POLICY
        return next((policy for known, policy in self.policies if known.key == wanted), NO_POLICY)
