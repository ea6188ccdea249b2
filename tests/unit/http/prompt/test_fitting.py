"""What does not fit is left out in a sensible order, and always told."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ollamad.errors import ContextTooLong, TemplateBroken
from ollamad.http.prompt.fitting import (
    Fitted,
    Room,
    Truncation,
    fit,
    fit_text,
    leaving_order,
    room_for,
)
from ollamad.http.prompt.prompt import Message, Prompt
from ollamad.options import SamplingOptions


def said(role: str, content: str = "", **more: Any) -> Message:
    return {"role": role, "content": content, **more}


def called(content: str = "") -> Message:
    return said("assistant", content, tool_calls=[{"function": {"name": "f", "arguments": {}}}])


class Counting:
    """Renders messages as their contents, and has a token for each character."""

    def __init__(self) -> None:
        self.n_rendered = 0
        self.n_tokenized = 0
        self.n_bytes = 0

    def render(self, messages: Sequence[Message]) -> Prompt:
        self.n_rendered += 1
        return Prompt("".join(message["content"] for message in messages))

    async def tokenize(self, text: str, *, add_special: bool = True) -> tuple[int, ...]:
        self.n_tokenized += 1
        self.n_bytes += len(text)
        return tuple(text.encode())


def a_room(n_ctx: int, *, may_truncate: bool = True, **more: Any) -> Room:
    return Room(n_ctx=n_ctx, may_truncate=may_truncate, **more)


async def fitted(messages: Sequence[Message], room: Room) -> tuple[str, int, int]:
    """Return the text, how many messages were left out, and how often tokens were counted."""
    counting = Counting()
    fit_ = await fit(messages, counting.render, counting.tokenize, room)
    n_left_out = fit_.truncation.n_messages if fit_.truncation is not None else 0
    return fit_.prompt.text, n_left_out, counting.n_tokenized


async def result(messages: Sequence[Message], room: Room) -> Fitted:
    counting = Counting()
    return await fit(messages, counting.render, counting.tokenize, room)


# Whether anything goes


async def test_a_short_prompt_is_not_even_counted() -> None:
    assert await fitted([said("user", "abc")], a_room(100)) == ("abc", 0, 0)


async def test_a_prompt_that_just_fits_is_kept_whole() -> None:
    messages = [said("user", "a" * 5), said("user", "b" * 4)]

    assert await fitted(messages, a_room(10)) == ("aaaaabbbb", 0, 1)


async def test_a_prompt_must_leave_room_for_one_token() -> None:
    messages = [said("user", "a" * 5), said("user", "b" * 5)]

    assert await fitted(messages, a_room(10)) == ("bbbbb", 1, 2)


async def test_what_the_tokenizer_adds_is_reckoned_with() -> None:
    """Counting is only skipped when begin, end and a space in front would also fit."""

    async def tokenize(text: str, *, add_special: bool = True) -> tuple[int, ...]:
        return (1, 29871, *text.encode(), 2)

    messages = [said("user", "aaaa"), said("user", "bbb")]

    got = await fit(messages, Counting().render, tokenize, a_room(10))

    assert got == Fitted(
        Prompt("bbb"), Truncation(n_messages=1, n_tokens_before=10, n_tokens_after=6)
    )


async def test_the_context_before_a_prompt_counts_and_takes_its_special_tokens() -> None:
    seen: list[bool] = []

    async def tokenize(text: str, *, add_special: bool = True) -> tuple[int, ...]:
        seen.append(add_special)
        return tuple(text.encode())

    messages = [said("user", "aaaa"), said("user", "bbb")]

    got = await fit(messages, Counting().render, tokenize, a_room(10), context=(1, 2, 3, 4))

    assert got.prompt == Prompt("bbb")
    assert got.truncation == Truncation(n_messages=1, n_tokens_before=11, n_tokens_after=7)
    assert seen == [False, False]


async def test_what_is_left_out_is_logged_with_numbers_and_without_text(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)

    await fitted([said("user", "secret" * 3), said("user", "bbbbb")], a_room(10))

    (message,) = caplog.messages
    assert message == (
        "a prompt of 23 tokens does not fit into a context of 10: 1 of 2 messages left out, "
        "5 tokens are sent"
    )


# What goes


async def test_the_fewest_oldest_messages_are_left_out() -> None:
    messages = [said("user", letter * 3) for letter in "abcdefgh"]

    assert (await fitted(messages, a_room(11)))[:2] == ("fffggghhh", 5)


async def test_system_messages_stay_wherever_they_are() -> None:
    messages = [
        said("system", "S1."),
        said("user", "aaaa"),
        said("developer", "S2."),
        said("assistant", "bbbb"),
        said("user", "cccc"),
    ]

    assert (await fitted(messages, a_room(16)))[:2] == ("S1.S2.cccc", 2)


async def test_a_question_goes_with_its_answer_so_that_a_question_comes_first() -> None:
    messages = [said("user", "aa"), said("assistant", "bb"), said("user", "cc"), said("user", "dd")]

    assert (await fitted(messages, a_room(8)))[:2] == ("ccdd", 2)


async def test_the_last_message_stays_even_when_nothing_else_does() -> None:
    messages = [said("user", "a" * 50), said("assistant", "b" * 50), said("user", "last")]

    assert (await fitted(messages, a_room(5)))[:2] == ("last", 2)


@pytest.mark.parametrize(
    ("roles", "groups", "question"),
    [
        ("", [], []),
        ("u", [], []),
        ("su", [], []),
        ("uau", [[0, 1]], []),
        ("uauau", [[0, 1], [2, 3]], []),
        ("suausuau", [[1, 2], [3], [5, 6]], []),
        # An agent at work: its question stays, its first steps go, a call with its results.
        ("ucttctact", [[1, 2, 3], [4, 5], [6]], [0]),
        ("uauctct", [[0, 1], [3, 4]], [2]),
        # What comes before the first question is the oldest of all.
        ("auau", [[0], [1, 2]], []),
        ("tuct", [[0]], [1]),
        ("aa", [[0]], []),
        # A begun answer is the last message.
        ("uaua", [[0, 1]], [2]),
        # A system message between a call and its result parts them not.
        ("ucstu", [[0, 1, 3]], []),
        ("us", [], []),
    ],
)
def test_what_belongs_together_leaves_together_in_this_order(
    roles: str, groups: list[list[int]], question: list[int]
) -> None:
    made = {
        "u": said("user"),
        "a": said("assistant"),
        "s": said("system"),
        "c": called(),
        "t": said("tool"),
    }

    assert leaving_order([made[role] for role in roles]) == (groups, question)


async def test_results_never_stay_without_their_call() -> None:
    messages = [
        said("user", "question"),
        called("c1"),
        said("tool", "r" * 30),
        said("tool", "s" * 30),
        called("c2"),
        said("tool", "r2"),
    ]

    assert (await fitted(messages, a_room(40)))[:2] == ("questionc2r2", 3)


async def test_a_question_too_long_for_its_last_call_goes_at_last() -> None:
    messages = [said("user", "q" * 50), called("c1"), said("tool", "r1")]

    assert (await fitted(messages, a_room(40)))[:2] == ("c1r1", 1)


async def test_a_template_that_wants_a_question_keeps_it() -> None:
    def render(messages: Sequence[Message]) -> Prompt:
        if messages[0]["role"] != "user":
            raise TemplateBroken("a question is wanted")
        return Counting().render(messages)

    messages = [said("user", "q" * 50), called("c1"), said("tool", "r1")]

    with pytest.raises(ContextTooLong, match="has 54 tokens"):
        await fit(messages, render, Counting().tokenize, a_room(40))


# Room for the answer


@pytest.mark.parametrize(
    ("n_ctx", "n_predict", "n_answer"),
    [
        (8192, -1, 1024),
        (131072, -1, 1024),
        (2048, -1, 256),
        (2048, 0, 256),
        (2048, 100, 100),
        (2048, 512, 512),
        (2048, 100_000, 512),
        (4, -1, 1),
    ],
)
def test_an_answer_gets_what_it_asks_for_within_reason(
    n_ctx: int, n_predict: int, n_answer: int
) -> None:
    sampling = SamplingOptions(num_predict=n_predict)

    room = room_for(n_ctx, sampling, may_truncate=True, shift=True, add_bos=False)

    assert room.n_answer == n_answer


@pytest.mark.parametrize(
    ("n_keep", "add_bos", "may_truncate", "shift", "kept"),
    [
        (4, True, True, True, 5),
        (4, False, True, True, 4),
        (-1, True, True, True, -1),
        (4, True, True, False, None),
        (4, True, False, True, None),
    ],
)
def test_a_cut_is_allowed_by_truncating_and_shifting_and_keeps_the_beginning(
    *, n_keep: int, add_bos: bool, may_truncate: bool, shift: bool, kept: int | None
) -> None:
    sampling = SamplingOptions(num_keep=n_keep)

    room = room_for(100, sampling, may_truncate=may_truncate, shift=shift, add_bos=add_bos)

    assert room.n_keep == kept


async def test_messages_go_to_leave_room_for_the_answer() -> None:
    messages = [said("user", letter * 10) for letter in "abc"]

    assert (await fitted(messages, a_room(40, n_answer=11)))[:2] == ("b" * 10 + "c" * 10, 1)


async def test_nothing_goes_when_that_would_not_make_the_room() -> None:
    messages = [said("user", "a"), said("user", "b" * 30)]

    assert (await fitted(messages, a_room(40, n_answer=20)))[:2] == ("a" + "b" * 30, 0)


async def test_a_prompt_that_cannot_leave_that_room_loses_only_what_it_must() -> None:
    messages = [said("user", "a"), said("user", "c" * 9), said("user", "b" * 30)]

    assert (await fitted(messages, a_room(40, n_answer=20)))[:2] == ("c" * 9 + "b" * 30, 1)


# What cannot fit


@pytest.mark.parametrize("messages", [[said("user", "x" * 20)], [said("system", "x" * 20)] * 2])
async def test_what_cannot_be_made_to_fit_is_refused_with_the_numbers(
    messages: list[Message],
) -> None:
    n_tokens = 20 * len(messages)

    with pytest.raises(ContextTooLong, match=f"has {n_tokens} tokens, .* holds 10; .*num_ctx") as e:
        await fitted(messages, a_room(10))

    assert (e.value.n_prompt, e.value.n_ctx) == (n_tokens, 10)


async def test_the_numbers_are_those_of_the_shortest_try() -> None:
    messages = [said("user", "a" * 100), said("system", "s" * 5), said("user", "b" * 20)]

    with pytest.raises(ContextTooLong, match="has 25 tokens"):
        await fitted(messages, a_room(10))


async def test_nothing_is_left_out_unless_it_may_be() -> None:
    messages = [said("user", "a" * 20), said("user", "b")]

    with pytest.raises(ContextTooLong, match="has 21 tokens, but the context holds 10"):
        await fitted(messages, a_room(10, may_truncate=False))


async def test_room_for_an_answer_is_not_asked_of_what_may_not_be_truncated() -> None:
    room = a_room(10, may_truncate=False, n_answer=5)

    assert await fitted([said("user", "a" * 9)], room) == ("a" * 9, 0, 1)


async def test_no_messages_at_all_are_an_empty_prompt() -> None:
    assert await fitted([], a_room(4)) == ("", 0, 0)
    with pytest.raises(ContextTooLong, match="has 0 tokens, but the context holds 0"):
        await fitted([], a_room(0))


# The cut


async def test_what_still_does_not_fit_loses_its_middle_when_it_may() -> None:
    """Four tokens are kept, and half of the other twelve is free: six of the last ones stay."""
    text = "".join(chr(ord("A") + n) for n in range(26))

    got = await result([said("user", "gone"), said("user", text)], a_room(16, n_keep=4))

    assert got.prompt == Prompt(text, tokens=tuple(b"ABCDUVWXYZ"))
    assert got.truncation == Truncation(
        n_messages=1, n_tokens_before=30, n_tokens_after=10, is_cut=True
    )


@pytest.mark.parametrize("n_keep", [-1, 15, 1000])
async def test_a_cut_that_keeps_everything_keeps_what_leaves_one_token(n_keep: int) -> None:
    got = await result([said("user", "x" * 5 + "y" * 20)], a_room(10, n_keep=n_keep))

    assert bytes(got.prompt.tokens) == b"xxxxxyyyy"


async def test_a_text_without_messages_is_cut_behind_its_context() -> None:
    counting = Counting()
    room = a_room(10, n_keep=4)
    text = Prompt("abcdefghij")

    got = await fit_text(text, counting.tokenize, room, context=tuple(b"ABCDEF"))

    assert bytes(got.prompt.tokens) == b"ABCDhij"
    with pytest.raises(ContextTooLong):
        await fit_text(text, counting.tokenize, a_room(10))
    assert await fit_text(Prompt("abc"), counting.tokenize, room) == Fitted(Prompt("abc"))


# What it costs


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["system", "user"]), st.integers(0, 9)), max_size=40),
    st.integers(1, 60),
)
async def test_as_much_as_possible_is_kept_with_few_calls_of_the_tokenizer(
    sizes: list[tuple[str, int]], n_ctx: int
) -> None:
    messages = [said(role, "x" * size) for role, size in [*sizes, ("user", 1)]]
    droppable = [size for role, size in sizes if role == "user"]
    total = sum(len(message["content"]) for message in messages)
    fewest = next(
        (n for n in range(len(droppable) + 1) if total - sum(droppable[:n]) < n_ctx), None
    )
    if fewest is None:
        with pytest.raises(ContextTooLong):
            await fitted(messages, a_room(n_ctx))
        return

    text, n_left_out, n_tokenized = await fitted(messages, a_room(n_ctx))

    assert (len(text), n_left_out) == (total - sum(droppable[:fewest]), fewest)
    assert n_tokenized <= 2 + math.ceil(math.log2(max(len(droppable), 1)))


async def test_a_huge_conversation_costs_little_more_than_reading_it_twice() -> None:
    counting = Counting()
    turns = [said("user", "q" * 500), said("assistant", "a" * 500)] * 5000
    messages = [*turns, said("user", "last")]

    got = await fit(messages, counting.render, counting.tokenize, a_room(8192, n_answer=1024))

    assert len(got.prompt.text) == 7004
    assert counting.n_rendered <= math.log2(5000) + 3
    assert counting.n_bytes < 2.1 * 5_000_000


ROLES = st.lists(st.sampled_from("uacts"), min_size=1, max_size=25)


@settings(max_examples=200, deadline=None)
@given(ROLES, st.integers(1, 60))
async def test_whatever_is_said_what_is_sent_fits_and_keeps_what_belongs_together(
    roles: list[str], n_ctx: int
) -> None:
    names = {"u": "user", "a": "assistant", "c": "assistant", "t": "tool", "s": "system"}
    messages = [
        said(names[role], "xxx", n=n, **({"tool_calls": [1]} if role == "c" else {}))
        for n, role in enumerate(roles)
    ]
    kept: list[list[int]] = []

    def render(some: Sequence[Message]) -> Prompt:
        kept.append([message["n"] for message in some])
        return Prompt("xxx" * len(some))

    try:
        got = await fit(messages, render, Counting().tokenize, a_room(n_ctx))
    except ContextTooLong:
        assert n_ctx <= 3 * len(roles)
        return

    assert len(got.prompt.text) < n_ctx
    sent = next(numbers for numbers in kept if 3 * len(numbers) == len(got.prompt.text))
    assert {n for n, role in enumerate(roles) if role == "s"} <= set(sent)
    assert len(roles) - 1 in sent
    talk = [n for n in range(len(roles)) if roles[n] != "s"]
    for before, after in itertools.pairwise(talk):
        if roles[after] == "t":
            assert (before in sent) == (after in sent)
