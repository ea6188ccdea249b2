"""Which idle runners must leave for a demand. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from ollamad.gpu.budget import Amounts, Budget
from ollamad.supervisor.residents import Resident


def choose_victims(
    candidates: Sequence[Resident], needed: Amounts, budget: Budget
) -> list[Resident] | None:
    """Return runners whose leaving makes room for *needed*, none in vain, or `None`.

    1. Those idle longest go first.
    2. A chosen one stays in its place if the others make enough room without it.
    """
    missing = {device: n_bytes - budget.free_bytes(device) for device, n_bytes in needed.items()}
    victims: list[Resident] = []
    for resident in sorted(candidates, key=lambda r: (r.idle_since, r.runner)):
        if _is_enough(victims, missing):
            break
        victims.append(resident)
    if not _is_enough(victims, missing):
        return None
    for resident in list(victims):
        rest = [victim for victim in victims if victim is not resident]
        if _is_enough(rest, missing):
            victims = rest
    return victims


def _is_enough(victims: Sequence[Resident], missing: Amounts) -> bool:
    return all(
        sum(victim.held_bytes for victim in victims if device in victim.placement.amounts)
        >= n_bytes
        for device, n_bytes in missing.items()
    )
