from __future__ import annotations

import logging

import pytest
from trio.testing import memory_stream_one_way_pair

from ollamad.runners.logs import LINE_BYTES_MAX, RunnerLog


async def read(*chunks: bytes, lines_kept: int = 10, breaks: bool = False) -> RunnerLog:
    """Return a log that has read these chunks, one at a time."""
    log = RunnerLog("llama:8b", lines_kept=lines_kept)
    sender, receiver = memory_stream_one_way_pair()
    rest = list(chunks)

    async def send_next() -> None:
        if rest:
            await sender.send_all(rest.pop(0))
        elif breaks:
            await receiver.aclose()
        else:
            await sender.aclose()

    receiver.receive_some_hook = send_next
    await log.read(receiver)
    return log


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (0, "exit status 0: no such device"),
        (-9, "killed by SIGKILL: no such device"),
        (-250, "killed by signal 250: no such device"),
    ],
)
async def test_an_end_is_told_with_the_last_complaint(status: int, text: str) -> None:
    log = await read(b"E no such device\nW slow\n")

    assert log.how_it_ended(status) == text


async def test_an_end_without_a_word_is_told_by_its_status() -> None:
    log = await read()

    assert log.how_it_ended(1) == "exit status 1"


@pytest.mark.parametrize(
    ("line", "level", "text"),
    [
        (b"D details", logging.DEBUG, "details"),
        (b"I layers: 32", logging.DEBUG, "layers: 32"),
        (b"W slow", logging.WARNING, "slow"),
        (b"E no such file", logging.ERROR, "no such file"),
        (b"Traceback (most recent call last):", logging.WARNING, "Traceback (most recent call"),
        (b"X marks nothing", logging.WARNING, "X marks nothing"),
        (b"E", logging.WARNING, "E"),
        (b"E   indented  ", logging.ERROR, "  indented"),
        (b"W caf\xc3\xa9 \xff", logging.WARNING, "café \ufffd"),
    ],
)
async def test_a_line_is_logged_at_the_level_of_its_mark(
    line: bytes, level: int, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="ollamad.runners.logs")

    log = await read(line + b"\n")

    (record,) = caplog.records
    assert record.levelno == level
    assert record.getMessage().startswith(f"llama:8b: {text}")
    assert log.last_lines[0].startswith(text)


@pytest.mark.parametrize(
    "chunks",
    [
        [b"W one\nW two\n"],
        [b"W o", b"ne\nW ", b"two\n"],
        [b"W one", b"\n", b"\n\nW two"],
    ],
    ids=["together", "split", "no-last-newline"],
)
async def test_lines_are_the_same_however_they_arrive(chunks: list[bytes]) -> None:
    assert (await read(*chunks)).last_lines == ("one", "two")


async def test_only_the_newest_lines_are_kept() -> None:
    log = await read(*(b"W %d\n" % n for n in range(5)), lines_kept=3)

    assert log.last_lines == ("2", "3", "4")


@pytest.mark.parametrize(
    ("said", "last"),
    [
        (b"\n", ""),
        (b"I loading\nW odd\n", "odd"),
        (b"E first\nE second\nI later\n", "second"),
        (b"E why\n" + b"I noise\n" * 40, "why"),
    ],
    ids=["nothing", "no-error", "newest-error", "error-among-noise"],
)
async def test_the_last_error_explains_a_crash(said: bytes, last: str) -> None:
    assert (await read(said)).last_error == last


async def test_an_endless_line_is_cut_and_the_next_one_is_whole() -> None:
    chunks = [b"W " + b"x" * LINE_BYTES_MAX, b"y" * LINE_BYTES_MAX, b"z\nW next\n"]

    first, second = (await read(*chunks)).last_lines

    assert first == "x" * (LINE_BYTES_MAX - len("W "))
    assert second == "next"


async def test_the_pipe_of_a_killed_runner_ends_the_reading_quietly() -> None:
    log = await read(b"E last w", b"ords", breaks=True)

    assert log.last_lines == ("last words",)


async def test_a_note_is_the_daemons_own_and_no_line_of_the_runner(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log = await read()
    log.note("had to be killed")

    assert caplog.messages == ["llama:8b: had to be killed"]
    assert log.last_lines == ()
