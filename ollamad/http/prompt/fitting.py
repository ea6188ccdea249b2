"""The context policy: what is sent of a conversation that does not fit into the context.

Nothing is lost silently: what was left out is told as a `Truncation`, and what cannot be made to
fit is refused with the numbers. What goes first and what stays is decided by `leaving_order`; how
much goes is found by bisection, since a template may write a message longer or shorter depending on
the others, and only a tokenizer can count.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from ollamad.errors import ContextTooLong, TemplateBroken
from ollamad.http.prompt.prompt import Message, Prompt
from ollamad.options import SamplingOptions

ANSWER_TOKENS: Final = 1024
"""Room that is kept for an answer, at most, when the request does not say how long it may be."""
ANSWER_SHARE: Final = 8
"""That room is at most this fraction of the context, so that small contexts hold a question too."""
STATED_SHARE: Final = 4
"""A stated length gets at most this fraction: few answers are as long as they may be, and what
makes room for them is lost for certain."""

_TOKENS_ADDED_MAX: Final = 3
"""What tokenizers add to a text: its begin, its end, and some a space in front."""
_STAYING: Final = frozenset({"system", "developer"})
"""Roles whose messages are never left out: they tell the model what it is."""

_log = logging.getLogger(__name__)


class Tokenize(Protocol):
    """Counts tokens."""

    async def __call__(self, text: str, *, add_special: bool = True) -> tuple[int, ...]:
        """Return the token ids of *text*."""
        ...


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What a prompt has to fit into."""

    n_ctx: int
    """Tokens of prompt and answer together."""
    n_answer: int = 1
    """Tokens that truncation leaves for the answer, where leaving out messages can."""
    may_truncate: bool = False
    """Messages may be left out."""
    n_keep: int | None = None
    """When leaving out messages is not enough, the prompt's middle is cut out after so many tokens
    (negative: as many as there are). `None` is never."""

    @property
    def n_prompt_max(self) -> int:
        """Tokens that a prompt may have and nothing need be done."""
        return self.n_ctx - (self.n_answer if self.may_truncate else 1)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Truncation:
    """What was left out of a conversation."""

    n_messages: int
    """Messages that were left out."""
    n_tokens_before: int
    """Tokens of the whole prompt."""
    n_tokens_after: int
    """Tokens of what is sent."""
    is_cut: bool = False
    """The middle of what was left was cut out, too."""


@dataclasses.dataclass(frozen=True, slots=True)
class Fitted:
    """A prompt that fits."""

    prompt: Prompt
    truncation: Truncation | None = None
    """What it does without; `None` when it is whole."""


def room_for(
    n_ctx: int, sampling: SamplingOptions, *, may_truncate: bool, shift: bool, add_bos: bool
) -> Room:
    """Return the room that a request's options leave in a context.

    *shift* allows to cut the prompt's middle, as Ollama does; *add_bos* says that the tokenizer
    puts a token in front, which is kept beside the `num_keep` that were asked for.
    """
    if sampling.num_predict > 0:
        n_answer = min(sampling.num_predict, n_ctx // STATED_SHARE)
    else:
        n_answer = min(ANSWER_TOKENS, n_ctx // ANSWER_SHARE)
    n_keep = sampling.num_keep + (add_bos and sampling.num_keep >= 0)
    return Room(
        n_ctx=n_ctx,
        n_answer=max(n_answer, 1),
        may_truncate=may_truncate,
        n_keep=n_keep if may_truncate and shift else None,
    )


async def fit(
    messages: Sequence[Message],
    render: Callable[[Sequence[Message]], Prompt],
    tokenize: Tokenize,
    room: Room,
    *,
    context: tuple[int, ...] = (),
) -> Fitted:
    """Return the prompt of as much of a conversation as fits behind *context*.

    1. All of it fits, with room for an answer if messages may be left out: nothing is done.
    2. Messages may not be left out: it must fit with one token of an answer, or is refused.
    3. The fewest groups of messages go that make room for the prompt and the answer.
    4. Where all of them would not make that room, one token of an answer is enough.
    5. Where the question itself is what is too long for the last answers to its calls, it goes.
    6. The middle is cut out of what is left, if that is allowed.
    7. It is refused.

    Raises ContextTooLong, and TemplateBroken. A conversation of n messages costs at most
    log2(n) + 3 renderings and tokenizings; each step of the bisection halves what is too long, so
    that all of them together cost little more than the first.
    """
    whole = render(messages)
    n_chars = len(whole.text.encode())
    # A token has at least one byte, so a short text needs no counting.
    if n_chars + _TOKENS_ADDED_MAX + len(context) <= room.n_prompt_max:
        return Fitted(whole)
    trial = _Trial(messages, render, tokenize, context)
    before = await trial.counted(whole)
    if before.n_tokens <= room.n_prompt_max:  # 1
        return Fitted(whole)
    if not room.may_truncate:  # 2
        raise _too_long(before, room)
    groups, question = leaving_order(messages)
    least = await trial.without(groups) if groups else before
    n_max = room.n_prompt_max
    if least.n_tokens > n_max:
        n_max = room.n_ctx - 1  # 4
        if before.n_tokens <= n_max:
            return Fitted(whole)
    if least.n_tokens > n_max and question:
        least = await _without_question(trial, least, [*groups, question], n_max)  # 5
    elif least.n_tokens <= n_max:
        least = await _fewest(trial, groups, least, n_max)  # 3
    if least.n_tokens > n_max:
        if room.n_keep is None:  # 7
            raise _too_long(least, room)
        least = _cut(least, room.n_keep, room.n_ctx)  # 6
    truncation = Truncation(
        n_messages=least.n_left_out,
        n_tokens_before=before.n_tokens,
        n_tokens_after=least.n_tokens,
        is_cut=bool(least.prompt.tokens),
    )
    _log.info(
        "a prompt of %d tokens does not fit into a context of %d: %d of %d messages left out%s, "
        "%d tokens are sent",
        truncation.n_tokens_before,
        room.n_ctx,
        truncation.n_messages,
        len(messages),
        " and the middle cut out" if truncation.is_cut else "",
        truncation.n_tokens_after,
    )
    return Fitted(least.prompt, truncation)


async def fit_text(
    prompt: Prompt, tokenize: Tokenize, room: Room, *, context: tuple[int, ...] = ()
) -> Fitted:
    """Return a prompt without messages, its middle cut out if need be. Raises ContextTooLong."""
    return await fit((), lambda _: prompt, tokenize, room, context=context)


def leaving_order(messages: Sequence[Message]) -> tuple[list[list[int]], list[int]]:
    """Return the positions of what may be left out, group by group, and those of the question.

    Groups go in this order: the turns before the last question, the oldest first, each from its
    question to the next one, so that what remains begins with a question as templates demand; then
    what came of the last question, the oldest first. A call stays with its results. The question
    itself goes only when all of that was not enough; it is empty where it may not go at all.
    The last message stays, with its call if it is a result, and so do system messages.
    """
    parts: list[list[int]] = []
    for position, message in enumerate(messages):
        if message["role"] in _STAYING:
            continue
        if message["role"] == "tool" and parts:
            parts[-1].append(position)
        else:
            parts.append([position])
    asks = [messages[part[0]]["role"] == "user" for part in parts]
    last_question = max((n for n, is_asked in enumerate(asks) if is_asked), default=-1)
    groups: list[list[int]] = []
    for part, is_asked in zip(parts[: max(last_question, 0)], asks, strict=False):
        if is_asked or not groups:
            groups.append([])
        groups[-1] += part
    groups += parts[last_question + 1 : -1]
    goes_last = 0 <= last_question < len(parts) - 1
    return groups, parts[last_question] if goes_last else []


@dataclasses.dataclass(frozen=True, slots=True)
class _Tried:
    """A prompt that was counted."""

    prompt: Prompt
    tokens: tuple[int, ...]
    """Of the context before it and its own."""
    n_left_out: int = 0

    @property
    def n_tokens(self) -> int:
        return len(self.tokens)


class _Trial:
    """Renders and counts parts of one conversation."""

    def __init__(
        self,
        messages: Sequence[Message],
        render: Callable[[Sequence[Message]], Prompt],
        tokenize: Tokenize,
        context: tuple[int, ...],
    ) -> None:
        self._messages = messages
        self._render = render
        self._tokenize = tokenize
        self._context = context

    async def counted(self, prompt: Prompt, n_left_out: int = 0) -> _Tried:
        add_special = prompt.add_special and not self._context
        tokens = await self._tokenize(prompt.text, add_special=add_special)
        return _Tried(prompt, (*self._context, *tokens), n_left_out)

    async def without(self, groups: Sequence[Sequence[int]]) -> _Tried:
        gone = {position for group in groups for position in group}
        left = [message for n, message in enumerate(self._messages) if n not in gone]
        return await self.counted(self._render(left), len(gone))


async def _fewest(
    trial: _Trial, groups: Sequence[Sequence[int]], all_gone: _Tried, n_max: int
) -> _Tried:
    """Return what remains when the fewest of *groups* go, the first ones, that make it fit."""
    too_few, enough, best = 0, len(groups), all_gone
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        tried = await trial.without(groups[:middle])
        if tried.n_tokens <= n_max:
            best, enough = tried, middle
        else:
            too_few = middle
    return best


async def _without_question(
    trial: _Trial, least: _Tried, groups: Sequence[Sequence[int]], n_max: int
) -> _Tried:
    """Return what remains without the question, if that is better than nothing."""
    try:
        tried = await trial.without(groups)
    except TemplateBroken:
        return least  # Some templates refuse answers that nobody asked for.
    return tried if tried.n_tokens <= n_max else least


def _cut(tried: _Tried, n_keep: int, n_ctx: int) -> _Tried:
    """Return the first *n_keep* tokens and the last ones, so that half of the rest is free."""
    n_first = min(n_keep if n_keep >= 0 else tried.n_tokens, n_ctx - 1)
    n_last = n_ctx - max((n_ctx - n_first) // 2, 1) - n_first
    tokens = tried.tokens[:n_first] + tried.tokens[tried.n_tokens - n_last :]
    return _Tried(dataclasses.replace(tried.prompt, tokens=tokens), tokens, tried.n_left_out)


def _too_long(tried: _Tried, room: Room) -> ContextTooLong:
    return ContextTooLong(
        f"the prompt has {tried.n_tokens} tokens, but the context holds {room.n_ctx}; shorten the "
        "prompt, or raise num_ctx if the model allows it",
        n_prompt=tried.n_tokens,
        n_ctx=room.n_ctx,
    )
