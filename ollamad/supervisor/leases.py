"""`Lease`: a granted right to use a runner. Giving it back is synchronous and idempotent."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from ollamad.options import SamplingOptions
from ollamad.runners.client import RunnerClient
from ollamad.runners.mailbox import Mailbox
from ollamad.runners.protocol import Embedded, Generate, Grammar, Ranked, RequestId

SEED_BITS: Final = 32
TEXTS_PER_MESSAGE: Final = 256
"""Texts to embed in one message to a runner: their vectors must fit into one frame, also the widest
ones (16384 elements would be 16 MiB)."""


class Lease:
    """Keeps a runner from eviction until `release`, and makes requests to it."""

    def __init__(
        self,
        client: RunnerClient,
        *,
        n_ctx: int,
        waited_s: float,
        on_release: Callable[[], None],
    ) -> None:
        self._client = client
        self._on_release = on_release
        self._requests: list[RequestId] = []
        self._is_released = False
        self.n_ctx = n_ctx
        """Context length of one sequence, in tokens."""
        self.waited_s = waited_s
        """From asking for the lease to having it: queueing and loading."""

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
    ) -> Mailbox:
        """Start a generation and return where its answer arrives."""
        if sampling.seed < 0:
            # Chosen here, so that another runner could go on with the same chance.
            sampling = msgspec.structs.replace(sampling, seed=secrets.randbits(SEED_BITS))
        request_id = self._client.next_id()
        self._requests.append(request_id)
        return self._client.generate(
            Generate(
                id=request_id,
                prompt=prompt,
                context=context,
                add_special=add_special,
                sampling=sampling,
                n_logprobs=n_logprobs,
                echo_tokens=echo_tokens,
                grammar=grammar,
                shift=shift,
            )
        )

    async def tokenize(self, text: str, *, add_special: bool = True) -> tuple[int, ...]:
        """Return the token ids of *text*. Raises the runner's error."""
        return await self._client.tokenize(text, add_special=add_special)

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
        parts = [
            await self._client.embed(
                tuple(texts[begin : begin + TEXTS_PER_MESSAGE]),
                truncate=truncate,
                dimensions=dimensions,
                normalize=normalize,
            )
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
        return await self._client.rank(query, tuple(documents), truncate=truncate)

    def release(self) -> None:
        """Give the lease back; what was started with it and is not finished is cancelled."""
        if self._is_released:
            return
        self._is_released = True
        for request_id in self._requests:
            self._client.cancel(request_id)
        self._on_release()
