"""One request while the engine has it: its tokens, its machine, its measures. Pure."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ollamad.errors import ProtocolBroken
from ollamad.runners.protocol import FinishReason, Generate, Timings
from ollamad.runners.worker.prefixcache import OpenSequence
from ollamad.runners.worker.text import TextAssembler
from ollamad.runners.worker.tokens import Tokens

if TYPE_CHECKING:
    from ollamad.runners.worker.grammar import Constraint


class GenerationState(enum.Enum):
    """What a request does."""

    WAITING = "waiting"
    """For a slot, or for another request to compute what both begin with."""
    PREFILL = "prefill"
    DECODE = "decode"
    ENDED = "ended"


class GenerationEvent(enum.Enum):
    """What can happen to a request."""

    SEATED = "seated"
    PROMPT_DONE = "prompt done"
    RESTARTED = "restarted"
    """What it had computed is gone: it is to be computed anew."""
    LEFT = "left"


_S, _E = GenerationState, GenerationEvent
TRANSITIONS: Final[Mapping[GenerationState, Mapping[GenerationEvent, GenerationState]]] = {
    _S.WAITING: {_E.SEATED: _S.PREFILL, _E.LEFT: _S.ENDED},
    _S.PREFILL: {
        _E.PROMPT_DONE: _S.DECODE,
        _E.RESTARTED: _S.PREFILL,
        _E.LEFT: _S.ENDED,
    },
    _S.DECODE: {_E.RESTARTED: _S.PREFILL, _E.LEFT: _S.ENDED},
    _S.ENDED: {},
}


def advance(state: GenerationState, event: GenerationEvent) -> GenerationState:
    """Return the state after *event*. Raises ProtocolBroken if the table has no such row."""
    try:
        return TRANSITIONS[state][event]
    except KeyError:
        raise ProtocolBroken(f"a request in {state.name} cannot take {event.name}") from None


class Generation:
    """See the module. Times are seconds of the worker's monotonic clock."""

    def __init__(
        self,
        request: Generate,
        prompt: Sequence[int],
        *,
        n_ctx: int,
        n_generated_max: int,
        sampler: Any,
        constraint: Constraint | None,
        arrival: int,
        now: float,
        shown: Mapping[int, bytes] = MappingProxyType({}),
    ) -> None:
        self.request: Final = request
        self.sampler: Final = sampler
        """A `TokenSampler`; its type belongs to another room."""
        self.constraint: Final = constraint
        self.text: Final = TextAssembler(request.sampling.stop)
        self.shown: Final = shown
        """Control tokens that have a text in this answer, by id."""
        self.arrival: Final = arrival
        self.n_generated_max: Final = n_generated_max
        self.generated: Final[list[int]] = list(request.answered)
        self.state = GenerationState.WAITING
        self.stops: set[int] = set()
        """Numbers of tokens at which a batch must end, so that others can go on from there."""
        self.prompt: Final = tuple(prompt)
        """The tokens of the prompt alone."""
        self._n_ctx = n_ctx
        self._buffer = np.empty(n_ctx + 1, dtype=np.int32)
        self._n_tokens = 0
        self.extend(prompt)
        self._is_cut = not self._replay(request.answered)
        self.n_prompt = self._n_tokens
        """Tokens to compute before the next one is chosen."""
        self._sequence: OpenSequence | None = None
        self._n_cached = 0
        self._n_forced = 0
        self._arrived_at = now
        self._seated_at = 0.0
        self._prefilled_at = 0.0

    # Tokens

    @property
    def tokens(self) -> Tokens:
        """The prompt and the answer so far, as far as the context has them."""
        return self._buffer[: self._n_tokens]

    @property
    def n_computed(self) -> int:
        """Tokens in the KV cache."""
        return self._sequence.n_tokens if self._sequence is not None else 0

    @property
    def n_pending(self) -> int:
        """Tokens to compute next."""
        return self._n_tokens - self.n_computed

    @property
    def is_plain_decode(self) -> bool:
        """All it computes next is the token that was chosen last."""
        return (
            self.state is GenerationState.DECODE
            and self.n_pending == 1
            and not self.stops
            and self.constraint is None
        )

    @property
    def n_computable(self) -> int:
        """How many tokens may be computed before it must be looked at again."""
        computed, n_tokens = self.n_computed, self.n_pending
        for stop in self.stops:
            if computed < stop < computed + n_tokens:
                n_tokens = stop - computed
        if self.constraint is not None and not self.constraint.is_ready:
            # The last token waits until its logits can be used.
            n_tokens = min(n_tokens, self.n_pending - 1)
        return n_tokens

    def next_tokens(self, n_tokens: int) -> Tokens:
        """Return the first *n_tokens* that are to be computed."""
        begin = self.n_computed
        return self.tokens[begin : begin + n_tokens]

    def extend(self, tokens: Sequence[int]) -> None:
        """Add tokens to be computed."""
        end = self._n_tokens + len(tokens)
        self._buffer[self._n_tokens : end] = tokens
        self._n_tokens = end

    def has_context_for(self, n_tokens: int) -> bool:
        """So many more tokens fit into the context."""
        return self._n_tokens + n_tokens < self._n_ctx

    def shift_range(self) -> tuple[int, int]:
        """Return which tokens it drops when its context is full."""
        n_keep = self.request.sampling.num_keep
        return shift_range(self._n_tokens, n_keep if n_keep >= 0 else len(self.prompt))

    def _replay(self, answered: Sequence[int]) -> bool:
        """Fill the context as the runner before had it; False if the answer ended at its end.

        It may have shifted, so what it had generated may not fit into a context at all. Where it
        computed several tokens together it may have shifted a few tokens earlier: the answer goes
        on from nearly the same context then.
        """
        at = 0
        while at < len(answered):
            if not self.has_context_for(1):
                if not self.request.shift:
                    return False
                self.drop_middle(*self.shift_range())
            n_tokens = min(self._n_ctx - 1 - self._n_tokens, len(answered) - at)
            self.extend(answered[at : at + n_tokens])
            at += n_tokens
        return True

    def drop_middle(self, begin: int, end: int) -> None:
        """Forget the tokens from *begin* to *end*."""
        n_after = self._n_tokens - end
        self._buffer[begin : begin + n_after] = self._buffer[end : self._n_tokens].copy()
        self._n_tokens = begin + n_after

    # Life

    @property
    def sequence(self) -> OpenSequence:
        """Its sequence in the KV cache, while it has a slot."""
        assert self._sequence is not None  # noqa: S101 - asked of seated requests only
        return self._sequence

    def seat(self, sequence: OpenSequence, now: float) -> None:
        """Give it a slot and a sequence, which may have some of its tokens already."""
        self.state = advance(self.state, GenerationEvent.SEATED)
        self._sequence = sequence
        self._seated_at = now
        self._n_cached = min(sequence.n_tokens, len(self.prompt))

    def prompt_done(self, now: float) -> None:
        """All tokens but what is chosen from now on are computed."""
        self.state = advance(self.state, GenerationEvent.PROMPT_DONE)
        self._prefilled_at = self._prefilled_at or now

    def restart(self) -> None:
        """What it had computed is gone."""
        self.state = advance(self.state, GenerationEvent.RESTARTED)
        self.n_prompt = self._n_tokens
        self.stops.clear()

    def leave(self) -> OpenSequence | None:
        """End it; return the sequence it had, if any."""
        self.state = advance(self.state, GenerationEvent.LEFT)
        sequence, self._sequence = self._sequence, None
        return sequence

    # The answer

    def answer(self, token: int, forced: Sequence[int]) -> tuple[int, ...]:
        """Add a chosen token and those that follow by force, as far as the limit goes."""
        room = self.n_generated_max - len(self.generated) - 1
        tokens = (token, *forced[: max(room, 0)])
        self._n_forced += len(tokens) - 1
        self.generated.extend(tokens)
        return tokens

    @property
    def is_full(self) -> bool:
        """Its answer may not grow any more."""
        return len(self.generated) >= self.n_generated_max

    @property
    def ending(self) -> FinishReason | None:
        """How the answer had ended in the runner before, if all that was lost is its end."""
        if self.text.is_stopped:
            return FinishReason.STOP
        return FinishReason.LENGTH if self.is_full or self._is_cut else None

    def timings(self, now: float) -> Timings:
        """Return what the request has cost until *now*."""
        seated_at = self._seated_at or now
        prefilled_at = self._prefilled_at or now
        return Timings(
            queue_s=seated_at - self._arrived_at,
            prefill_s=prefilled_at - seated_at,
            decode_s=now - prefilled_at,
            prompt_tokens=len(self.prompt),
            cached_tokens=self._n_cached,
            generated_tokens=len(self.generated) - len(self.request.answered),
            forced_tokens=self._n_forced,
        )


def shift_range(n_held: int, n_keep: int) -> tuple[int, int]:
    """Return which tokens a context shift drops: half of what is not to be kept.

    At least one token, whatever is asked to be kept.
    """
    begin = min(max(n_keep, 0), n_held - 2)
    return begin, begin + max((n_held - begin) // 2, 1)
