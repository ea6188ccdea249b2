from __future__ import annotations

import array
import contextlib
import fcntl
import io
import json
import logging
import os
import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from ollamad import log as log_module
from ollamad.config import LogConfig, LogFormat
from ollamad.log import VALUE_CHARS_MAX, configure, get_logger, log_context, set_level

log = get_logger("ollamad.test")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Unspeakable:
    def __str__(self) -> str:
        raise RuntimeError("cannot be said")


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """Logging is the process's: leave it as it was for the other tests."""
    loggers = (logging.getLogger(), logging.getLogger("ollamad"))
    levels = [logger.level for logger in loggers]
    yield
    for handler in [h for h in loggers[0].handlers if h.name == "ollamad"]:
        loggers[0].removeHandler(handler)
        handler.close()
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


def start(form: LogFormat = "text") -> io.StringIO:
    stream = io.StringIO()
    configure(LogConfig(format=form), stream, {})
    return stream


# Text.


def test_a_line_of_text_has_time_level_logger_message_and_fields() -> None:
    stream = start()

    log.info("loading model", model="smollm2:135m", gib=0.25, why='it "was" asked', empty="")

    time, rest = stream.getvalue().split(" ", 1)
    assert time.endswith("Z")
    assert "T" in time
    assert rest == (
        "INFO    ollamad.test loading model model=smollm2:135m gib=0.25 "
        'why="it \\"was\\" asked" empty=""\n'
    )


def test_a_message_cannot_forge_a_line_or_move_the_cursor() -> None:
    stream = start()

    log.info("a\nb\x1b[2J", name="x\r\n2026 ERROR\u202e", path="c\\d\udcff\x9b")

    line = stream.getvalue()
    assert line.count("\n") == 1
    assert "a\\nb\\x1b[2J" in line
    assert 'name="x\\r\\n2026 ERROR\\u202e"' in line
    assert 'path="c\\\\d\\udcff\\x9b"' in line


@given(st.text(max_size=60), st.text(max_size=60))
def test_any_message_and_field_are_one_printable_line(message: str, value: str) -> None:
    stream = start()

    log.warning(message, field=value)

    line = stream.getvalue()
    assert line.endswith("\n")
    assert line[:-1].isprintable()


def test_a_percent_sign_is_no_format() -> None:
    stream = start()

    log.info("100%s done")

    assert "100%s done" in stream.getvalue()


def test_a_traceback_is_indented_below_its_line() -> None:
    stream = start()

    try:
        raise ValueError("first\nERROR forged")
    except ValueError:
        log.exception("it failed")

    first, *rest = stream.getvalue().splitlines()
    assert first.endswith("ERROR   ollamad.test it failed")
    assert rest[0] == "  | Traceback (most recent call last):"
    assert all(line.startswith("  | ") for line in rest)
    assert "  | ERROR forged" in rest


@pytest.mark.parametrize(
    ("terminal", "environ", "coloured"),
    [
        (True, {}, True),
        (True, {"NO_COLOR": "1"}, False),
        (True, {"NO_COLOR": ""}, True),
        (True, {"TERM": "dumb"}, False),
        (False, {}, False),
    ],
)
def test_colours_are_for_terminals_that_want_them(
    terminal: bool, environ: dict[str, str], coloured: bool
) -> None:
    stream = Terminal() if terminal else io.StringIO()
    configure(LogConfig(format="text"), stream, environ)

    log.warning("careful")

    assert ("\x1b[33mWARNING\x1b[0m" in stream.getvalue()) is coloured


def test_a_long_value_is_cut_and_its_rest_counted() -> None:
    stream = start()

    log.info("long", text="x" * (VALUE_CHARS_MAX + 5))

    assert stream.getvalue().endswith('… (5 more characters)"\n')


# Levels, context, other loggers.


def test_a_level_can_change_while_running() -> None:
    stream = start()
    other = logging.getLogger("hypercorn.error")

    log.debug("hidden")
    other.info("hidden too")
    set_level("debug")
    log.debug("seen")
    other.info("seen too")
    other.debug("never seen")
    set_level("error")
    log.warning("hidden again")

    assert [line.split(" ", 1)[1] for line in stream.getvalue().splitlines()] == [
        "DEBUG   ollamad.test seen",
        "INFO    hypercorn.error seen too",
    ]


def test_a_second_configuration_replaces_the_first_only() -> None:
    root = logging.getLogger()
    before = [handler for handler in root.handlers if handler.name != "ollamad"]
    first, second = start(), start("json")

    log.info("once")

    assert first.getvalue() == ""
    assert second.getvalue().count("\n") == 1
    assert [handler for handler in root.handlers if handler.name != "ollamad"] == before


async def test_a_context_is_in_every_record_inside_and_in_tasks_started_there() -> None:
    stream = start("json")

    async def work() -> None:
        log.info("in a task", model="m")

    async with trio.open_nursery() as nursery:
        with log_context(request="r1"), log_context(runner=7):
            nursery.start_soon(work)
            logging.getLogger("other").warning("in another library")
        log.info("outside")

    entries = {entry["message"]: entry for entry in map(json.loads, stream.getvalue().splitlines())}
    assert (entries["in a task"]["request"], entries["in a task"]["runner"]) == ("r1", 7)
    assert entries["in a task"]["model"] == "m"
    assert entries["in another library"]["request"] == "r1"
    assert "request" not in entries["outside"]


# JSON.


def test_json_is_one_object_a_line_with_fields_of_their_own_type() -> None:
    stream = start("auto")  # Neither the journal nor a terminal.

    log.warning("two\nlines", n=3, f=0.5, none=None, yes=True, nan=float("nan"), p=Path("/x"))

    assert stream.getvalue().count("\n") == 1
    entry = json.loads(stream.getvalue())
    assert entry.pop("time").endswith("Z")
    assert entry == {
        "level": "warning",
        "logger": "ollamad.test",
        "message": "two\nlines",
        "n": 3,
        "f": 0.5,
        "none": None,
        "yes": True,
        "nan": "nan",
        "p": "/x",
    }


def test_a_field_never_hides_a_part_of_the_record() -> None:
    stream = start("json")

    log.info("the message", time="never", level="x")

    entry = json.loads(stream.getvalue())
    assert (entry["level"], entry["level_"], entry["time_"]) == ("info", "x", "never")


def test_json_has_the_traceback() -> None:
    stream = start("json")

    log.error("failed", exc=ValueError("why"))

    assert json.loads(stream.getvalue())["traceback"] == "ValueError: why"


# Failures.


def test_a_value_that_cannot_be_written_does_not_reach_the_caller(
    capsys: pytest.CaptureFixture[str],
) -> None:
    stream = start()

    log.info("bad", value=Unspeakable())
    log.info("good")

    assert "cannot be said" in capsys.readouterr().err
    assert stream.getvalue().endswith("good\n")


def test_a_closed_stream_does_not_reach_the_caller(capsys: pytest.CaptureFixture[str]) -> None:
    stream = start()
    stream.close()

    log.info("into nothing")

    assert capsys.readouterr().err == ""


def test_a_name_that_the_stream_cannot_encode_is_escaped(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w", encoding="ascii") as stream:
        configure(LogConfig(format="text"), stream, {})
        log.info("é", path="\udcff")

    assert "\\xe9 path=" in (tmp_path / "log").read_text(encoding="ascii")


# The journal.


@contextlib.contextmanager
def journald(folder: Path) -> Iterator[socket.socket]:
    """A socket where journald's would be."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(folder / "journal"))
        receiver.setblocking(False)
        yield receiver


def start_journal(folder: Path) -> io.StringIO:
    stream = io.StringIO()
    configure(LogConfig(format="journal"), stream, {}, journal_path=str(folder / "journal"))
    return stream


def decoded(entry: bytes) -> dict[str, str]:
    """Read the journal's native protocol."""
    fields = {}
    while entry:
        line, _, entry = entry.partition(b"\n")
        name, separator, value = line.partition(b"=")
        if not separator:
            (size,) = struct.unpack("<Q", entry[:8])
            value, end, entry = entry[8 : 8 + size], entry[8 + size : 9 + size], entry[9 + size :]
            assert end == b"\n"
        fields[name.decode()] = value.decode()
    return fields


def test_the_journal_gets_fields_priority_and_the_callers_place(tmp_path: Path) -> None:
    with journald(tmp_path) as receiver:
        stream = start_journal(tmp_path)
        fields: dict[str, Any] = {"idle s": 5}
        line = sys._getframe().f_lineno + 1
        log.warning("model left", model="m", **fields)
        sent = decoded(receiver.recv(1 << 16))

    assert stream.getvalue() == ""
    assert sent == {
        "MESSAGE": "model left model=m idle s=5",
        "PRIORITY": "4",
        "SYSLOG_IDENTIFIER": "ollamad",
        "LOGGER": "ollamad.test",
        "CODE_FILE": __file__,
        "CODE_LINE": str(line),
        "CODE_FUNC": "test_the_journal_gets_fields_priority_and_the_callers_place",
        "OLLAMAD_MODEL": "m",
        "OLLAMAD_IDLE_S": "5",
    }


def test_a_value_of_several_lines_is_one_field_of_the_journal(tmp_path: Path) -> None:
    with journald(tmp_path) as receiver:
        start_journal(tmp_path)
        log.error("failed", exc=ValueError("why"), detail="a\nPRIORITY=0\n")
        fields = decoded(receiver.recv(1 << 16))

    assert fields["OLLAMAD_DETAIL"] == "a\nPRIORITY=0\n"
    assert fields["PRIORITY"] == "3"
    assert fields["MESSAGE"].splitlines() == [
        'failed detail="a\\nPRIORITY=0\\n"',
        "ValueError: why",
    ]


def test_a_record_too_large_for_a_datagram_goes_in_a_sealed_file(tmp_path: Path) -> None:
    with journald(tmp_path) as receiver:
        stream = start_journal(tmp_path)
        fields: dict[str, Any] = {f"f{n}": "x" * VALUE_CHARS_MAX for n in range(8)}
        log.info("large", **fields)
        data, ancillary, _, _ = receiver.recvmsg(1 << 16, socket.CMSG_SPACE(4))

    assert (data, stream.getvalue()) == (b"", "")
    descriptors = array.array("i")
    descriptors.frombytes(ancillary[0][2])
    with os.fdopen(descriptors[0], "rb") as file:
        assert fcntl.fcntl(file, fcntl.F_GET_SEALS) & fcntl.F_SEAL_WRITE
        file.seek(0)
        sent = decoded(file.read())
    assert sent["OLLAMAD_F7"] == "x" * VALUE_CHARS_MAX


def test_while_journald_is_away_records_go_to_the_stream(tmp_path: Path) -> None:
    stream = start_journal(tmp_path)
    log.info("away")

    with journald(tmp_path) as receiver:
        log.info("back")
        assert decoded(receiver.recv(1 << 16))["MESSAGE"] == "back"

    log.info("away again")
    assert [line.rsplit("test ")[1] for line in stream.getvalue().splitlines()] == [
        "away",
        "away again",
    ]


def test_a_full_journal_never_holds_up_the_daemon(tmp_path: Path) -> None:
    with journald(tmp_path):
        stream = start_journal(tmp_path)
        for n in range(5000):
            log.info("flood", n=n)
            if stream.getvalue():
                break

    assert "flood" in stream.getvalue()


def test_a_value_that_cannot_be_written_does_not_reach_the_journals_caller(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with journald(tmp_path) as receiver:
        start_journal(tmp_path)
        log.info("bad", value=Unspeakable())
        with pytest.raises(BlockingIOError):
            receiver.recv(1)

    assert "cannot be said" in capsys.readouterr().err


@pytest.mark.parametrize(("own", "form"), [(True, "journal"), (False, "json")])
def test_the_journal_is_used_only_if_our_own_stream_leads_to_it(
    own: bool, form: str, tmp_path: Path
) -> None:
    with (tmp_path / "a").open("w") as stream, (tmp_path / "b").open("w") as other:
        status = os.fstat((stream if own else other).fileno())
        environ = {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}

        assert log_module._chosen_format("auto", stream, environ) == form
        assert log_module._chosen_format("text", stream, environ) == "text"
