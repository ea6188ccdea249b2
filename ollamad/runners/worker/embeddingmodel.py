"""One loaded model and a context that makes vectors of texts: tokenize, compute, pool.

A thin, typed layer over llama.cpp's C API, beside `llama.py`. It knows tokens and sequences, not
requests. Only the engine's thread may call it, but for `abort`.
"""

from __future__ import annotations

import ctypes
import enum
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ollamad.runners.protocol import FailureCode, LoadPlan, MemoryKind
from ollamad.runners.worker.abortflag import AbortFlag
from ollamad.runners.worker.batch import Batch, DecodeOutcome, Part
from ollamad.runners.worker.bindings import llama
from ollamad.runners.worker.engine import EngineRefused
from ollamad.runners.worker.loading import context_params, load_model, make_context
from ollamad.runners.worker.prefixtree import SequenceId
from ollamad.runners.worker.tokens import tokens_of
from ollamad.runners.worker.vocabulary import tokenize

Array = npt.NDArray[np.float32]

PACKED_TOKENS_CPU: Final = 384
"""Tokens of several texts computed together on a processor.

llama.cpp's attention spans all texts of a batch and masks the others' tokens away, at a cost that
grows with the square of the batch. Measured with MiniLM, texts of 66 tokens and one thread, in CPU
time for a text: 26.4 ms alone, 24.8 by three, 24.6 by four, 25.2 by six, 25.5 by eight, 27 by
twelve, 38 by 32. More threads wait for each other at every step of the graph, which favours more
texts; without flash attention it is 29 ms alone, 44 by four and 209 by 32.
"""

_META_BYTES: Final = 256
_N_SEQS_MAX: Final = 256
"""Sequences that llama.cpp can tell apart."""
_QUERY: Final = "{query}"
_DOCUMENT: Final = "{document}"


class Pooling(enum.IntEnum):
    """How a text's tokens become one vector, by llama.cpp's numbers."""

    MEAN = 1
    CLS = 2
    LAST = 3
    RANK = 4


class EmbeddingModel:
    """A model in memory with one context that pools each sequence into one vector."""

    def __init__(
        self, plan: LoadPlan, on_progress: Callable[[float], None], *, is_dry: bool = False
    ) -> None:
        """Load the model that *plan* names, in a dry run only pretend to. Raises EngineRefused."""
        self._model = load_model(plan, on_progress, is_dry=is_dry)
        self._vocab = llama.llama_model_get_vocab(self._model)
        # Learned positions end at the trained context: one more would be read beyond them.
        n_ctx_train: int = llama.llama_model_n_ctx_train(self._model)
        self.n_ctx: Final = min(plan.n_ctx, n_ctx_train) if n_ctx_train > 0 else plan.n_ctx
        self.pooling: Final = self._pooling()
        # A text can be computed in parts only if no token looks ahead and only the last one counts.
        self.may_split: Final = self._is_causal() and self.pooling in {Pooling.LAST, Pooling.RANK}
        """Texts may be longer than `n_batch`, for they can be computed in parts."""
        self.n_batch: Final = plan.n_batch if self.may_split else max(plan.n_batch, self.n_ctx)
        # A batch with fewer tokens than sequences would end the process in an assertion.
        self.n_seqs: Final = min(plan.n_slots, self.n_batch, _N_SEQS_MAX)
        self.n_packed: Final = (
            self.n_batch if plan.n_gpu_layers else min(self.n_batch, PACKED_TOKENS_CPU)
        )
        """Tokens of several texts that are best computed together."""
        self._context = self._open_context(plan)
        self._memory = llama.llama_get_memory(self._context)
        self._compute = llama.llama_encode if self._memory is None else llama.llama_decode
        is_rank = self.pooling is Pooling.RANK
        size_of = llama.llama_model_n_cls_out if is_rank else llama.llama_model_n_embd_out
        self.n_dims: Final[int] = size_of(self._model)
        self._batch = Batch(self.n_batch)
        self._abort = AbortFlag(self._context)
        self.abort = self._abort.set
        """End the running computation early. May be called from any thread."""
        self._n_head, self._n_tail = self._added_tokens()

    @property
    def memory_kind(self) -> MemoryKind:
        """What the model's context memory allows."""
        return MemoryKind.NONE if self._memory is None else MemoryKind.WHOLE

    def _meta(self, key: str) -> str:
        """Return a value of the file's metadata, empty if it has none."""
        buffer = ctypes.create_string_buffer(_META_BYTES)
        llama.llama_model_meta_val_str(self._model, key.encode(), buffer, _META_BYTES)
        return buffer.value.decode(errors="replace")

    def _is_causal(self) -> bool:
        return self._meta(f"{self._meta('general.architecture')}.attention.causal") != "false"

    def _pooling(self) -> Pooling:
        """Return the model's own pooling, or what suits a model that names none.

        llama-server would then return a vector for each token; we owe one for each text. In a
        causal model only the last token has seen the whole text. In one that is not, every token
        has, and the mean leaves none of them out.
        """
        text = self._meta(f"{self._meta('general.architecture')}.pooling_type")
        if text in {"", "0"}:
            return Pooling.LAST if self._is_causal() else Pooling.MEAN
        try:
            return Pooling(int(text))
        except ValueError:
            raise EngineRefused(
                FailureCode.NOT_A_MODEL, f"the model's pooling type {text[:20]} is unknown"
            ) from None

    def _open_context(self, plan: LoadPlan) -> Any:
        params = context_params(plan)
        params.n_ctx = max(self.n_ctx, self.n_batch)
        params.n_batch = params.n_ubatch = self.n_batch
        params.n_seq_max = self.n_seqs
        params.pooling_type = self.pooling
        params.embeddings = True
        return make_context(
            self._model,
            params,
            f"no room for a context of {self.n_ctx} tokens in batches of {self.n_batch}",
        )

    def _added_tokens(self) -> tuple[int, int]:
        """Return how many special tokens the tokenizer puts before and behind a text."""
        plain = self.tokenize("a", add_special=False)
        whole = self.tokenize("a", add_special=True)
        n_added = len(whole) - len(plain)
        n_head = next((n for n in range(n_added + 1) if whole[n : n + len(plain)] == plain), 0)
        return n_head, n_added - n_head

    def tokenize(self, text: str, *, add_special: bool) -> list[int]:
        """Return the token ids of *text*, in which special tokens are recognised."""
        return tokenize(self._vocab, text, add_special=add_special)

    def text_tokens(self, text: str, *, truncate: bool) -> list[int]:
        """Return the tokens to compute for *text*, the special ones around it kept when cut.

        Raises EngineRefused with CONTEXT_TOO_LONG.
        """
        tokens = self.tokenize(text, add_special=True)
        if not tokens:
            return [self._stand_in]
        n_over = len(tokens) - self.n_ctx
        if n_over <= 0:
            return tokens
        if not truncate:
            raise _too_long()
        end = len(tokens) - self._n_tail
        if end - n_over <= self._n_head:
            raise EngineRefused(
                FailureCode.CONTEXT_TOO_LONG,
                "input after truncation exceeds maximum context length",
            )
        return [*tokens[: end - n_over], *tokens[end:]]

    @property
    def _stand_in(self) -> int:
        """A token for a text without any: an empty one, where the tokenizer adds nothing."""
        ids = (llama.llama_vocab_bos(self._vocab), llama.llama_vocab_eos(self._vocab))
        return next((int(token) for token in ids if token >= 0), 0)

    def pair_tokens(self, query: str, document: str, *, truncate: bool) -> list[int]:
        """Return the tokens of a query and a document as llama-server puts them together.

        By the model's own template, else with the special tokens its tokenizer has. Only the
        document is ever cut. Raises EngineRefused with CONTEXT_TOO_LONG.
        """
        template = llama.llama_model_chat_template(self._model, b"rerank")
        if template:
            before, _, after = template.decode(errors="replace").partition(_DOCUMENT)
            before, after = before.replace(_QUERY, query), after.replace(_QUERY, query)
            tokens = self.tokenize(before + document + after, add_special=False)
            if len(tokens) <= self.n_ctx:
                return tokens
            head = self.tokenize(before, add_special=False)
            tail = self.tokenize(after, add_special=False)
        else:
            head, tail = self._around_document(query)
        body = tokenize(self._vocab, document, add_special=False, parse_special=False)
        room = self.n_ctx - len(head) - len(tail)
        if room < len(body) and (not truncate or room <= 0):
            raise _too_long()
        return [*head, *body[:room], *tail]

    def _around_document(self, query: str) -> tuple[list[int], list[int]]:
        vocab = self._vocab
        sep: int = llama.llama_vocab_sep(vocab)
        eos: int = llama.llama_vocab_eos(vocab)
        ends = [eos if eos >= 0 else sep] if llama.llama_vocab_get_add_eos(vocab) else []
        head = [llama.llama_vocab_bos(vocab)] if llama.llama_vocab_get_add_bos(vocab) else []
        head += tokenize(vocab, query, add_special=False, parse_special=False)
        head += ends
        head += [sep] if llama.llama_vocab_get_add_sep(vocab) else []
        return head, ends

    def use_threads(self, n_threads: int) -> None:
        """Compute with so many threads from the next batch on."""
        llama.llama_set_n_threads(self._context, n_threads, n_threads)

    def compute(self, parts: Sequence[tuple[int, Sequence[int]]]) -> DecodeOutcome:
        """Compute (first position, tokens) parts, each as a sequence by its place in *parts*."""
        self._batch.fill(
            [
                Part(SequenceId(number), position, tokens_of(tokens), True)
                for number, (position, tokens) in enumerate(parts)
            ]
        )
        # Else llama.cpp marks them itself, and warns of it at every batch.
        self._batch.mark_all()
        self._abort.clear()
        code = self._compute(self._context, self._batch.handle)
        if code == 0:
            return DecodeOutcome.DONE
        if code == 1:
            return DecodeOutcome.NO_ROOM
        return DecodeOutcome.ABORTED if code == 2 else DecodeOutcome.FAILED

    def vector(self, sequence: int) -> Array:
        """Return a view of a sequence's vector; it is good until the next `compute`."""
        pointer = llama.llama_get_embeddings_seq(self._context, sequence)
        return np.ctypeslib.as_array(pointer, shape=(self.n_dims,))

    def forget(self, from_position: int = 0) -> bool:
        """Drop what the memory, if there is one, holds of the first sequence from a position on.

        From 0 on, all sequences are dropped. False if this model's memory cannot.
        """
        if self._memory is None:
            return True
        if from_position:
            return bool(llama.llama_memory_seq_rm(self._memory, 0, from_position, -1))
        llama.llama_memory_clear(self._memory, False)
        return True


def _too_long() -> EngineRefused:
    return EngineRefused(
        FailureCode.CONTEXT_TOO_LONG, "the input length exceeds the context length"
    )
