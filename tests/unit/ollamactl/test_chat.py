from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from ollamactl.chat import Chat, ChatSettings
from ollamactl.host import parse_host
from ollamactl.http import Client
from ollamactl.promptline import is_open_block, without_quotes
from ollamactl.wire import ShownModel, read_as
from tests.unit.ollamactl.fakedaemon import FakeDaemon, Request, refused, stream

Talk = Callable[..., str]
UNKNOWN = ShownModel()


def says(text: str) -> Iterator[object]:
    yield {"message": {"role": "assistant", "content": text}}
    yield {"message": {"role": "assistant", "content": ""}, "done": True, "eval_count": 3}


@pytest.fixture
def talk(daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]) -> Iterator[Talk]:
    """Type lines at a conversation and return all that was shown."""
    daemon.on("POST", "/api/chat", stream(*says("Hello.")))
    with Client(parse_host(daemon.url)) as client:

        def type_lines(*lines: str | BaseException, shown: ShownModel = UNKNOWN) -> str:
            left = iter(lines)

            def ask() -> str:
                line = next(left, None)
                if line is None:
                    raise EOFError
                if isinstance(line, BaseException):
                    raise line
                return line

            Chat(client, "m", shown, ChatSettings()).run(ask)
            assert next(left, None) is None
            captured = capsys.readouterr()
            return captured.out + captured.err

        yield type_lines


def test_the_whole_conversation_is_sent_each_time(daemon: FakeDaemon, talk: Talk) -> None:
    assert talk("Hi", "And you?").startswith("Hello.\n\nHello.\n\n")

    assert daemon.requests[1].json == {
        "model": "m",
        "options": {},
        "stream": True,
        "messages": [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Hello."},
            {"role": "user", "content": "And you?"},
        ],
    }


def test_thinking_stays_with_its_message(daemon: FakeDaemon, talk: Talk) -> None:
    daemon.on("POST", "/api/chat", stream({"message": {"thinking": "Hm."}}, *says("Yes.")))
    talk("a", "b")

    assert daemon.requests[1].json["messages"][1] == {
        "role": "assistant",
        "content": "Yes.",
        "thinking": "Hm.",
    }


def test_clear_forgets_the_conversation_but_not_the_settings(
    daemon: FakeDaemon, talk: Talk
) -> None:
    shown = talk("/set system Be brief.", "Hi", "/clear", "Hi again")

    assert "Cleared session context" in shown
    assert daemon.requests[1].json["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi again"},
    ]


@pytest.mark.parametrize("error", ["before", "inside"])
def test_an_error_is_shown_and_the_conversation_goes_on_without_the_question(
    daemon: FakeDaemon, talk: Talk, error: str
) -> None:
    def answer(request: Request) -> object:
        if len(daemon.sent("/api/chat")) > 1:
            return stream(*says("Fine."))
        if error == "before":
            return refused(500, "out of memory")
        return stream({"message": {"content": "Hel"}}, {"error": "out of memory"})

    daemon.on("POST", "/api/chat", answer)  # type: ignore[arg-type]
    shown = talk("bad", "good")

    assert "out of memory\n" in shown
    assert "Fine." in shown
    assert daemon.requests[1].json["messages"] == [{"role": "user", "content": "good"}]


def test_control_c_at_the_prompt_says_how_to_leave(talk: Talk) -> None:
    assert "Use Ctrl + d or /bye to exit." in talk(KeyboardInterrupt(), "/bye")


def test_control_c_in_an_answer_keeps_the_question_and_the_prompt(
    daemon: FakeDaemon, talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Client.stream

    def interrupted(self: Client, path: str, body: dict[str, object]) -> object:
        answers = original(self, path, body)
        if len(daemon.sent("/api/chat")) == 0:
            yield next(answers)
            raise KeyboardInterrupt
        yield from answers

    monkeypatch.setattr(Client, "stream", interrupted)
    talk("one", "two")

    assert [m["content"] for m in daemon.requests[1].json["messages"]] == ["one", "two"]


@pytest.mark.parametrize("word", ["/bye", "/exit", "/bye now"])
def test_the_user_can_leave(daemon: FakeDaemon, talk: Talk, word: str) -> None:
    assert talk(word) == ""
    assert daemon.requests == []


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("/help", "Available Commands:"),
        ("/?", "/set            Set session variables"),
        ("/? set", "/set verbose"),
        ("/? shortcuts", "Ctrl + j"),
        ("/set", "/set parameter <name> <value>"),
        ("/set verbose", "Set 'verbose' mode."),
        ("/set quiet", "Set 'quiet' mode."),
        ("/set nowordwrap", "Set 'nowordwrap' mode."),
        ("/set format json", "Set format to 'json' mode."),
        ("/set format xml", "Invalid or missing format."),
        ("/set noformat", "Disabled format."),
        ("/set think", 'warning: model "m" does not support thinking output'),
        ("/set think high", "Set 'think' mode to 'high'."),
        ("/set nothink", "Set 'nothink' mode."),
        ("/set system Be kind.", "Set system message."),
        ("/set parameter temperature 0.5", "Set parameter 'temperature' to '0.5'"),
        ("/set parameter stop a b", "Set parameter 'stop' to 'a, b'"),
        ("/set parameter foo 1", "Couldn't set parameter: \"unknown parameter 'foo'\""),
        ("/set parameter top_k x", 'Couldn\'t set parameter: "invalid int value [x]"'),
        ("/set parameter", "/set parameter <name> <value>"),
        ("/set foo", "Unknown command '/set foo'. Type /? for help"),
        ("/show", "/show info"),
        ("/show info", "architecture    llama"),
        ("/show license", "No license was specified for this model."),
        ("/show system", "No system message was specified for this model."),
        ("/show template", "No prompt template was specified for this model."),
        ("/show parameters", "No additional parameters were specified for this model."),
        ("/show foo", "Unknown command '/show foo'. Type /? for help"),
        ("/foo", "Unknown command '/foo'. Type /? for help"),
        ("   ", ""),
    ],
)
def test_commands_answer_and_send_nothing(
    daemon: FakeDaemon, talk: Talk, line: str, answer: str
) -> None:
    assert answer in talk(line, shown=read_as(ShownModel, {"details": {"family": "llama"}}))
    assert daemon.requests == []


def test_what_is_set_is_sent(daemon: FakeDaemon, talk: Talk) -> None:
    shown = talk(
        "/set parameter num_ctx 99", "/set think low", "/set format json", "/set verbose", "Hi",
        "/show parameters",
    )  # fmt: skip

    sent = daemon.requests[0].json
    assert sent["options"] == {"num_ctx": 99}
    assert (sent["think"], sent["format"]) == ("low", "json")
    assert "eval count:           3 token(s)" in shown
    assert "num_ctx                        99" in shown


def test_a_path_is_a_message_and_no_command(daemon: FakeDaemon, talk: Talk) -> None:
    talk("/etc/hosts is what?")

    assert daemon.requests[0].json["messages"][0]["content"] == "/etc/hosts is what?"


def test_a_block_is_sent_without_its_quotes(daemon: FakeDaemon, talk: Talk) -> None:
    talk('"""one\ntwo"""', '/set system """a\nb"""', "Hi")

    assert daemon.requests[0].json["messages"][0]["content"] == "one\ntwo"
    assert daemon.requests[1].json["messages"][0] == {"role": "system", "content": "a\nb"}


def test_stored_messages_are_shown_first(talk: Talk) -> None:
    stored = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]

    assert talk(shown=read_as(ShownModel, {"messages": stored})).startswith(">>> Q\nA\n\n")


@pytest.mark.parametrize(
    ("text", "is_open"),
    [
        ("hello", False),
        ('"""', True),
        ('"""""', True),
        ('"""""" ', False),
        ('"""a\nb', True),
        ('"""a\nb"""', False),
        ('/set system """a', True),
        ('/set system """a"""', False),
        ('say """', False),
    ],
)
def test_a_block_is_open_until_a_line_ends_it(text: str, is_open: bool) -> None:
    assert is_open_block(text) is is_open


def test_only_a_whole_block_loses_its_quotes() -> None:
    assert without_quotes(' """a"""\n') == "a"
    assert without_quotes('"""""') == '"""""'
    assert without_quotes('say "hi"') == 'say "hi"'
