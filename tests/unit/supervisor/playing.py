"""Playing with a core, without the world around it: models, and what happens to runners."""

from __future__ import annotations

from ollamad.errors import OllamadError
from ollamad.supervisor.commands import Command, Note, NoteKind, Refuse
from ollamad.supervisor.core import Core
from ollamad.supervisor.events import (
    MemoryReturned,
    RequestGone,
    RunnerExited,
    RunnerHello,
    RunnerId,
    RunnerLoaded,
    Subject,
    TicketId,
)
from ollamad.units import GIB
from tests.values import a_core, a_subject, arrival, some_memory

LLAMA = a_subject(name="llama:8b")
QWEN = a_subject(name="qwen:8b")
GEMMA = a_subject(name="gemma:27b", weights_bytes=3 * GIB)

R1, R2, R3 = RunnerId(1), RunnerId(2), RunnerId(3)


def orders(commands: list[Command]) -> list[Command]:
    """What is done, without what is said about it."""
    return [command for command in commands if not isinstance(command, Note)]


def kinds(commands: list[Command]) -> list[type]:
    return [type(command) for command in orders(commands)]


def refusal(commands: list[Command]) -> OllamadError:
    (refuse,) = (command for command in commands if isinstance(command, Refuse))
    return refuse.error


def load(core: Core, runner: RunnerId, now: float, subject: Subject = LLAMA) -> list[Command]:
    core.handle(RunnerHello(runner, pid=1000 + runner), now)
    memory = some_memory(weights_bytes=subject.facts.file_bytes)
    return orders(core.handle(RunnerLoaded(runner, memory), now))


def leave(core: Core, runner: RunnerId, now: float) -> list[Command]:
    core.handle(RunnerExited(runner, "exit status 0"), now)
    return orders(core.handle(MemoryReturned(runner), now))


def resident_core(subject: Subject = LLAMA, **settings: object) -> Core:
    """A core with one idle runner of *subject* since 1 s."""
    core = a_core(**settings)  # type: ignore[arg-type]
    core.handle(arrival(1, subject), 0)
    load(core, R1, 1, subject)
    core.handle(RequestGone(TicketId(1)), 1)
    return core


def notes(commands: list[Command], kind: NoteKind) -> list[Note]:
    """What is said of this kind."""
    return [c for c in commands if isinstance(c, Note) and c.kind is kind]
