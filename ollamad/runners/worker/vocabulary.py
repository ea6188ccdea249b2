"""Texts to tokens and tokens to bytes, by a model's own vocabulary."""

from __future__ import annotations

import ctypes
from typing import Any, Final

from ollamad.runners.protocol import FailureCode
from ollamad.runners.worker.bindings import llama
from ollamad.runners.worker.engine import EngineRefused

_PIECE_BYTES_MAX: Final = 1 << 16


def tokenize(vocab: Any, text: str, *, add_special: bool, parse_special: bool = True) -> list[int]:
    """Return the token ids of *text*; special tokens in it are read as such, or as any text."""
    data = text.encode("utf-8", errors="replace")
    room = len(data) + 8  # A token has at least one byte, but for the few added ones.
    tokens = (ctypes.c_int32 * room)()
    count = llama.llama_tokenize(vocab, data, len(data), tokens, room, add_special, parse_special)
    if count < 0:
        raise EngineRefused(FailureCode.BAD_REQUEST, "the text cannot be tokenized")
    return tokens[:count]


def all_pieces(vocab: Any, n_vocab: int) -> list[bytes]:
    """Return the bytes of every token, control tokens included: `piece_of` for all at once."""
    size = 1024
    buffer = ctypes.create_string_buffer(size)
    at, to_piece = ctypes.addressof(buffer), llama.llama_token_to_piece
    pieces = []
    for token in range(n_vocab):
        count = to_piece(vocab, token, buffer, size, 0, True)
        if count < 0:
            pieces.append(piece_of(vocab, token, shows_special=True))
        else:
            pieces.append(ctypes.string_at(at, count))
    return pieces


def piece_of(vocab: Any, token: int, *, shows_special: bool) -> bytes:
    """Return the bytes of a token; control tokens have none unless *shows_special*."""
    size = 64
    while True:
        buffer = ctypes.create_string_buffer(size)
        count: int = llama.llama_token_to_piece(vocab, token, buffer, size, 0, shows_special)
        if count >= 0:
            return buffer.raw[:count]
        size = min(-count, _PIECE_BYTES_MAX)
