"""Lines reach the client in their order, whether they are written or iterated over."""

from __future__ import annotations

import trio
from trio.testing import wait_all_tasks_blocked

from ollamad.errors import RunnerCrashed
from ollamad.http.streaming import AnswerLines
from ollamad.runners.mailbox import Mailbox, Piece
from ollamad.runners.protocol import Delta, Finished
from tests.unit.runners.messages import a_delta, a_finish


class Client:
    """Reads an answer: what is iterated over and what is written come to the same place."""

    def __init__(self) -> None:
        self.is_free = True
        self.lines: list[bytes] = []
        self.n_written = 0
        self.n_made = 0
        self.is_over = False

    def write(self, piece: bytes) -> None:
        assert self.is_free
        self.n_written += 1
        self.lines.append(piece)

    def piece(self, piece: Piece | Delta) -> bytes:
        self.n_made += 1
        return piece.text.encode() + b"\n" if piece.text else b""

    def finish(self, finished: Finished) -> bytes:
        return b"end\n"

    async def read(self, mailbox: Mailbox) -> None:
        lines = AnswerLines(mailbox, Piece("first", ()), self.piece, self.finish, self)
        async with lines as body:
            async for line in body:
                self.lines.append(line)
        self.is_over = True


async def test_a_client_that_keeps_up_gets_its_lines_written() -> None:
    box, client = Mailbox(), Client()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.read, box)
        await wait_all_tasks_blocked()
        for text in ("a", "", "b"):
            box.put(a_delta(text=text))
        box.close(a_finish())

    assert client.lines == [b"first\n", b"a\n", b"", b"b\n", b"end\n"]
    assert (client.n_written, client.n_made) == (3, 4)


async def test_a_client_that_falls_behind_gets_the_rest_in_order_and_each_delta_once() -> None:
    box, client = Mailbox(), Client()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.read, box)
        await wait_all_tasks_blocked()
        box.put(a_delta(text="a"))
        client.is_free = False
        box.put(a_delta(text="b"))
        client.is_free = True
        box.put(a_delta(text="c"))
        await wait_all_tasks_blocked()
        box.put(a_delta(text="d"))
        box.close(a_finish())

    assert client.lines == [b"first\n", b"a\n", b"bc\n", b"d\n", b"end\n"]
    assert (client.n_written, client.n_made) == (2, 4)


async def test_an_error_is_the_last_line_also_after_written_ones() -> None:
    box, client = Mailbox(), Client()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.read, box)
        await wait_all_tasks_blocked()
        box.put(a_delta(text="a"))
        box.close(RunnerCrashed("gone"))

    assert client.lines == [b"first\n", b"a\n", b'{"error":"gone"}\n']
    assert client.is_over


async def test_nothing_is_written_to_a_request_that_was_cancelled() -> None:
    box, client = Mailbox(), Client()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.read, box)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    box.put(a_delta(text="late"))

    assert (client.lines, client.is_over) == ([b"first\n"], False)
