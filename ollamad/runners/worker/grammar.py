"""Grammars through llguidance: what the next token may be, and which tokens are left no choice.

The only importer of llguidance. Grammars are compiled in one thread beside the engine's, and masks
computed in another: while a batch is computed, the masks for the tokens after it are, and no
grammar, however large, keeps those of other answers waiting. A grammar belongs to one request;
whatever is wrong with it ends that request only.
"""

from __future__ import annotations

import ctypes
import functools
import json
import threading
from collections.abc import Callable, Sequence
from concurrent import futures
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final, TypeVar

import llguidance
import numpy as np
import numpy.typing as npt
from llguidance.gbnf_to_lark import any_to_lark

from ollamad.runners.protocol import FailureCode, Grammar, GrammarKind
from ollamad.runners.worker.bindings import llama
from ollamad.runners.worker.engine import EngineRefused
from ollamad.runners.worker.grammarsource import MarkPart, ToLark, source_of
from ollamad.runners.worker.llama import LlamaModel
from ollamad.runners.worker.sampling.mask import TokenMask
from ollamad.runners.worker.vocabulary import all_pieces, piece_of, tokenize

COMPILE_STACK_BYTES: Final = 256 << 20
"""Stack of the thread that compiles. llguidance follows references recursively, and with the usual
8 MiB a chain of a thousand ended the process. What is not used takes an address and no memory."""
LEXER_STATES_MAX: Final = 50_000
"""States of one grammar's lexer, of up to 2 kB each. One that needs more ends its answer."""
ROW_ITEMS_MAX: Final = 8_000
"""Ways to go on that the parser keeps at a place: those of a thousand optional properties."""
REASON_CHARS_MAX: Final = 300
"""How much of the library's words is told."""

T = TypeVar("T")

_CONTROL: Final = 1 << 3
"""llama.cpp's attribute of control tokens."""
_WORD_BITS: Final = 32


def _regex_to_lark(text: str) -> str:
    source = json.loads(llguidance.LLMatcher.grammar_from_regex(text))
    lark: str = source["grammars"][0]["lark_grammar"]
    return lark


_TO_LARK: Final[ToLark] = {
    GrammarKind.REGEX: _regex_to_lark,
    GrammarKind.LARK: str,
    GrammarKind.GBNF: any_to_lark,
}

_ERROR: Final = "error: "
_IN_OUR_WORDS: Final = {
    "NoExtensionBias": "no answer keeps to it",
    "lexer precomputation failed": "it is too large",
    "initial lexer configuration": "it is too large",
    "schema too large": "it is too large",
    "items; max is": "it is too large",
    "maximum recursion depth": "it is nested too deeply",
    "oneOf constraints are not supported": '"oneOf" is possible only where its schemas cannot '
    'overlap, such as by a property with a "const" of its own; use "anyOf"',
}


class Grammars:
    """Makes constraints for one model's vocabulary."""

    def __init__(self, model: LlamaModel) -> None:
        self._model = model
        self._compiling = ThreadPoolExecutor(max_workers=1, thread_name_prefix="grammar")
        self._masking = ThreadPoolExecutor(max_workers=1, thread_name_prefix="masks")
        self._limits = llguidance.LLParserLimits(
            max_lexer_states=LEXER_STATES_MAX,
            max_items_in_row=ROW_ITEMS_MAX,
            verbose_errors=False,  # They would repeat the answer so far.
        )

    def close(self) -> None:
        """End the threads."""
        self._compiling.shutdown()
        self._masking.shutdown()

    def get_ready(self) -> None:
        """Make in advance what the first grammar needs. Returns at once.

        The library keeps the interpreter meanwhile: 0.1 s for 49 thousand tokens, 0.85 s for 262
        thousand. So this is for a time at which nobody waits for anything.
        """
        self._submit(lambda: self._tokenizer)

    def constraint(self, grammar: Grammar, answered: Sequence[int]) -> Constraint:
        """Return a constraint that is being made, for an answer that begins with *answered*."""
        matcher = self._submit(lambda: self._matcher(grammar, list(answered)))
        return Constraint(matcher, self._masking, self._model.n_vocab)

    def _submit(self, work: Callable[[], T]) -> Future[T]:
        before = threading.stack_size(COMPILE_STACK_BYTES)  # The first work makes the thread.
        try:
            return self._compiling.submit(work)
        finally:
            threading.stack_size(before)

    def _matcher(self, grammar: Grammar, answered: list[int]) -> llguidance.LLMatcher:
        """Compile *grammar*, and see that it allows a first token."""
        try:
            source = source_of(grammar, self._split, _TO_LARK)
        except Exception as exc:  # llguidance raises what its parsers happen to.
            raise _refused(grammar.kind, str(exc)) from exc
        matcher = llguidance.LLMatcher(self._tokenizer, source, log_level=0, limits=self._limits)
        if not matcher.is_error():
            words = _mask_words(self._model.n_vocab)
            matcher.unsafe_compute_mask_ptr(words.ctypes.data, words.nbytes)
        if matcher.is_error():
            raise _refused(grammar.kind, matcher.get_error())
        if answered and not matcher.consume_tokens(answered):
            raise EngineRefused(
                FailureCode.BAD_REQUEST, "what was answered already does not follow the grammar"
            )
        return matcher

    def _split(self, mark: str) -> list[MarkPart]:
        """Take a mark apart into control tokens, and the texts between them."""
        vocab = self._model.vocab_handle
        parts: list[MarkPart] = []
        text = b""
        for token in tokenize(vocab, mark, add_special=False):
            piece = piece_of(vocab, token, shows_special=True)
            if llama.llama_vocab_get_attr(vocab, token) & _CONTROL:
                parts += _text_part(text)
                parts.append(MarkPart(piece.decode(errors="replace"), token))
                text = b""
            else:
                text += piece
        if not parts:
            return [MarkPart(mark)]  # A tokenizer may add white space of its own.
        return parts + _text_part(text)

    @functools.cached_property
    def _tokenizer(self) -> llguidance.LLTokenizer:
        """The vocabulary as llguidance has it: made once, some 420 bytes a token."""
        vocab = self._model.vocab_handle
        attributes = llama.llama_vocab_get_attr
        pieces = [
            # llguidance's mark of tokens that are not text.
            b"\xff" + piece if attributes(vocab, token) & _CONTROL else piece
            for token, piece in enumerate(all_pieces(vocab, self._model.n_vocab))
        ]
        # The function that the Python wrapper hides: llguidance calls it without Python.
        function = ctypes.cast(llama.llama_tokenize, ctypes.c_void_p).value
        make: Any = llguidance.LLTokenizer
        tokenizer: llguidance.LLTokenizer = make.from_llamacpp(
            tokens=pieces,
            vocab_ptr=vocab,
            tokenize_fptr=function,
            eos_token=list(self._model.end_tokens) or [llama.llama_vocab_eos(vocab)],
            slices=None,
        )
        return tokenizer


class Constraint:
    """What one answer may still be. Called from the engine's thread."""

    def __init__(
        self, matcher: Future[llguidance.LLMatcher], thread: ThreadPoolExecutor, n_vocab: int
    ) -> None:
        self._made = matcher
        self._thread = thread
        self._n_vocab = n_vocab
        self._words = _mask_words(n_vocab)
        self._computed: Future[None] | None = None

    @property
    def is_ready(self) -> bool:
        """The grammar is compiled, or has failed."""
        return self._made.done()

    def wait(self, patience_s: float) -> None:
        """Wait a little for `is_ready`."""
        futures.wait((self._made,), timeout=patience_s)

    def prepare(self) -> None:
        """Begin to compute the mask of the next token, beside whatever the engine does now.

        Raises EngineRefused if the grammar turned out wrong. Waits for it if not `is_ready`.
        """
        if self._computed is None:
            self._computed = self._thread.submit(self._compute, self._made.result())

    def _compute(self, matcher: llguidance.LLMatcher) -> None:
        matcher.unsafe_compute_mask_ptr(self._words.ctypes.data, self._words.nbytes)

    def mask(self) -> TokenMask:
        """Return which tokens may come next. Raises EngineRefused."""
        self.prepare()
        assert self._computed is not None  # noqa: S101 - prepare has set it
        self._computed.result()
        self._check_matcher()
        return TokenMask(self._words, self._n_vocab)

    def accept(self, token: int, *, fast_forward: bool) -> tuple[list[int], bool]:
        """Take a chosen token; return the tokens that must follow, and whether that is all.

        Raises EngineRefused.
        """
        self._computed = None
        matcher = self._made.result()
        if not matcher.consume_token(token):
            self._check_matcher()
        forced = list(matcher.compute_ff_tokens()) if fast_forward else []
        if forced:
            matcher.consume_tokens(forced)
        self._check_matcher()
        return forced, matcher.is_stopped()

    def _check_matcher(self) -> None:
        matcher = self._made.result()
        if matcher.is_error():
            raise EngineRefused(
                FailureCode.ENGINE, f"the answer left its grammar: {matcher.get_error()}"
            )


def _text_part(text: bytes) -> list[MarkPart]:
    return [MarkPart(text.decode(errors="replace"))] if text else []


def _mask_words(n_vocab: int) -> npt.NDArray[np.uint32]:
    return np.zeros(-(-n_vocab // _WORD_BITS), dtype=np.uint32)


def _refused(kind: GrammarKind, reason: str) -> EngineRefused:
    """Return the error about a grammar, in our words where the library's are for its programmers.

    It begins with what was read; an error within a regular expression is a line of its own.
    """
    lines = reason.strip().split("\n")
    said = next((ours for theirs, ours in _IN_OUR_WORDS.items() if theirs in lines[0]), lines[0])
    error = next((line for line in lines if line.startswith(_ERROR)), None)
    if error is not None:
        said = f"{error.removeprefix(_ERROR)}: {said}"
    language = kind.value.replace("_", " ")
    return EngineRefused(
        FailureCode.BAD_REQUEST, f"the {language} cannot be kept to: {said[:REASON_CHARS_MAX]}"
    )
