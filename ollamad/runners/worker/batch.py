"""llama.cpp's batch, filled through numpy views of its arrays."""

from __future__ import annotations

import ctypes
import dataclasses
import enum
from collections.abc import Sequence
from typing import Final

import numpy as np

from ollamad.runners.worker.bindings import llama
from ollamad.runners.worker.prefixtree import SequenceId
from ollamad.runners.worker.tokens import Tokens


class DecodeOutcome(enum.Enum):
    """What became of a batch."""

    DONE = "done"
    ABORTED = "aborted"
    NO_ROOM = "no room in the KV cache"
    FAILED = "failed"


@dataclasses.dataclass(slots=True)
class Part:
    """The tokens of one sequence in a batch."""

    sequence: SequenceId
    position: int
    """Of the first token."""
    tokens: Tokens
    wants_logits: bool
    """Of the last token."""


class Batch:
    """Room for the tokens of one step."""

    def __init__(self, n_tokens_max: int) -> None:
        self.n_tokens_max: Final = n_tokens_max
        self.handle = llama.llama_batch_init(n_tokens_max, 0, 1)
        shape = (n_tokens_max,)
        as_array = np.ctypeslib.as_array
        self._token = as_array(self.handle.token, shape=shape)
        self._position = as_array(self.handle.pos, shape=shape)
        self._logits = as_array(self.handle.logits, shape=shape)
        self._counting = np.arange(n_tokens_max, dtype=np.int32)
        as_array(self.handle.n_seq_id, shape=shape)[:] = 1
        # Each token's list of sequence ids is one number; the batch holds a pointer to each.
        self._sequence = np.zeros(shape, dtype=np.int32)
        pointers = as_array(
            ctypes.cast(self.handle.seq_id, ctypes.POINTER(ctypes.c_uint64)), shape=shape
        )
        first, size = self._sequence.ctypes.data, self._sequence.itemsize
        pointers[:] = first + size * np.arange(n_tokens_max, dtype=np.uint64)

    def fill(self, parts: Sequence[Part]) -> None:
        """Write *parts*, one after the other."""
        row = 0
        for part in parts:
            length = len(part.tokens)
            end = row + length
            self._token[row:end] = part.tokens
            if length == 1:
                self._position[row] = part.position
            else:
                np.add(self._counting[:length], part.position, out=self._position[row:end])
                self._logits[row:end] = 0
            self._sequence[row:end] = part.sequence
            self._logits[end - 1] = part.wants_logits
            row = end
        self.handle.n_tokens = row

    def mark_all(self) -> None:
        """Want an output of every token."""
        self._logits[: self.handle.n_tokens] = 1
