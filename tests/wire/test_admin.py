"""The admin door, message for message, in virtual time."""

from __future__ import annotations

import json
import logging

import msgspec
import pytest
import trio
import trio.testing
from trio.testing import MockClock

from ollamad import adminwire as wire
from ollamad.admin.connection import SEND_TIMEOUT_S, Connection
from ollamad.admin.inbox import CALLS_AHEAD_MAX, IDLE_TIMEOUT_S, MESSAGE_TIMEOUT_S
from ollamad.admin.peers import Peer
from ollamad.errors import DoesNotFit, QueueFull
from ollamad.modelinfo import WeightsId
from ollamad.supervisor.bulletin import ENTRIES_KEPT_MAX
from ollamad.supervisor.commands import Note, NoteKind
from ollamad.supervisor.views import CoolingView
from ollamad.varlink import MESSAGE_BYTES_MAX
from tests.fakes.steering import a_resident, a_waiting
from tests.wire.adminsite import ADMIN, READER, RULES, STRANGER, Desk, Line, a_line

STATUS = {"method": "io.ollamad.Admin.Status"}


@pytest.fixture
async def desk() -> Desk:
    return Desk()


def refusal(name: str, **parameters: object) -> dict[str, object]:
    return {"error": f"io.ollamad.Admin.{name}", "parameters": parameters}


def broken(name: str, **parameters: object) -> dict[str, object]:
    return {"error": f"org.varlink.service.{name}", "parameters": parameters}


async def flood(line: Line) -> None:
    """Send twice what a message may be, without an end."""
    for _ in range(2 * MESSAGE_BYTES_MAX // 65536):
        await line.send(b"x" * 65536)


async def drip(line: Line) -> None:
    """Send a byte a second."""
    while True:
        await line.send(b" ")
        await trio.sleep(1)


# Who may do what


@pytest.mark.parametrize("method", sorted(wire.METHODS))
async def test_a_stranger_is_refused_everything_and_let_go(
    desk: Desk, method: str, autojump_clock: MockClock
) -> None:
    async with a_line(desk, STRANGER) as line:
        reply = await line.ask(method)

        assert reply == refusal(
            "PermissionDenied",
            message="only root, the daemon's user and members of the group ollama may look",
            group="ollama",
        )
        assert await line.receive() is None
    assert desk.steering.told == []


async def test_a_stranger_does_not_even_learn_what_this_is(
    desk: Desk, autojump_clock: MockClock
) -> None:
    async with a_line(desk, STRANGER) as line:
        reply = await line.ask("org.varlink.service.GetInfo")

        assert reply is not None
        assert reply["error"] == "io.ollamad.Admin.PermissionDenied"


@pytest.mark.parametrize("method", sorted(n for n, spec in wire.METHODS.items() if spec.changes))
async def test_a_reader_may_change_nothing(
    desk: Desk, method: str, autojump_clock: MockClock
) -> None:
    async with a_line(desk, READER) as line:
        reply = await line.ask(method)
        assert reply is not None
        assert reply["error"] == "io.ollamad.Admin.PermissionDenied"
        assert reply["parameters"]["group"] == "ollama-admin"

        status = await line.ask("Status")
        assert status is not None
        assert status["parameters"]["may_change"] is False
    assert desk.steering.told == []


@pytest.mark.parametrize("uid", [0, 1000])
async def test_root_and_the_daemons_own_user_need_no_group(
    desk: Desk, uid: int, autojump_clock: MockClock
) -> None:
    async with a_line(desk, Peer(pid=1, uid=uid, groups=frozenset())) as line:
        assert await line.ask("Drain") == {"parameters": {}}


async def test_a_change_is_logged_with_who_asked_and_looking_is_not(
    desk: Desk, caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    caplog.set_level(logging.INFO, "ollamad")
    async with a_line(desk) as line:
        await line.ask("Status")
        await line.ask("Explain", model="llama:8b")
        await line.ask("Evict", model="llama:8b", force=True)
        await line.ask("Restart", model="nobody")

    fields = [record.fields for record in caplog.records]  # type: ignore[attr-defined] # Ours.
    assert [each["method"] for each in fields] == ["Evict", "Restart"]
    assert fields[0] == {
        "method": "Evict",
        "model": "llama:8b",
        "force": True,
        "outcome": "done",
        "peer_uid": ADMIN.uid,
        "peer_pid": ADMIN.pid,
    }
    assert fields[1]["outcome"] == "model 'nobody' not found"


# Messages that are none


@pytest.mark.parametrize(
    "message", [b"hello\0", b"\0", b"[1]\0", b'{"method":7}\0', b'{"parameters":{}}\0', b"\xff\0"]
)
async def test_nonsense_ends_the_connection(
    desk: Desk, message: bytes, autojump_clock: MockClock
) -> None:
    async with a_line(desk) as line:
        await line.send(message)

        assert await line.receive() is None


async def test_a_message_that_is_too_long_ends_the_connection(
    desk: Desk, autojump_clock: MockClock
) -> None:
    async with a_line(desk) as line:
        with pytest.raises(trio.BrokenResourceError):
            await flood(line)
        assert await line.receive() is None


async def test_a_message_that_is_just_short_enough_is_read(
    desk: Desk, autojump_clock: MockClock
) -> None:
    padding = " " * (MESSAGE_BYTES_MAX - len(json.dumps(STATUS)))
    async with a_line(desk) as line:
        await line.send(json.dumps(STATUS).encode() + padding.encode() + b"\0")

        reply = await line.receive()
        assert reply is not None
        assert reply["parameters"]["pid"] == 4711


async def test_a_half_sent_message_is_waited_for_only_so_long(
    desk: Desk, autojump_clock: MockClock
) -> None:
    started = trio.current_time()
    async with a_line(desk) as line:
        await line.send(b'{"method"')

        assert await line.receive() is None
        assert trio.current_time() - started == MESSAGE_TIMEOUT_S


async def test_dripping_bytes_do_not_buy_time(desk: Desk, autojump_clock: MockClock) -> None:
    started = trio.current_time()
    async with a_line(desk) as line:
        with pytest.raises(trio.BrokenResourceError):
            await drip(line)

        assert MESSAGE_TIMEOUT_S <= trio.current_time() - started <= MESSAGE_TIMEOUT_S + 1


async def test_a_message_in_pieces_is_read_when_it_is_complete(
    desk: Desk, autojump_clock: MockClock
) -> None:
    async with a_line(desk) as line:
        for byte in json.dumps(STATUS).encode() + b"\0":
            await line.send(bytes([byte]))

        assert await line.receive() is not None


async def test_a_peer_that_hangs_up_in_the_middle_leaves_nothing(
    desk: Desk, autojump_clock: MockClock
) -> None:
    async with a_line(desk) as line:
        await line.send(b'{"method"')


async def test_a_connection_without_calls_is_closed_in_the_end(
    desk: Desk, autojump_clock: MockClock
) -> None:
    started = trio.current_time()
    async with a_line(desk) as line:
        await line.ask("Status")
        assert await line.receive() is None
        assert trio.current_time() - started == IDLE_TIMEOUT_S


async def test_calls_sent_ahead_are_answered_in_order(
    desk: Desk, autojump_clock: MockClock
) -> None:
    async with a_line(desk) as line:
        await line.send(STATUS, {"method": "io.ollamad.Admin.Queue"}, {"method": "a.b.C"})

        replies = [await line.receive() for _ in range(3)]
        assert [min((reply or {})["parameters"]) for reply in replies] == [
            "config_file",
            "total",
            "interface",
        ]


async def test_a_peer_that_takes_no_replies_is_let_go(
    desk: Desk, autojump_clock: MockClock
) -> None:
    ours, theirs = trio.testing.lockstep_stream_pair()  # Takes nothing that is not read.
    connection_over = trio.Event()
    started = trio.current_time()

    async def serve() -> None:
        await Connection(theirs, ADMIN, RULES, desk.methods, desk.bulletin).run()
        connection_over.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        await ours.send_all(json.dumps(STATUS).encode() + b"\0")
        await connection_over.wait()
    assert trio.current_time() - started == SEND_TIMEOUT_S


# The protocol's own errors


@pytest.mark.parametrize(
    ("call", "reply"),
    [
        ({"method": "a.b.C"}, broken("InterfaceNotFound", interface="a.b")),
        ({"method": "Status"}, broken("InterfaceNotFound", interface="")),
        (
            {"method": "io.ollamad.Admin.Explode"},
            broken("MethodNotFound", method="io.ollamad.Admin.Explode"),
        ),
        (
            {"method": "org.varlink.service.Explode"},
            broken("MethodNotFound", method="org.varlink.service.Explode"),
        ),
        (
            {**STATUS, "upgrade": True},
            broken("MethodNotImplemented", method="io.ollamad.Admin.Status"),
        ),
        ({"method": "io.ollamad.Admin.Events"}, broken("ExpectedMore")),
        (
            {"method": "io.ollamad.Admin.Events", "more": True, "parameters": {"x": 1}},
            broken("InvalidParameter", parameter="x"),
        ),
        (
            {"method": "org.varlink.service.GetInterfaceDescription"},
            broken("InvalidParameter", parameter="interface"),
        ),
        (
            {
                "method": "org.varlink.service.GetInterfaceDescription",
                "parameters": {"interface": "a.b"},
            },
            broken("InterfaceNotFound", interface="a.b"),
        ),
        (
            {"method": "org.varlink.service.GetInfo", "parameters": {"x": 1}},
            broken("InvalidParameter", parameter="x"),
        ),
        ({**STATUS, "parameters": [1]}, broken("InvalidParameter", parameter="parameters")),
        ({**STATUS, "parameters": {"x": 1}}, broken("InvalidParameter", parameter="x")),
        (
            {"method": "io.ollamad.Admin.Evict", "parameters": {"model": 1}},
            broken("InvalidParameter", parameter="model"),
        ),
        (
            {"method": "io.ollamad.Admin.Evict", "parameters": {}},
            broken("InvalidParameter", parameter="model"),
        ),
        (
            {"method": "io.ollamad.Admin.SetLogLevel", "parameters": {"level": "loud"}},
            broken("InvalidParameter", parameter="level"),
        ),
    ],
)
async def test_wrong_calls_get_the_protocols_errors_and_the_connection_lives(
    desk: Desk, call: dict[str, object], reply: dict[str, object], autojump_clock: MockClock
) -> None:
    async with a_line(desk) as line:
        await line.send(call)
        assert await line.receive() == reply

        assert await line.ask("Resume") == {"parameters": {}}


async def test_parameters_that_are_null_are_none(desk: Desk, autojump_clock: MockClock) -> None:
    async with a_line(desk) as line:
        await line.send({**STATUS, "parameters": None})
        reply = await line.receive()

        assert reply is not None
        assert "error" not in reply


async def test_a_oneway_call_gets_no_reply_not_even_an_error(
    desk: Desk, autojump_clock: MockClock
) -> None:
    async with a_line(desk) as line:
        await line.send(
            {"method": "io.ollamad.Admin.Drain", "oneway": True},
            {"method": "io.ollamad.Admin.Explode", "oneway": True},
            {"method": "io.ollamad.Admin.Queue"},
        )
        reply = await line.receive()

        assert reply is not None
        assert reply["parameters"]["total"] == 1
    assert desk.steering.told == [("drain",)]


async def test_a_bug_in_a_method_is_told_and_logged_and_the_connection_lives(
    desk: Desk, caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    async with a_line(desk) as line:
        desk.steering.breaks_with = ZeroDivisionError("a bug")
        reply = await line.ask("Runners")
        assert reply == refusal("Failed", message="Runners failed, the daemon's log tells why")
        desk.steering.breaks_with = None

        assert await line.ask("Runners") is not None
    assert "ZeroDivisionError" in caplog.text


async def test_an_answer_too_long_for_a_message_is_told_to_be(
    desk: Desk, autojump_clock: MockClock
) -> None:
    desk.steering.resident_views = [a_resident()] * 4000
    async with a_line(desk) as line:
        assert await line.ask("Runners") == refusal(
            "Failed", message="the answer is too long to send"
        )
        assert await line.ask("Queue") is not None


async def test_the_longest_queue_with_the_longest_words_fits_into_a_message(
    desk: Desk, autojump_clock: MockClock
) -> None:
    words = "\u4e2d" * 5000  # Three bytes each.
    desk.steering.waiting_views = [
        a_waiting(n, name="n" * 500, client="c" * 64, waits_for=words[:1500]) for n in range(5000)
    ]
    desk.steering.cooling_views = [
        CoolingView(weights_id=WeightsId("w"), name="n", n_failures=3, reason=words, until=1e9)
    ] * 500
    async with a_line(desk) as line:
        for method in ("Queue", "Status"):
            reply = await line.ask(method)
            assert reply is not None
            assert "error" not in reply


# What is asked of the supervisor


@pytest.mark.parametrize(
    ("method", "parameters", "told"),
    [
        ("Evict", {"model": "llama:8b"}, ("evict", "weights of llama:8b", False)),
        ("Evict", {"model": "LLaMA:8b", "force": True}, ("evict", "weights of llama:8b", True)),
        ("Restart", {"model": "llama:8b"}, ("restart", "weights of llama:8b")),
        ("Pin", {"model": "llama:8b"}, ("pin", "weights of llama:8b", True)),
        ("Unpin", {"model": "llama:8b"}, ("pin", "weights of llama:8b", False)),
        ("Drain", {}, ("drain",)),
        ("Resume", {}, ("resume",)),
        ("Preload", {"model": "qwen:8b"}, ("preload", "qwen:8b", None)),
        (
            "Preload",
            {"model": "qwen:8b", "options": {"num_ctx": 8192}},
            ("preload", "qwen:8b", 8192),
        ),
    ],
)
async def test_orders_reach_the_supervisor(
    desk: Desk,
    method: str,
    parameters: dict[str, object],
    told: tuple[object, ...],
    autojump_clock: MockClock,
) -> None:
    async with a_line(desk) as line:
        assert await line.ask(method, **parameters) == {"parameters": {}}
    assert desk.steering.told == [told]


@pytest.mark.parametrize("method", ["Evict", "Restart"])
async def test_a_model_that_is_stored_but_not_loaded_is_told_so(
    desk: Desk, method: str, autojump_clock: MockClock
) -> None:
    async with a_line(desk) as line:
        assert await line.ask(method, model="qwen:8b") == refusal(
            "NotLoaded", model="qwen:8b", message="model 'qwen:8b' is not loaded"
        )


@pytest.mark.parametrize(
    "method", ["Evict", "Restart", "Reset", "Pin", "Unpin", "Preload", "Explain"]
)
async def test_a_model_that_nobody_knows_is_not_found(
    desk: Desk, method: str, autojump_clock: MockClock
) -> None:
    async with a_line(desk) as line:
        assert await line.ask(method, model="nobody") == refusal(
            "ModelNotFound", model="nobody", message="model 'nobody' not found"
        )


async def test_what_is_no_name_is_a_bad_request(desk: Desk, autojump_clock: MockClock) -> None:
    async with a_line(desk) as line:
        for model in ("", "../etc/passwd", "a b"):
            reply = await line.ask("Evict", model=model)
            assert reply == refusal("BadRequest", message="invalid model name")


async def test_a_model_that_runs_is_known_by_its_name_also_when_it_was_deleted(
    desk: Desk, autojump_clock: MockClock
) -> None:
    desk.steering.resident_views = [a_resident("gone:latest")]
    async with a_line(desk) as line:
        assert await line.ask("Evict", model="gone") == {"parameters": {}}


async def test_reset_tells_whether_it_was_needed(desk: Desk, autojump_clock: MockClock) -> None:
    async with a_line(desk) as line:
        assert await line.ask("Reset", model="llama:8b") == {"parameters": {"was_cooling": False}}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_ctxt": 1}, 'unknown option "num_ctxt", did you mean num_ctx?'),
        ({"num_ctx": "big"}, 'option "num_ctx" must be of type integer'),
    ],
)
async def test_options_that_cannot_be_meant_are_a_bad_request(
    desk: Desk, options: dict[str, object], message: str, autojump_clock: MockClock
) -> None:
    async with a_line(desk) as line:
        for method in ("Preload", "Explain"):
            reply = await line.ask(method, model="qwen:8b", options=options)
            assert reply == refusal("BadRequest", message=message)
    assert desk.steering.told == []


async def test_what_the_supervisor_refuses_with_is_told(
    desk: Desk, autojump_clock: MockClock
) -> None:
    async with a_line(desk) as line:
        desk.steering.fails_with = DoesNotFit("needs 80 GiB")
        assert await line.ask("Preload", model="qwen:8b") == refusal(
            "CannotServe", message="needs 80 GiB"
        )
        desk.steering.fails_with = QueueFull("server busy", retry_after_s=2.0)
        assert await line.ask("Preload", model="qwen:8b") == refusal(
            "CannotServeNow", message="server busy", retry_after_s=2.0
        )


async def test_a_peer_that_hangs_up_ends_its_wait(desk: Desk, autojump_clock: MockClock) -> None:
    desk.steering.preload_takes_s = 3600
    started = trio.current_time()
    async with a_line(desk) as line:
        await line.send({"method": "io.ollamad.Admin.Preload", "parameters": {"model": "qwen:8b"}})
        await trio.testing.wait_all_tasks_blocked()

    assert desk.steering.told[-1] == ("preload given up",)
    assert trio.current_time() == started


async def test_while_a_call_waits_only_so_many_others_are_read(
    desk: Desk, autojump_clock: MockClock
) -> None:
    desk.steering.preload_takes_s = 60
    async with a_line(desk) as line:
        await line.send({"method": "io.ollamad.Admin.Preload", "parameters": {"model": "qwen:8b"}})
        await line.send(*[STATUS] * (CALLS_AHEAD_MAX + 5))

        replies = [await line.receive() for _ in range(CALLS_AHEAD_MAX + 6)]
        assert replies[0] == {"parameters": {}}
        assert all(reply is not None for reply in replies)


async def test_nonsense_ends_a_wait_too(desk: Desk, autojump_clock: MockClock) -> None:
    desk.steering.preload_takes_s = 3600
    async with a_line(desk) as line:
        await line.send({"method": "io.ollamad.Admin.Preload", "parameters": {"model": "qwen:8b"}})
        with pytest.raises(trio.BrokenResourceError):
            await flood(line)
        assert await line.receive() is None


async def test_reload_tells_what_changed_or_why_not(desk: Desk, autojump_clock: MockClock) -> None:
    async with a_line(desk) as line:
        assert await line.ask("Reload") == {
            "parameters": {"changed": ["log.level"], "needs_restart": ["http.port"]}
        }
        desk.reload_fails = "ollamad.toml:3: unknown section"
        assert await line.ask("Reload") == refusal(
            "CannotServe", message="the old configuration stays: ollamad.toml:3: unknown section"
        )


async def test_the_log_level_changes_and_status_shows_it(
    desk: Desk, autojump_clock: MockClock
) -> None:
    loggers = (logging.getLogger("ollamad"), logging.getLogger())
    before = [logger.level for logger in loggers]
    try:
        async with a_line(desk) as line:
            assert await line.ask("SetLogLevel", level="error") == {"parameters": {}}
            status = await line.ask("Status")
            assert status is not None
            assert status["parameters"]["log_level"] == "error"
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


# What is told


@pytest.mark.parametrize(
    ("method", "kind"),
    [
        ("Status", wire.Status),
        ("Gpus", wire.Gpus),
        ("Runners", wire.Runners),
        ("Queue", wire.Queue),
    ],
)
async def test_answers_are_of_their_types(
    desk: Desk, method: str, kind: type[object], autojump_clock: MockClock
) -> None:
    async with a_line(desk) as line:
        reply = await line.ask(method)

        assert reply is not None
        assert set(msgspec.to_builtins(msgspec.convert(reply["parameters"], kind))) == set(
            reply["parameters"]
        )


async def test_a_long_queue_is_counted_whole_and_listed_in_part(
    desk: Desk, autojump_clock: MockClock
) -> None:
    desk.steering.waiting_views = [a_waiting(n + 1) for n in range(2000)]
    async with a_line(desk) as line:
        reply = await line.ask("Queue")

        assert reply is not None
        assert reply["parameters"]["total"] == 2000
        assert len(reply["parameters"]["waiting"]) == wire.WAITING_SHOWN_MAX


async def test_explain_tells_what_would_happen_with_the_numbers(
    desk: Desk, autojump_clock: MockClock
) -> None:
    async with a_line(desk) as line:
        reply = await line.ask("Explain", model="qwen:8b", options={"num_ctx": 2048})

        assert reply is not None
        explained = msgspec.convert(reply["parameters"], wire.Explained)
        assert explained.verdict == "evict"
        assert explained.victims == ("llama:8b",)
        assert {room.device: room.needed_bytes > 0 for room in explained.room} == {
            "GPU-1234": True,
            "host": False,
        }
    assert desk.steering.told == [("explain", "qwen:8b", 2048)]


# Events


EVENTS = {"method": "io.ollamad.Admin.Events", "more": True}


async def test_events_come_as_they_happen_after_a_first_empty_reply(
    desk: Desk, autojump_clock: MockClock
) -> None:
    async with a_line(desk, READER) as line:
        await line.send(EVENTS)
        assert await line.receive() == {
            "parameters": {"event": None, "missed": 0},
            "continues": True,
        }
        desk.bulletin.publish(
            Note(
                NoteKind.EVICTING,
                "evicting llama:8b: idle",
                {"model": "llama:8b", "runner": 3, "reason": "idle", "leases": 0},
                logging.WARNING,
            )
        )
        reply = await line.receive()
        assert reply == {
            "parameters": {
                "event": {
                    "at": "2026-08-21T10:00:00.123Z",
                    "kind": "evicting",
                    "level": "warning",
                    "message": "evicting llama:8b: idle",
                    "model": "llama:8b",
                    "runner": 3,
                    "device": None,
                    "place": None,
                    "fraction": None,
                    "reason": "idle",
                    "fields": {"leases": "0"},
                },
                "missed": 0,
            },
            "continues": True,
        }
        desk.bulletin.publish(Note(NoteKind.QUEUED, "", {"place": 2}))
        desk.bulletin.publish(Note(NoteKind.LOADING, "", {"fraction": 0.25}))
        for field, value in (("place", 2), ("fraction", 0.25)):
            reply = await line.receive()
            assert reply is not None
            assert reply["parameters"]["event"][field] == value
    assert desk.bulletin.n_subscribers == 0


async def test_a_slow_reader_of_events_holds_up_nobody_and_is_told_what_it_missed(
    desk: Desk, autojump_clock: MockClock
) -> None:
    ours, theirs = trio.testing.lockstep_stream_pair()  # Takes nothing that is not read.
    async with trio.open_nursery() as nursery:
        connection = Connection(theirs, READER, RULES, desk.methods, desk.bulletin)
        nursery.start_soon(connection.run)
        line = Line(ours)
        await line.send(EVENTS)
        await line.receive()
        started = trio.current_time()
        for n in range(ENTRIES_KEPT_MAX + 50):
            desk.bulletin.publish(Note(NoteKind.READY, str(n)))
            await trio.testing.wait_all_tasks_blocked()
        await trio.sleep(10 * SEND_TIMEOUT_S)

        messages: list[str] = []
        missed = 0
        while not messages or messages[-1] != str(ENTRIES_KEPT_MAX + 49):
            reply = await line.receive()
            assert reply is not None
            missed += reply["parameters"]["missed"]
            messages.append(reply["parameters"]["event"]["message"])
        assert trio.current_time() - started == 10 * SEND_TIMEOUT_S
        assert missed == 49  # One was on its way already, and that many are kept.
        assert len(messages) == ENTRIES_KEPT_MAX + 1
        await ours.aclose()


async def test_a_reader_of_events_that_hangs_up_is_forgotten_at_once(
    desk: Desk, autojump_clock: MockClock
) -> None:
    async with a_line(desk) as line:
        await line.send(EVENTS)
        await line.receive()
        assert desk.bulletin.n_subscribers == 1
        await line.stream.aclose()
        await trio.testing.wait_all_tasks_blocked()

        assert desk.bulletin.n_subscribers == 0
