"""One loaded model and its context: tokens, batches, logits, and the KV memory.

A thin, typed layer over llama.cpp's C API. It knows tokens, positions and sequences, not requests.
Only the engine's thread may call it, but for `abort`.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ollamad.runners.protocol import FailureCode, LoadPlan, MemoryKind
from ollamad.runners.sequences import n_sequences
from ollamad.runners.worker.abortflag import AbortFlag
from ollamad.runners.worker.batch import Batch, DecodeOutcome, Part
from ollamad.runners.worker.bindings import llama
from ollamad.runners.worker.engine import EngineRefused
from ollamad.runners.worker.loading import load_model, open_context
from ollamad.runners.worker.prefixtree import SequenceId
from ollamad.runners.worker.sampling.vocab import VocabFacts
from ollamad.runners.worker.tokens import tokens_of
from ollamad.runners.worker.vocabulary import piece_of, tokenize

_UNBOUNDED: Final = 1 << 40


class LlamaModel:
    """A model in memory with one context."""

    def __init__(self, plan: LoadPlan, on_progress: Callable[[float], None]) -> None:
        """Load the model that *plan* names, and see it compute. Raises EngineRefused."""
        self.model, self.context = open_as_engine(plan, on_progress)
        self.vocab_handle = llama.llama_model_get_vocab(self.model)
        self.n_vocab: Final[int] = llama.llama_vocab_n_tokens(self.vocab_handle)
        self.vocab: Final = VocabFacts(
            n_vocab=self.n_vocab,
            find_end_tokens=lambda: self.end_tokens,
            tokenize=functools.partial(
                tokenize, self.vocab_handle, add_special=False, parse_special=False
            ),
            piece=self._piece,
        )
        self.n_ctx: Final = plan.n_ctx
        self.n_slots: Final = plan.n_slots
        self.n_batch: Final = plan.n_batch
        handle = llama.llama_get_memory(self.context)
        if handle is None:
            raise EngineRefused(
                FailureCode.BAD_REQUEST, "this model only makes embeddings, it cannot generate"
            )
        self._batch = Batch(self.n_batch)
        self._logits_array = ctypes.c_float * self.n_vocab
        self._abort = AbortFlag(self.context)
        self.abort = self._abort.set
        """End the running decode early. May be called from any thread."""
        self.piece = functools.lru_cache(maxsize=1 << 16)(self._piece)
        """Bytes of a token; empty for control tokens."""
        self._see_it_compute()
        self.memory: Final = LlamaMemory(handle, self.model, self.context, plan)

    def _see_it_compute(self) -> None:
        """Compute two tokens and forget them. Raises EngineRefused.

        Whatever cannot compute here (an instruction the processor lacks, broken weights) must show
        before the first request does.
        """
        first = max(int(llama.llama_vocab_bos(self.vocab_handle)), 0)
        outcome = self.decode([Part(SequenceId(0), 0, tokens_of((first, first)), True)])
        if outcome is not DecodeOutcome.DONE or not np.isfinite(self.logits(1)).all():
            raise EngineRefused(FailureCode.ENGINE, "the model cannot compute a first token")

    def close(self) -> None:
        """Give all memory back. A runner need not: it ends with its model."""
        llama.llama_free(self.context)
        llama.llama_model_free(self.model)

    def use_threads(self, n_threads: int) -> None:
        """Compute with so many threads from the next batch on."""
        llama.llama_set_n_threads(self.context, n_threads, n_threads)

    def tokenize(self, text: str, *, add_special: bool) -> list[int]:
        """Return the token ids of *text*, in which special tokens are recognised."""
        return tokenize(self.vocab_handle, text, add_special=add_special)

    def control_tokens(self, texts: Iterable[str]) -> dict[str, int]:
        """Return those of *texts* that are one control token each, with its id."""
        found: dict[str, int] = {}
        for text in texts:
            ids = self.tokenize(text, add_special=False)
            if len(ids) == 1 and not self.piece(ids[0]):
                found[text] = ids[0]
        return found

    def _piece(self, token: int) -> bytes:
        return piece_of(self.vocab_handle, token, shows_special=False)

    def is_end(self, token: int) -> bool:
        """*token* ends a generation."""
        return bool(llama.llama_vocab_is_eog(self.vocab_handle, token))

    @functools.cached_property
    def end_tokens(self) -> tuple[int, ...]:
        """All tokens that end a generation. The first look takes a while."""
        return tuple(filter(self.is_end, range(self.n_vocab)))

    def decode(self, parts: Sequence[Part]) -> DecodeOutcome:
        """Compute a batch. After any outcome but DONE its sequences must be cut or restarted."""
        self._batch.fill(parts)
        self._abort.clear()
        code = llama.llama_decode(self.context, self._batch.handle)
        if code == 0:
            return DecodeOutcome.DONE
        if code == 1:
            return DecodeOutcome.NO_ROOM
        return DecodeOutcome.ABORTED if code == 2 else DecodeOutcome.FAILED

    def logits(self, row: int) -> npt.NDArray[np.float32]:
        """Return a view of the logits of the *row*-th token of the last batch."""
        address = ctypes.addressof(llama.llama_get_logits_ith(self.context, row).contents)
        return np.frombuffer(self._logits_array.from_address(address), dtype=np.float32)


def _has_states(model: Any) -> bool:
    return bool(llama.llama_model_is_recurrent(model) or llama.llama_model_is_hybrid(model))


def open_as_engine(
    plan: LoadPlan, on_progress: Callable[[float], None], *, is_dry: bool = False
) -> tuple[Any, Any]:
    """Return model and context as generating needs them. Raises EngineRefused.

    In a dry run nothing can be computed with them.
    """
    model = load_model(plan, on_progress, is_dry=is_dry)
    count = n_sequences(
        plan.n_slots,
        plan.n_batch,
        has_states=_has_states(model),
        has_small_windows=bool(llama.llama_model_n_swa(model)) and not plan.swa_full,
    )
    return model, open_context(model, plan, n_seq_max=count)


class LlamaMemory:
    """`KvMemory` of a context: who has which cells. Costs metadata only, no computation."""

    def __init__(self, handle: Any, model: Any, context: Any, plan: LoadPlan) -> None:
        """Take the memory over, in which sequence 0 has two tokens, to be forgotten."""
        self._handle = handle
        self.window = int(llama.llama_model_n_swa(model))
        self.n_sequences = int(llama.llama_n_seq_max(context))
        can_be_cut = llama.llama_memory_seq_rm(handle, 0, 1, -1)
        llama.llama_memory_seq_rm(handle, 0, -1, -1)
        if not can_be_cut or _has_states(model):
            self.kind = MemoryKind.RECURRENT
        else:
            self.kind = MemoryKind.WINDOW if self.window else MemoryKind.WHOLE
        self.is_roomy = plan.swa_full
        is_state_only = bool(llama.llama_model_is_recurrent(model))
        self.n_cells = _UNBOUNDED if is_state_only else plan.n_ctx * plan.n_slots
        self.can_shift: Final = self.kind is not MemoryKind.RECURRENT and bool(
            llama.llama_memory_can_shift(handle)
        )
        """Positions of a sequence's own cells can be moved."""

    def share(self, source: SequenceId, target: SequenceId, begin: int, end: int) -> None:
        """See KvMemory."""
        if self.kind is MemoryKind.RECURRENT:
            llama.llama_memory_seq_cp(self._handle, source, target, -1, -1)
            return
        llama.llama_memory_seq_rm(self._handle, target, begin, end)
        llama.llama_memory_seq_cp(self._handle, source, target, begin, end)

    def cut(self, sequence: SequenceId, n_tokens: int) -> bool:
        """See KvMemory."""
        begin = n_tokens or -1
        return bool(llama.llama_memory_seq_rm(self._handle, sequence, begin, -1))

    def first_kept(self, sequence: SequenceId) -> int:
        """See KvMemory."""
        return max(int(llama.llama_memory_seq_pos_min(self._handle, sequence)), 0)

    def drop_middle(self, sequence: SequenceId, begin: int, end: int) -> None:
        """Forget positions from *begin* to *end*, move the later ones down. Needs `can_shift`."""
        llama.llama_memory_seq_rm(self._handle, sequence, begin, end)
        llama.llama_memory_seq_add(self._handle, sequence, end, -1, begin - end)
