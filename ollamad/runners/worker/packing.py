"""Which texts are computed together in the next step of an embedding engine. Pure.

Open requests take turns, one text each, so that a request with thousands of texts delays a small
one by a step and not by all of them.
"""

from __future__ import annotations

from collections.abc import Sequence


def share_step(
    pending: Sequence[Sequence[int]], *, n_tokens_max: int, n_texts_max: int
) -> list[int]:
    """Return how many of its next texts each request gets into the step.

    *pending* are the lengths of each request's next texts, the oldest request first.

    1. The oldest request's next text is in, however long it is: nobody waits without end.
    2. Then one more of each request in turn, while it fits. A request whose next text does not
       fit is out of this step; its later, shorter ones do not overtake.
    """
    counts = [0] * len(pending)
    n_tokens = n_texts = 0
    taking = [index for index, lengths in enumerate(pending) if lengths]
    while taking and n_texts < n_texts_max:
        still_taking = []
        for index in taking[: n_texts_max - n_texts]:
            length = pending[index][counts[index]]
            if n_texts and n_tokens + length > n_tokens_max:
                continue
            n_tokens += length
            n_texts += 1
            counts[index] += 1
            if counts[index] < len(pending[index]):
                still_taking.append(index)
        taking = still_taking
    return counts
