"""One loaded model and its context: load, tokenize, batch, decode, KV memory.

A thin, typed layer over llama.cpp's C API. It knows tokens, positions and sequences, not requests.
Only the engine's thread may call it, but for `abort`.
"""

from __future__ import annotations

import ctypes
import enum
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ollamad.runners.protocol import FailureCode, LoadPlan
from ollamad.runners.worker.bindings import llama
from ollamad.runners.worker.engine import EngineRefused

KV_TYPES: Final = {"f32": 0, "f16": 1, "q4_0": 2, "q8_0": 8, "bf16": 30}
"""Numbers of ggml's types."""
FLASH_ATTENTION: Final = {"auto": -1, "off": 0, "on": 1}
"""Numbers of llama.cpp's choices."""
_LOAD_MODE_NONE: Final = 0
_LOAD_MODE_MMAP: Final = 1
_PIECE_BYTES_MAX: Final = 1 << 16


class DecodeOutcome(enum.Enum):
    """What became of a batch."""

    DONE = "done"
    ABORTED = "aborted"
    NO_ROOM = "no room in the KV cache"
    FAILED = "failed"


class LlamaModel:
    """A model in memory with one context of `n_slots` sequences."""

    def __init__(self, plan: LoadPlan, on_progress: Callable[[float], None]) -> None:
        """Load the model that *plan* names. Raises EngineRefused."""
        if plan.adapter_paths:
            raise EngineRefused(
                FailureCode.BAD_REQUEST, "models with LoRA adapters cannot be run yet"
            )
        self._model = load_weights(plan, on_progress)
        self._vocab = llama.llama_model_get_vocab(self._model)
        self.n_vocab: Final[int] = llama.llama_vocab_n_tokens(self._vocab)
        self.n_ctx: Final = plan.n_ctx
        self.n_slots: Final = plan.n_slots
        self.n_batch: Final = plan.n_batch
        self.context = self._open_context(plan)
        self._memory = llama.llama_get_memory(self.context)
        if self._memory is None:
            raise EngineRefused(
                FailureCode.BAD_REQUEST, "this model only makes embeddings, it cannot generate"
            )
        self._batch = Batch(self.n_batch)
        self._abort = AbortFlag(self.context)
        self.abort = self._abort.set
        """End the running decode early. May be called from any thread."""
        self.piece = functools.lru_cache(maxsize=1 << 16)(self._piece)
        """Bytes of a token; empty for control tokens."""

    def _open_context(self, plan: LoadPlan) -> Any:
        params = llama.llama_context_default_params()
        params.n_ctx = plan.n_ctx * plan.n_slots
        params.n_batch = plan.n_batch
        params.n_ubatch = plan.n_batch
        params.n_seq_max = plan.n_slots
        params.kv_unified = True
        params.n_threads = params.n_threads_batch = plan.n_threads
        params.type_k = params.type_v = KV_TYPES[plan.kv_type]
        params.flash_attn_type = FLASH_ATTENTION[plan.flash_attention]
        params.no_perf = True
        context = llama.llama_init_from_model(self._model, params)
        if not context:
            raise EngineRefused(
                FailureCode.OUT_OF_MEMORY,
                f"no room for a context of {plan.n_slots} times {plan.n_ctx} tokens, or it cannot "
                "be made with these settings (see the log); try a smaller num_ctx",
            )
        return context

    def tokenize(self, text: str, *, add_special: bool) -> list[int]:
        """Return the token ids of *text*, in which special tokens are recognised."""
        return tokenize(self._vocab, text, add_special=add_special)

    def _piece(self, token: int) -> bytes:
        size = 64
        while True:
            buffer = ctypes.create_string_buffer(size)
            count: int = llama.llama_token_to_piece(self._vocab, token, buffer, size, 0, False)
            if count >= 0:
                return buffer.raw[:count]
            size = min(-count, _PIECE_BYTES_MAX)

    @property
    def first_token(self) -> int:
        """A token that a text may begin with."""
        return max(int(llama.llama_vocab_bos(self._vocab)), 0)

    def is_end(self, token: int) -> bool:
        """*token* ends a generation."""
        return bool(llama.llama_vocab_is_eog(self._vocab, token))

    def decode(self, parts: Sequence[tuple[int, int, Sequence[int], bool]]) -> DecodeOutcome:
        """Compute a batch of (sequence, first position, tokens, wants logits of the last token).

        On every outcome but DONE the sequences hold what they held before.
        """
        self._batch.fill(parts)
        self._abort.clear()
        code = llama.llama_decode(self.context, self._batch.handle)
        if code == 0:
            return DecodeOutcome.DONE
        for sequence, position, _tokens, _logits in parts:
            # Finished parts of an aborted batch stay in memory; a half batch is of no use.
            self.forget(sequence, position)
        if code == 1:
            return DecodeOutcome.NO_ROOM
        return DecodeOutcome.ABORTED if code == 2 else DecodeOutcome.FAILED

    def logits(self, row: int) -> npt.NDArray[np.float32]:
        """Return a view of the logits of the *row*-th token of the last batch."""
        pointer = llama.llama_get_logits_ith(self.context, row)
        return np.ctypeslib.as_array(pointer, shape=(self.n_vocab,))

    def forget(self, sequence: int, from_position: int) -> bool:
        """Drop keys and values from a position on. False if this model's memory cannot."""
        return bool(llama.llama_memory_seq_rm(self._memory, sequence, from_position, -1))


def tokenize(vocab: Any, text: str, *, add_special: bool, parse_special: bool = True) -> list[int]:
    """Return the token ids of *text*; special tokens in it are read as such, or as any text."""
    data = text.encode("utf-8", errors="replace")
    room = len(data) + 8  # A token has at least one byte, but for the few added ones.
    tokens = (ctypes.c_int32 * room)()
    count = llama.llama_tokenize(vocab, data, len(data), tokens, room, add_special, parse_special)
    if count < 0:
        raise EngineRefused(FailureCode.BAD_REQUEST, "the text cannot be tokenized")
    return tokens[:count]


class AbortFlag:
    """A byte that llama.cpp polls inside a computation, without entering Python.

    ggml calls the abort callback hundreds of times in a step. A Python function there would take
    the interpreter's lock each time; `strlen` of a one-character string does not: it is 0 (go on)
    or 1 (abort) by what the character is.
    """

    def __init__(self, context: Any) -> None:
        self._flag = ctypes.create_string_buffer(2)
        strlen = ctypes.cast(ctypes.CDLL(None).strlen, ctypes.c_void_p).value
        self._callback = llama.ggml_abort_callback(strlen)
        llama.llama_set_abort_callback(
            context, self._callback, ctypes.cast(self._flag, ctypes.c_void_p)
        )

    def set(self) -> None:
        """Abort the running computation."""
        self._flag[0] = b"\x01"

    def clear(self) -> None:
        """Let the next one run."""
        self._flag[0] = b"\x00"


class Batch:
    """llama.cpp's batch, filled through numpy views of its arrays."""

    def __init__(self, n_tokens_max: int) -> None:
        self.handle = llama.llama_batch_init(n_tokens_max, 0, 1)
        shape = (n_tokens_max,)
        as_array = np.ctypeslib.as_array
        self._token = as_array(self.handle.token, shape=shape)
        self._position = as_array(self.handle.pos, shape=shape)
        self._logits = as_array(self.handle.logits, shape=shape)
        as_array(self.handle.n_seq_id, shape=shape)[:] = 1
        # Each token's list of sequence ids is one number; the batch holds a pointer to each.
        self._sequence = np.zeros(shape, dtype=np.int32)
        first = self._sequence.ctypes.data
        pointers = ctypes.cast(self.handle.seq_id, ctypes.POINTER(ctypes.c_void_p))
        for index in range(n_tokens_max):
            pointers[index] = first + index * self._sequence.itemsize

    def fill(self, parts: Sequence[tuple[int, int, Sequence[int], bool]]) -> None:
        """Write (sequence, first position, tokens, wants logits of the last token) parts."""
        row = 0
        for sequence, position, tokens, wants_logits in parts:
            end = row + len(tokens)
            self._token[row:end] = tokens
            self._position[row:end] = np.arange(position, position + len(tokens))
            self._sequence[row:end] = sequence
            self._logits[row:end] = 0
            self._logits[end - 1] = wants_logits
            row = end
        self.handle.n_tokens = row

    def mark_all(self) -> None:
        """Want an output of every token."""
        self._logits[: self.handle.n_tokens] = 1


def load_weights(plan: LoadPlan, on_progress: Callable[[float], None]) -> Any:
    """Return llama.cpp's handle of the weights that *plan* names. Raises EngineRefused."""
    if not Path(plan.model_path).is_file():
        raise EngineRefused(FailureCode.NOT_FOUND, f"no such file: {plan.model_path}")

    @llama.llama_progress_callback  # type: ignore[untyped-decorator]
    def progress(fraction: float, _data: object) -> bool:
        on_progress(fraction)
        return True  # Returning false would abort the load; a runner is stopped from outside.

    params = llama.llama_model_default_params()
    params.n_gpu_layers = plan.n_gpu_layers
    params.load_mode = _LOAD_MODE_MMAP if plan.use_mmap else _LOAD_MODE_NONE
    params.progress_callback = progress
    model = llama.llama_model_load_from_file(plan.model_path.encode(), params)
    if not model:
        raise EngineRefused(
            FailureCode.NOT_A_MODEL,
            "llama.cpp cannot load this file: it is damaged, or of an architecture or type that "
            "this version does not know",
        )
    return model
