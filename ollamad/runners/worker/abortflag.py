"""Ends a running computation of llama.cpp early, from any thread."""

from __future__ import annotations

import ctypes
from typing import Any

from ollamad.runners.worker.bindings import llama


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
