"""`Lease`: a granted right to use a runner. Giving it back is synchronous and idempotent.

It outlives its runner: what the runner had in hand when it died goes to the next one, if the core
grants one (`healing` says to whom). So those who hold a lease see a pause, or one clear error.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol, TypeVar

import msgspec
import trio

from ollamad.errors import OllamadError, RunnerCrashed
from ollamad.modelinfo import WeightsId
from ollamad.options import SamplingOptions
from ollamad.runners.client import RunnerClient
from ollamad.runners.mailbox import Mailbox
from ollamad.runners.protocol import Embedded, Generate, Grammar, Ranked
from ollamad.supervisor.healing import Part, Suspects, fingerprint_of
from ollamad.supervisor.openanswer import OpenAnswer

SEED_BITS: Final = 32
TEXTS_PER_MESSAGE: Final = 256
"""Texts to embed in one message to a runner: their vectors must fit into one frame, also the widest
ones (16384 elements would be 16 MiB)."""

T = TypeVar("T")


class LeasedRunner(Protocol):
    """What a lease needs of a runner."""

    @property
    def client(self) -> RunnerClient:
        """The connection to it."""
        ...

    @property
    def n_ctx(self) -> int:
        """Context length of one sequence, in tokens."""
        ...


class Claim(Protocol):
    """What a lease needs of its ticket. Nothing here waits."""

    def ask_again(
        self, part: Part, error: RunnerCrashed, tell: Callable[[LeasedRunner | OllamadError], None]
    ) -> None:
        """The runner has died: *tell* is told which one is granted instead, or why none is."""
        ...

    def served_again(self, n_tokens: int) -> None:
        """The other runner has given something: after *n_tokens* of an answer, 0 for a question."""
        ...

    def give_back(self) -> None:
        """The lease is over."""
        ...


class Lease:
    """Keeps a runner from eviction until `release`, and makes requests to it."""

    def __init__(
        self,
        runner: LeasedRunner,
        claim: Claim,
        *,
        weights_id: WeightsId,
        suspects: Suspects,
        waited_s: float,
    ) -> None:
        self._runner = runner
        self._claim = claim
        self._weights_id = weights_id
        self._suspects = suspects
        self._answers: list[OpenAnswer] = []
        self._asking: _Asking | None = None
        """While it has no runner: the core was asked for another one."""
        self._ended: OllamadError | None = None
        """Why there is no other runner."""
        self._is_unserved = False
        """It has another runner that has given nothing yet."""
        self._is_released = False
        self.waited_s = waited_s
        """From asking for the lease to having it: queueing and loading."""

    @property
    def n_ctx(self) -> int:
        """Context length of one sequence, in tokens."""
        return self._runner.n_ctx

    def generate(
        self,
        prompt: str,
        sampling: SamplingOptions,
        *,
        add_special: bool = True,
        context: tuple[int, ...] = (),
        n_logprobs: int | None = None,
        echo_tokens: bool = False,
        grammar: Grammar | None = None,
        shift: bool = False,
        shown_tokens: tuple[str, ...] = (),
    ) -> Mailbox:
        """Start a generation and return where its answer arrives."""
        if sampling.seed < 0:
            # Chosen here, so that another runner could go on with the same chance.
            sampling = msgspec.structs.replace(sampling, seed=secrets.randbits(SEED_BITS))
        request = Generate(
            id=0,
            prompt=prompt,
            context=context,
            add_special=add_special,
            sampling=sampling,
            n_logprobs=n_logprobs,
            echo_tokens=echo_tokens,
            grammar=grammar,
            shift=shift,
            shown_tokens=shown_tokens,
        )
        answer = OpenAnswer(request, self._lost, self._served)
        self._answers.append(answer)
        if (error := self._ended or self._refusal(_texts_of(request))) is not None:
            answer.close(error)
        elif self._asking is None:
            answer.start(self._runner.client)
        return answer.mailbox

    async def tokenize(self, text: str, *, add_special: bool = True) -> tuple[int, ...]:
        """Return the token ids of *text*. Raises the runner's error."""
        return await self._asked(
            lambda client: client.tokenize(text, add_special=add_special), ("tokenize", text)
        )

    async def embed(
        self,
        texts: Sequence[str],
        *,
        truncate: bool = True,
        dimensions: int = 0,
        normalize: bool = True,
    ) -> Embedded:
        """Return a vector for each of *texts*, one at least. Raises the runner's error.

        Many texts are sent in several messages, one after the other.
        """

        async def embed_some(some: tuple[str, ...]) -> Embedded:
            embedded = await self._asked(
                lambda client: client.embed(
                    some, truncate=truncate, dimensions=dimensions, normalize=normalize
                ),
                ("embed", *some),
            )
            self._served()
            return embedded

        parts = [
            await embed_some(tuple(texts[begin : begin + TEXTS_PER_MESSAGE]))
            for begin in range(0, len(texts), TEXTS_PER_MESSAGE)
        ]
        if len(parts) == 1:
            return parts[0]
        return msgspec.structs.replace(
            parts[-1],
            vectors=b"".join(part.vectors for part in parts),
            prompt_tokens=sum(part.prompt_tokens for part in parts),
        )

    async def rank(self, query: str, documents: Sequence[str], *, truncate: bool = True) -> Ranked:
        """Return how well each of *documents* answers *query*. Raises the runner's error."""
        some = tuple(documents)
        ranked = await self._asked(
            lambda client: client.rank(query, some, truncate=truncate), ("rank", query, *some)
        )
        self._served()
        return ranked

    def release(self) -> None:
        """Give the lease back; what was started with it and is not finished is cancelled."""
        if self._is_released:
            return
        self._is_released = True
        for answer in self._answers:
            answer.cancel()
        self._claim.give_back()

    # When the runner dies

    async def _asked(
        self, ask: Callable[[RunnerClient], Awaitable[T]], texts: tuple[str, ...]
    ) -> T:
        """Return the answer to a question; if its runner dies, another one is asked.

        Bounded by the core, which grants only so many runners. Raises what the runner says, or why
        there is no other one.
        """
        if (refusal := self._refusal(texts)) is not None:
            raise refusal
        while True:
            if self._ended is not None:
                raise self._ended.with_traceback(None)
            if self._asking is None:
                client = self._runner.client
                part = Part.ABSENT if client.is_closed else Part.UNSERVED
                try:
                    return await ask(client)
                except RunnerCrashed as exc:
                    # Another request of this lease may have asked for the next runner by now.
                    if client is self._runner.client:
                        self._lost(part, exc)
            if self._asking is not None:
                self._asking.texts.append(texts)
                await self._asking.is_answered.wait()

    def _lost(self, part: Part, error: RunnerCrashed) -> None:
        if self._asking is None and not self._is_released:
            self._asking = _Asking()
            self._claim.ask_again(part, error, self._told)

    def _told(self, answer: LeasedRunner | OllamadError) -> None:
        """Go on with another runner, or end everything with the reason why not."""
        asking, self._asking = self._asking, None
        assert asking is not None  # noqa: S101 - only who asked is told
        lost = [one for one in self._answers if one.is_lost]
        if isinstance(answer, OllamadError):
            self._ended = answer
            if isinstance(answer, RunnerCrashed) and answer.blames_request:
                for texts in (*asking.texts, *(_texts_of(one.request) for one in lost)):
                    self._suspects.add(self._fingerprint(texts), trio.current_time())
            for one in lost:
                one.close(answer)
        else:
            self._runner, self._is_unserved = answer, True
            for one in lost:
                one.start(answer.client)
        asking.is_answered.set()

    def _served(self, answer: OpenAnswer | None = None) -> None:
        """The runner gave something: the first of an answer, or all that a question asks for."""
        if self._is_unserved:
            self._is_unserved = False
            self._claim.served_again(len(answer.tokens) if answer is not None else 0)

    def _refusal(self, texts: tuple[str, ...]) -> RunnerCrashed | None:
        """Return why what was blamed lately is not tried again."""
        now = trio.current_time()
        if self._suspects.are_empty(now):
            return None
        remaining_s = self._suspects.refused_for_s(self._fingerprint(texts), now)
        if not remaining_s:
            return None
        return RunnerCrashed(
            "the model's runner ended each time it was given this input; "
            f"it is not tried again for {remaining_s:.0f} s",
            blames_request=True,
        )

    def _fingerprint(self, texts: tuple[str, ...]) -> bytes:
        return fingerprint_of(self._weights_id, *texts)


class _Asking:
    """A question to the core for another runner."""

    def __init__(self) -> None:
        self.is_answered: Final = trio.Event()
        self.texts: Final[list[tuple[str, ...]]] = []
        """The questions to the runner that wait for it."""


def _texts_of(request: Generate) -> tuple[str, ...]:
    """Return what a runner may have died of: the input, not how an answer is chosen."""
    return ("generate", request.prompt, ",".join(map(str, request.context)))
