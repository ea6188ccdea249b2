"""What a choice of tools makes of an answer's grammar, and of the prompt. No engine."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, cast

import pytest

from ollamad.errors import CapabilityMissing, InvalidBody
from ollamad.http.answer.format import format_of
from ollamad.http.chatting import (
    ChatAsked,
    ChatStream,
    ToolChoice,
    ToolMode,
    check_tools,
    prepare,
    render,
    start,
)
from ollamad.http.doors import Doors
from ollamad.options import SamplingOptions
from ollamad.runners.mailbox import Mailbox, Piece
from ollamad.runners.protocol import (
    Delta,
    Finished,
    FinishReason,
    Grammar,
    GrammarKind,
    Timings,
)
from ollamad.supervisor.leases import Lease
from tests.unit.http.models import FixedClock, a_model
from tests.wire.templates import OPENING, THINKING, TOOLS

REQUIRED = ToolChoice(ToolMode.REQUIRED)


def a_tool(name: str, **more: object) -> dict[str, Any]:
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    return {"type": "function", "function": {"name": name, "parameters": schema, **more}}


WEATHER, ADD = a_tool("weather"), a_tool("add")


class NotedLease:
    """Remembers what is generated; has room for everything."""

    n_ctx = 1 << 16

    def __init__(self) -> None:
        self.fields: dict[str, Any] = {}
        self.prompt = ""
        self.sampling = SamplingOptions()

    async def tokenize(self, text: str, *, add_special: bool = True) -> tuple[int, ...]:
        raise AssertionError("there is room for everything")

    def generate(self, prompt: str, sampling: SamplingOptions, **fields: Any) -> Mailbox:
        self.prompt, self.sampling, self.fields = prompt, sampling, fields
        return Mailbox()


class OnlyClock:
    """Doors of which only the clock is used."""

    clock = FixedClock()


DOORS = cast("Doors", OnlyClock())


def asked(tools: Sequence[dict[str, Any]] = (WEATHER, ADD), **fields: Any) -> ChatAsked:
    messages = fields.pop("messages", [{"role": "user", "content": "hi"}])
    think = fields.pop("think", None)
    return ChatAsked(
        messages=messages, think=think, sampling=SamplingOptions(), tools=tools, **fields
    )


async def started(template: str, request: ChatAsked) -> tuple[Grammar | None, str]:
    """Return the grammar and the prompt that a request is sent with."""
    model, lease = a_model(chat_template=template), NotedLease()
    start(cast("Lease", lease), await prepare(DOORS, model, cast("Lease", lease), request))
    return lease.fields["grammar"], lease.prompt


async def test_a_model_that_may_choose_is_not_bound() -> None:
    grammar, _ = await started(TOOLS, asked())

    assert grammar is None


async def test_a_call_that_has_to_be_is_forced_in_the_templates_own_form() -> None:
    grammar, prompt = await started(TOOLS, asked(tool_choice=REQUIRED))

    assert grammar is not None
    assert grammar.kind is GrammarKind.LARK
    assert "weather" in grammar.text
    assert "add" in grammar.text
    assert "tool_call" in grammar.text
    assert prompt.count('"name": "weather"') == 1


async def test_a_named_tool_is_the_only_one_that_can_be_called() -> None:
    choice = ToolChoice(ToolMode.NAMED, name="add")
    grammar, _ = await started(TOOLS, asked(tool_choice=choice))

    assert grammar is not None
    assert "add" in grammar.text
    assert "weather" not in grammar.text


async def test_tools_that_must_not_be_called_are_not_even_shown() -> None:
    grammar, prompt = await started(TOOLS, asked(tool_choice=ToolChoice(ToolMode.NONE)))

    assert grammar is None
    assert "weather" not in prompt


@pytest.mark.parametrize("system", [[], [{"role": "system", "content": "Be brief."}]])
async def test_a_template_without_tools_gets_them_in_words_when_one_is_forced(
    system: list[dict[str, str]],
) -> None:
    plain = "{% for m in messages %}[{{ m.role }}] {{ m.content }}{% endfor %}"
    messages = [*system, {"role": "user", "content": "hi"}]
    grammar, prompt = await started(plain, asked(tool_choice=REQUIRED, messages=messages))

    assert grammar is not None
    assert prompt.startswith("[system] Be brief.\n\nYou can" if system else "[system] You can")
    assert prompt.count("[system]") == 1
    assert '"name": "weather"' in prompt


@pytest.mark.parametrize(
    ("template", "marks"),
    [(THINKING, ("<think>", "</think>")), (OPENING, ("", "</think>"))],
)
async def test_thoughts_come_before_a_forced_call(template: str, marks: tuple[str, str]) -> None:
    grammar, _ = await started(template, asked(tool_choice=REQUIRED))

    assert grammar is not None
    assert (grammar.opening, grammar.closing) == marks


async def test_a_text_with_a_header_of_its_own_keeps_to_its_form_behind_that() -> None:
    """Else the form would be looked for in the thoughts' place, and the header be no part of it."""
    messages = "{% for m in messages %}<|start|>{{ m.role }}<|message|>{{ m.content }}<|end|>"
    harmony = messages + "{% endfor %}<|start|>assistant{# <|channel|> functions. #}"
    grammar, _ = await started(harmony, asked((), grammar=Grammar(GrammarKind.JSON)))

    assert grammar == Grammar(
        GrammarKind.JSON,
        opening="<|channel|>analysis<|message|>",
        closing="<|end|><|start|>assistant<|channel|>final<|message|>",
    )


async def test_each_of_several_answers_has_a_seed_that_there_is() -> None:
    request = dataclasses.replace(asked(), sampling=SamplingOptions(seed=2**32 - 1))
    lease = NotedLease()
    model = a_model(chat_template=TOOLS)
    prepared = await prepare(DOORS, model, cast("Lease", lease), request)
    seeds = []
    for n in range(3):
        start(cast("Lease", lease), prepared, n=n)
        seeds.append(lease.sampling.seed)

    assert seeds == [2**32 - 1, 0, 1]


async def test_a_forced_call_wins_over_the_form_of_a_text() -> None:
    form = Grammar(GrammarKind.JSON)
    forced, _ = await started(TOOLS, asked(tool_choice=REQUIRED, grammar=form))
    free, _ = await started(TOOLS, asked(grammar=form))

    assert forced is not None
    assert forced.kind is GrammarKind.LARK
    assert free == form


async def test_strict_tools_are_called_as_they_say_or_not_at_all() -> None:
    grammar, _ = await started(TOOLS, asked([a_tool("weather", strict=True), ADD]))

    assert grammar is not None
    assert grammar.text.count("city") == 1, "the other one may be called with anything"


async def test_calls_one_at_a_time_are_not_held_to_their_parameters() -> None:
    one, _ = await started(TOOLS, asked(tool_choice=ToolChoice(is_parallel=False)))

    assert one is not None
    assert "city" not in one.text


@pytest.mark.parametrize(
    ("tools", "choice", "words"),
    [
        ([], REQUIRED, "tool_choice needs at least one tool among the tools"),
        ([ADD], ToolChoice(ToolMode.NAMED, name="x"), 'tool_choice needs the tool "x" among'),
        ([{"function": 5}], ToolChoice(ToolMode.NAMED, name="x"), "tool_choice needs the tool"),
    ],
)
def test_a_choice_of_what_is_not_there_is_refused(
    tools: list[dict[str, Any]], choice: ToolChoice, words: str
) -> None:
    with pytest.raises(InvalidBody, match=words):
        check_tools(a_model(), tools, choice, "tiny")


def test_a_model_without_tools_may_be_made_to_call_one_but_not_left_to_choose() -> None:
    check_tools(a_model(), [ADD], REQUIRED, "tiny")
    check_tools(a_model(), [ADD], ToolChoice(ToolMode.NONE), "tiny")
    check_tools(a_model(capabilities=("completion", "tools")), [ADD], ToolChoice(), "tiny")
    with pytest.raises(CapabilityMissing, match=r"^tiny does not support tools$"):
        check_tools(a_model(), [ADD], ToolChoice(), "tiny")


def test_a_whole_conversation_can_be_rendered_to_be_counted() -> None:
    prompt = render(DOORS, a_model(chat_template=TOOLS), asked())

    assert prompt.text.endswith("user: hi assistant: ")


def test_what_was_thought_before_the_last_question_is_not_shown_again() -> None:
    thought = "<think>hm, {}</think>\n\nFour."
    messages = [
        {"role": "user", "content": "2+2?"},
        {"role": "assistant", "content": thought.format("old")},
        {"role": "user", "content": "And <think>?"},
        {"role": "assistant", "content": thought.format("new")},
        {"role": "tool", "content": "4"},
    ]
    request = asked(messages=messages, tools=())
    thinker = render(DOORS, a_model(chat_template=THINKING), request).text
    plain = render(DOORS, a_model(chat_template=TOOLS), request).text

    assert "hm, old" not in thinker
    assert "assistant: Four. user: And <think>?" in thinker
    assert "hm, new" in thinker
    assert "hm, old" in plain, "a model that marks no thoughts has none"


def a_piece(text: str, n_tokens: int) -> Piece:
    return Piece(text, tuple(range(n_tokens)))


def a_thinker(*, hides_thinking: bool = False) -> ChatStream:
    parser = format_of(THINKING).parser("assistant: ")
    return ChatStream(Mailbox(), parser, hides_thinking=hides_thinking)


def test_tokens_of_thinking_are_counted_with_the_marks_before_them() -> None:
    stream = a_thinker()
    for piece in (a_piece("<thi", 1), a_piece("nk>one ", 2), a_piece("two", 1)):
        stream.feed(piece)
    thought = stream.n_thinking_tokens
    stream.feed(a_piece("</think>", 1))
    stream.feed(a_piece("Four.", 2))

    assert (thought, stream.n_thinking_tokens) == (4, 4)


def test_a_piece_with_both_is_shared_out() -> None:
    stream = a_thinker()
    parts = stream.feed(a_piece("<think>aaaa</think>bbbb", 10))

    assert (parts.thinking, parts.text) == ("aaaa", "bbbb")
    assert stream.n_thinking_tokens == 5


def test_plain_answers_have_no_thinking_to_count() -> None:
    stream = ChatStream(Mailbox(), None)
    stream.feed(a_piece("<think>hm</think>", 9))

    assert stream.n_thinking_tokens == 0


@pytest.mark.parametrize("hides_thinking", [True, False])
async def test_a_whole_answer_is_what_its_pieces_are(hides_thinking: bool) -> None:
    stream = a_thinker(hides_thinking=hides_thinking)
    texts = ["<think>h", "m</th", "ink>Fo", "ur", " <"]
    for offset, text in enumerate(texts):
        stream.mailbox.put(Delta(1, offset, text, (offset,)))
        if offset == 1:
            first = await stream.mailbox.take()
    stream.mailbox.close(Finished(id=1, reason=FinishReason.STOP, timings=Timings()))
    parts, piece, _ = await stream.whole(first)

    assert parts.thinking == ("" if hides_thinking else "hm")
    assert parts.text == "Four <"
    assert piece.text == "".join(texts)
    assert piece.tokens == tuple(range(5))
    assert 1 <= stream.n_thinking_tokens <= 3
