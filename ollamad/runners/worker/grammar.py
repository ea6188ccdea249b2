"""Grammars through llguidance: what the next token may be, and which tokens are left no choice.

The only importer of llguidance. Grammars are compiled, and masks computed, in a thread beside the
engine's: while a batch is computed, the masks for the tokens after it are. A grammar belongs to one
request; whatever is wrong with it ends that request only.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from concurrent import futures
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final, assert_never

import llguidance
import numpy as np
from llguidance.gbnf_to_lark import any_to_lark

from ollamad.runners.protocol import FailureCode, Grammar, GrammarKind
from ollamad.runners.worker.bindings import llama
from ollamad.runners.worker.engine import EngineRefused
from ollamad.runners.worker.llama import LlamaModel
from ollamad.runners.worker.sampling.mask import TokenMask
from ollamad.runners.worker.vocabulary import all_pieces

_JSON_STYLE: Final[Any] = {  # The stub's type for it is not importable.
    # One way to space JSON, the one most models have seen most. Where there is one way, keys and
    # punctuation need not be chosen: they are forced.
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
}
_ANY_OBJECT: Final = '{"type": "object"}'
_CONTROL: Final = 1 << 3
"""llama.cpp's attribute of control tokens."""
_WORD_BITS: Final = 32


class Grammars:
    """Makes constraints for one model's vocabulary."""

    def __init__(self, model: LlamaModel) -> None:
        self._model = model
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="grammar")

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown()

    def constraint(self, grammar: Grammar, answered: Sequence[int]) -> Constraint:
        """Return a constraint that is being made, for an answer that begins with *answered*."""
        matcher = self._thread.submit(self._matcher, grammar, list(answered))
        return Constraint(matcher, self._thread, self._model.n_vocab)

    def _matcher(self, grammar: Grammar, answered: list[int]) -> llguidance.LLMatcher:
        source = _source(grammar)
        matcher = llguidance.LLMatcher(self._tokenizer, source, log_level=0)
        if matcher.is_error():
            raise EngineRefused(
                FailureCode.BAD_REQUEST, _explained(grammar.kind, matcher.get_error())
            )
        if answered and not matcher.consume_tokens(answered):
            raise EngineRefused(
                FailureCode.BAD_REQUEST, "what was answered already does not follow the grammar"
            )
        return matcher

    @functools.cached_property
    def _tokenizer(self) -> llguidance.LLTokenizer:
        """The vocabulary as llguidance has it: made once, at the first grammar."""
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
        self._words = np.zeros(-(-n_vocab // _WORD_BITS), dtype=np.uint32)
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


def _source(grammar: Grammar) -> str:
    """Return llguidance's form of a grammar. Raises EngineRefused."""
    matcher = llguidance.LLMatcher
    try:
        match grammar.kind:
            case GrammarKind.JSON:
                return matcher.grammar_from_json_schema(_ANY_OBJECT, overrides=_JSON_STYLE)
            case GrammarKind.JSON_SCHEMA:
                return matcher.grammar_from_json_schema(grammar.text, overrides=_JSON_STYLE)
            case GrammarKind.REGEX:
                return matcher.grammar_from_regex(grammar.text)
            case GrammarKind.LARK:
                return matcher.grammar_from_lark(grammar.text)
            case GrammarKind.GBNF:
                return matcher.grammar_from_lark(any_to_lark(grammar.text))
            case _:
                assert_never(grammar.kind)
    except Exception as exc:  # llguidance raises what its parsers happen to.
        raise EngineRefused(FailureCode.BAD_REQUEST, _explained(grammar.kind, str(exc))) from exc


def _explained(kind: GrammarKind, reason: str) -> str:
    first_line = reason.strip().partition("\n")[0]
    return f"the {kind.value.replace('_', ' ')} cannot be kept to: {first_line}"
