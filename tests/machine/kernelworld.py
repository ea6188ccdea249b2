"""A world around a core: clients, processes, devices, administrators and a clock, played at random.

What must hold after every step is asserted here, whoever chooses the steps: Hypothesis, or a plain
generator of random numbers for very many steps.
"""

from __future__ import annotations

import collections
import dataclasses
import math
import random
from collections.abc import Callable, Iterator
from typing import Final

from ollamad.config import RunnerConfig, SchedulingConfig
from ollamad.errors import LoadFailed, RunnerCrashed
from ollamad.gpu.budget import Budget
from ollamad.gpu.devices import (
    HOST,
    DeviceFacts,
    DeviceHealth,
    DeviceId,
    DeviceKind,
    SeenDevice,
)
from ollamad.modelpolicy import ModelPolicy
from ollamad.options import LoadOptions
from ollamad.runners.protocol import MemoryUse
from ollamad.runners.states import RunnerState
from ollamad.supervisor.commands import (
    Command,
    Grant,
    Note,
    NoteKind,
    Refuse,
    StartRunner,
    StopRunner,
)
from ollamad.supervisor.compat import PlanDefaults
from ollamad.supervisor.core import Core
from ollamad.supervisor.daemonstate import DaemonState
from ollamad.supervisor.decisions import Verdict, decide
from ollamad.supervisor.events import (
    DevicesSeen,
    DrainAsked,
    Event,
    EvictAsked,
    MemoryReturned,
    PauseAsked,
    PinAsked,
    RequestArrived,
    RequestContinues,
    RequestGone,
    RequestServedAgain,
    ResetAsked,
    RestartAsked,
    ResumeAsked,
    RunnerExited,
    RunnerHello,
    RunnerId,
    RunnerLoaded,
    RunnerLoadFailed,
    RunnerProgress,
    RunnerStalled,
    Subject,
    TicketId,
    UnloadAsked,
)
from ollamad.supervisor.explanation import explain
from ollamad.supervisor.healing import Part
from ollamad.supervisor.residents import COMING, Resident, loads_on
from ollamad.units import GIB, MIB
from tests.fakes.placing import place_simply
from tests.values import a_subject

HOST_BYTES: Final = 6 * GIB
GPU_BYTES: Final = 4 * GIB
N_GPUS_MAX: Final = 3
LADDER_S: Final = 8.0
"""How long a runner takes to die that was ordered to stop, at most: the stop ladder's patience."""
ROUNDING_S: Final = 1e-6
"""What sums of times may be off."""
SCHEDULING: Final = SchedulingConfig(queue_length_max=8, models_loaded_max=4)
PINNED_LEAVE_FOR: Final = (
    "an administrator",
    "it is to be restarted",
    "its device",
    "the daemon takes no more work",
    "other load options",
    "a request with other load options",
)
"""What a pinned model is evicted for: somebody's word, or its own good; never for others' room."""


def _model(name: str, weights_bytes: int, **policy: object) -> Subject:
    subject = a_subject(name=name, weights_bytes=weights_bytes)
    return dataclasses.replace(subject, policy=ModelPolicy(**policy))  # type: ignore[arg-type]


MODELS: Final = (
    _model("small", GIB // 2),
    _model("medium", GIB, priority=2),
    _model("large", 3 * GIB),
    _model("split", 6 * GIB),
    _model("bound", GIB, devices=("0",), priority=-1),
    _model("cpu", 2 * GIB, cpu_only=True),
    _model("kept", GIB // 2, pinned=True),
    _model("monster", 40 * GIB),
)


@dataclasses.dataclass
class Process:
    """A runner's process."""

    stage: str = "started"
    """`started`, `loading`, `loaded` or `failed`."""
    stop_ordered_at: float = math.inf


class World:
    """See the module. A step is one of `ACTIONS`, applied to a source of chance."""

    def __init__(self, rng: random.Random) -> None:
        self.core = Core(
            SCHEDULING,
            PlanDefaults(RunnerConfig(n_slots=1), n_cores=2),
            Budget([DeviceFacts(device=HOST, name="host", capacity_bytes=HOST_BYTES)]),
            place_simply,
        )
        self.now = 0.0
        self.n_tickets = 0
        self.waiting: set[TicketId] = set()
        self.granted: dict[TicketId, RunnerId] = {}
        self.alive: dict[RunnerId, Process] = {}
        self.exited: set[RunnerId] = set()
        self.back: set[TicketId] = set()
        """Requests that have lost a runner."""
        self.excused: set[RunnerId] = set()
        """Runners that may be stopped under their leases."""
        self.gpus: dict[DeviceId, DeviceHealth] = {}
        self.on_gpus: dict[RunnerId, dict[DeviceId, int]] = {}
        """What processes hold of GPUs; also for a while after they have ended."""
        self.lists_processes = rng.random() < 0.5
        self.host_used_bytes = 0
        for _ in range(rng.randrange(N_GPUS_MAX + 1)):
            self._plug_in()
        self._look()

    # The core's side

    def send(self, event: Event | None) -> list[Command]:
        """Let the core handle *event*, carry out what it orders, and check what must hold."""
        leased = {r.runner: set(r.leases) for r in self.core.residents.values()}
        coming = {r.runner: r for r in self.core.roster.in_state(COMING)}
        commands = self.core.handle(event, self.now)
        for command in commands:
            self._carry_out(command, leased, coming)
        self._check()
        return commands

    def _carry_out(
        self,
        command: Command,
        leased: dict[RunnerId, set[TicketId]],
        coming: dict[RunnerId, Resident],
    ) -> None:
        match command:
            case StartRunner(runner):
                assert runner not in self.alive
                self._check_start(self.core.residents[runner], coming)
                self.alive[runner] = Process()
            case StopRunner(runner):
                assert runner in self.core.residents, "a runner that is gone was stopped"
                process = self.alive.get(runner)
                if process is not None:
                    assert math.isinf(process.stop_ordered_at), "a runner was stopped twice"
                    process.stop_ordered_at = self.now
                still_leased = leased.get(runner, set()) & set(self.granted)
                assert not still_leased or runner in self.excused, "stopped while leased"
            case Grant(ticket, runner):
                assert ticket in self.waiting, "a ticket was answered twice, or after it left"
                # It may have been ordered to drain since, for a later ticket of the same event;
                # then it drains until this lease is back.
                resident = self.core.residents[runner]
                assert resident.state in {RunnerState.READY, RunnerState.DRAINING}
                assert ticket in resident.leases
                self.waiting.discard(ticket)
                self.granted[ticket] = runner
            case Refuse(ticket):
                assert ticket in self.waiting, "a ticket was answered twice, or after it left"
                self.waiting.discard(ticket)
            case Note(NoteKind.EVICTING, _, fields):
                resident = self.core.residents[fields["runner"]]  # type: ignore[index]
                why = str(fields["reason"])
                assert not resident.is_pinned or why.startswith(PINNED_LEAVE_FOR), why
            case _:
                pass

    def _check_start(self, resident: Resident, coming: dict[RunnerId, Resident]) -> None:
        placement = resident.placement
        for device, n_bytes in placement.amounts.items():
            usable = self.core.roster.inventory.is_usable(device)
            assert usable, f"{resident.subject.name} was put on {device}"
            free = self.core.budget.free_bytes(device)
            assert free >= 0, f"{n_bytes} were reserved on {device}, which then had {free}"
        for other in coming.values():
            if other.runner in self.core.residents and other.state in COMING:
                assert loads_on(placement).isdisjoint(other.loads_on), "two loads share a device"

    def _check(self) -> None:
        core, now, limits = self.core, self.now, self.core.scheduling
        assert core.next_deadline() > now, "the loop would spin"
        bounds = {
            RunnerState.DRAINING: limits.drain_timeout_s,
            RunnerState.STOPPING: LADDER_S,
            RunnerState.RECLAIMING: limits.reclaim_timeout_s,
        }
        seats: set[TicketId] = set()
        for resident in core.residents.values():
            bound_s = bounds.get(resident.state, math.inf)
            is_in_time = now - resident.since <= bound_s + ROUNDING_S
            assert is_in_time, f"{resident.state.value} for too long"
            assert not resident.leases or resident.state not in COMING
            if resident.state in {*COMING, RunnerState.READY}:
                assert all(map(core.roster.inventory.is_usable, resident.gpus)), "a bad device"
            elif resident.state is RunnerState.DRAINING:
                assert not any(map(core.roster.inventory.is_lost, resident.gpus)), "a lost device"
            seats |= resident.leases
        assert seats <= set(self.granted)
        assert {t.id for t in core.line.waiting() if not t.is_own} == self.waiting
        n_own = sum(t.is_own for t in core.line.waiting())
        assert len(self.waiting - self.back) <= limits.queue_length_max
        in_turn = [t.id in self.back for t in core.line.in_turn(now, limits.ageing_s)]
        assert in_turn == sorted(in_turn, reverse=True), "who is in the middle comes first"
        for resident in core.residents.values():
            assert resident.on_trial is None or resident.on_trial in resident.leases
        assert n_own <= len(MODELS)
        if not core.residents:
            assert not any(map(core.budget.reserved_bytes, core.budget.devices))

    def check_nothing_is_overlooked(self) -> None:
        """Nobody waits for what could be done. Dear, and so not after each step."""
        at = self.core.situation(self.now)
        for ticket in self.core.line.in_turn(self.now, SCHEDULING.ageing_s):
            decision = decide(ticket, at, math.inf)
            assert decision.verdict not in {Verdict.GRANT, Verdict.START, Verdict.REFUSE}
        assert not self.core.overdue(self.now)

    # Clients

    def arrive(self, rng: random.Random) -> None:
        """Somebody asks for a model."""
        subject = rng.choice(MODELS)
        options = LoadOptions(n_ctx=rng.choice((None, None, None, None, 2048)))
        foreseen = None
        if not self.waiting and not self.core.line.n_waiting:
            foreseen = explain(self.core, subject, options, self.now).verdict
        self.n_tickets += 1
        ticket = TicketId(self.n_tickets)
        self.waiting.add(ticket)
        commands = self.send(
            RequestArrived(
                ticket=ticket,
                subject=subject,
                options=options,
                keep_alive_s=rng.choice((None, None, 0.0, 10.0, math.inf)),
                client=rng.choice("abc"),
            )
        )
        if foreseen is not None:
            assert foreseen in self._seen(ticket, commands)

    def _seen(self, ticket: TicketId, commands: list[Command]) -> set[Verdict]:
        """Return which verdicts may have led to these commands."""
        for command in commands:
            match command:
                case Grant(of) if of == ticket:
                    return {Verdict.GRANT}
                case Refuse(of) if of == ticket:
                    return {Verdict.REFUSE}
                case StartRunner():
                    return {Verdict.START}
                case StopRunner():
                    return {Verdict.EVICT}
                case _:
                    pass
        return {Verdict.JOIN, Verdict.WAIT}

    def leave(self, rng: random.Random) -> None:
        """A request is over, or its client leaves; perhaps one that was never heard of."""
        everyone = sorted({*self.waiting, *self.granted, TicketId(self.n_tickets + 1)})
        self._leave(rng.choice(everyone))

    def lose(self, rng: random.Random) -> None:
        """A request whose runner has ended asks for another one."""
        lost = sorted(t for t, runner in self.granted.items() if runner not in self.alive)
        if not lost:
            return
        ticket = rng.choice(lost)
        del self.granted[ticket]
        self.waiting.add(ticket)
        self.back.add(ticket)
        self.send(RequestContinues(ticket, rng.choice(list(Part)), RunnerCrashed("it ended")))

    def be_served_again(self, rng: random.Random) -> None:
        """A request that has another runner gets something from it."""
        if back := sorted(self.back & set(self.granted)):
            self.send(RequestServedAgain(rng.choice(back), rng.randrange(9)))

    def _leave(self, ticket: TicketId) -> None:
        self.waiting.discard(ticket)
        self.granted.pop(ticket, None)
        self.send(RequestGone(ticket))

    # Processes

    def runner_gets_on(self, rng: random.Random) -> None:
        """A runner says hello, loads, or fails to."""
        if not self.alive:
            return
        runner = rng.choice(sorted(self.alive))
        process = self.alive[runner]
        match process.stage:
            case "started":
                process.stage = "loading"
                self.send(RunnerHello(runner, pid=1000 + runner))
            case "loading" if rng.random() < 0.12:
                process.stage = "failed"
                out_of_memory = rng.random() < 0.5
                self.send(RunnerLoadFailed(runner, LoadFailed("no"), out_of_memory))
            case "loading":
                process.stage = "loaded"
                self._fill(runner)
                self.send(RunnerProgress(runner, 0.5))
                self.send(RunnerLoaded(runner, self._memory_of(runner)))
            case _:
                pass

    def _fill(self, runner: RunnerId) -> None:
        resident = self.core.residents.get(runner)
        if resident is not None:
            amounts = resident.placement.amounts
            self.on_gpus[runner] = {d: n for d, n in amounts.items() if d in self.gpus}

    def _memory_of(self, runner: RunnerId) -> MemoryUse:
        resident = self.core.residents.get(runner)
        n_bytes = resident.placement.amounts[HOST] if resident is not None else 0
        return MemoryUse(anonymous_bytes=32 * MIB, file_bytes=max(n_bytes - 40 * MIB, 0))

    def runner_exits(self, rng: random.Random) -> None:
        """A process ends by itself."""
        if self.alive:
            self._exit(rng.choice(sorted(self.alive)))

    def stopped_runners_exit(self, _rng: random.Random) -> None:
        """Those that were ordered to stop do."""
        for runner, process in sorted(self.alive.items()):
            if math.isfinite(process.stop_ordered_at):
                self._exit(runner)
                self._return_memory(runner)

    def _exit(self, runner: RunnerId) -> None:
        del self.alive[runner]
        self.exited.add(runner)
        # Its streams end by themselves, and give their leases back.
        self.excused.add(runner)
        self.send(RunnerExited(runner, "killed by SIGKILL"))

    def memory_returns(self, rng: random.Random) -> None:
        """The memory of an ended process is free again."""
        if self.exited:
            self._return_memory(rng.choice(sorted(self.exited)))

    def _return_memory(self, runner: RunnerId) -> None:
        self.exited.discard(runner)
        self.on_gpus.pop(runner, None)
        self.send(MemoryReturned(runner))
        self._look()

    def runner_stalls(self, rng: random.Random) -> None:
        """An engine hangs."""
        if self.alive:
            runner = rng.choice(sorted(self.alive))
            self.excused.add(runner)
            self.send(RunnerStalled(runner))

    # Devices

    def read_devices(self, rng: random.Random) -> None:
        """The devices are looked at; others may use main memory."""
        self.host_used_bytes = rng.randrange(2 * GIB)
        self._look()

    def gpu_comes(self, _rng: random.Random) -> None:
        """A driver finds one more GPU."""
        if len(self.gpus) < N_GPUS_MAX:
            self._plug_in()
            self._look()

    def _plug_in(self) -> None:
        number = next(n for n in range(N_GPUS_MAX) if DeviceId(f"GPU-{n}") not in self.gpus)
        self.gpus[DeviceId(f"GPU-{number}")] = DeviceHealth.HEALTHY

    def gpu_is_lost(self, rng: random.Random) -> None:
        """A GPU falls off the bus. What runs there may be stopped."""
        if self.gpus:
            lost = rng.choice(sorted(self.gpus))
            del self.gpus[lost]
            for held in self.on_gpus.values():
                held.pop(lost, None)
            self.excused.update(r.runner for r in self._on(lost))
            self._look()

    def gpu_turns(self, rng: random.Random) -> None:
        """A GPU's health is another."""
        if self.gpus:
            self.gpus[rng.choice(sorted(self.gpus))] = rng.choice(tuple(DeviceHealth))
            self._look()

    def _on(self, device: DeviceId) -> Iterator[Resident]:
        return (r for r in self.core.residents.values() if device in r.placement.amounts)

    def _look(self) -> None:
        host = DeviceFacts(device=HOST, name="host", capacity_bytes=HOST_BYTES)
        seen = [SeenDevice(facts=host, used_bytes=self.host_used_bytes)]
        for device, health in self.gpus.items():
            held = {1000 + r: n[device] for r, n in self.on_gpus.items() if device in n}
            facts = DeviceFacts(
                device=device,
                name=device,
                capacity_bytes=GPU_BYTES,
                kind=DeviceKind.CUDA,
                index=int(device[-1]),
            )
            seen.append(
                SeenDevice(
                    facts=facts,
                    used_bytes=sum(held.values()),
                    by_process=held if self.lists_processes else {},
                    health=health,
                )
            )
        self.send(DevicesSeen(tuple(seen)))

    # People

    def steer(self, rng: random.Random) -> None:
        """A user or an administrator asks for something about a model."""
        weights_id = rng.choice(MODELS).weights_id
        match rng.randrange(6):
            case 0:
                self.send(UnloadAsked(weights_id))
            case 1:
                self.send(EvictAsked(weights_id))
            case 2:
                if (resident := self.core.roster.of(weights_id)) is not None:
                    self.excused.add(resident.runner)
                self.send(EvictAsked(weights_id, by_force=True))
            case 3:
                self.send(RestartAsked(weights_id))
            case 4:
                self.send(ResetAsked(weights_id))
            case _:
                self.send(PinAsked(weights_id, rng.random() < 0.3))

    def pause(self, rng: random.Random) -> None:
        """An administrator drains the daemon, or more often resumes it."""
        self.send(PauseAsked() if rng.random() < 0.15 else ResumeAsked())

    # Time

    def time_passes(self, rng: random.Random) -> None:
        """Some time passes."""
        self._pass(self.now + rng.choice((0.1, 1.0, 31.0, 301.0)))

    def the_next_deadline_comes(self, _rng: random.Random) -> None:
        """Time passes until something is due."""
        if math.isfinite(deadline := self.core.next_deadline()):
            self._pass(max(deadline, self.now))

    def _pass(self, until: float) -> None:
        """Let time pass; the core is woken at its deadlines, and stop ladders come to their end."""
        while True:
            ladders = [p.stop_ordered_at + LADDER_S for p in self.alive.values()]
            self.now = min(until, self.core.next_deadline(), *ladders)
            # A deadline may end the patience with a runner, whoever leases it.
            residents = self.core.residents.values()
            self.excused.update(r.runner for r in residents if r.deadline <= self.now)
            for runner, process in sorted(self.alive.items()):
                if process.stop_ordered_at + LADDER_S <= self.now:
                    self._exit(runner)
            self.send(None)
            if self.now >= until:
                return

    # The end

    def end(self) -> None:
        """When all have left and time has passed, only what is meant to stay is resident."""
        self.send(ResumeAsked())
        for ticket in sorted({*self.waiting, *self.granted}):
            self._leave(ticket)
        self._pass(self.now + 10_000)
        self._finish_loads()
        self._pass(self.now + 10_000)
        self.check_nothing_is_overlooked()
        for resident in self.core.residents.values():
            assert resident.is_pinned or math.isinf(resident.keep_alive_s)
            assert resident.is_idle
        self.send(DrainAsked())
        self._pass(self.now + 10_000)
        assert not self.core.residents
        assert not any(map(self.core.budget.reserved_bytes, self.core.budget.devices))
        assert self.core.state is DaemonState.STOPPED

    def _finish_loads(self) -> None:
        """Nobody waits, but a restart may be under way."""
        for runner, process in sorted(self.alive.items()):
            if process.stage in {"started", "loading"} and math.isinf(process.stop_ordered_at):
                self.send(RunnerHello(runner, pid=1000 + runner))
                self.send(RunnerLoaded(runner, self._memory_of(runner)))


ACTIONS: Final[tuple[tuple[int, Callable[[World, random.Random], None]], ...]] = (
    (24, World.arrive),
    (16, World.leave),
    (6, World.lose),
    (6, World.be_served_again),
    (34, World.runner_gets_on),
    (2, World.runner_exits),
    (6, World.stopped_runners_exit),
    (5, World.memory_returns),
    (2, World.runner_stalls),
    (4, World.read_devices),
    (1, World.gpu_comes),
    (1, World.gpu_is_lost),
    (2, World.gpu_turns),
    (4, World.steer),
    (2, World.pause),
    (4, World.time_passes),
    (6, World.the_next_deadline_comes),
)
"""What may happen, and how often beside the others."""

_WEIGHTS: Final = [weight for weight, _ in ACTIONS]
STEPS_BETWEEN_CHECKS: Final = 8
"""Steps after which what is dear is checked."""


def walk(seed: int, n_steps: int) -> collections.Counter[str]:
    """Take *n_steps* random steps in a new world, end it, and return how often each was taken.

    Raises AssertionError, with the seed and the last steps noted, when something does not hold.
    """
    rng = random.Random(seed)  # noqa: S311 - nothing is secret
    world = World(rng)
    taken: list[str] = []
    try:
        for number in range(n_steps):
            ((_, action),) = rng.choices(ACTIONS, _WEIGHTS)
            taken.append(action.__name__)
            action(world, rng)
            if number % STEPS_BETWEEN_CHECKS == 0:
                world.check_nothing_is_overlooked()
        taken.append("end")
        world.end()
    except BaseException as exc:
        exc.add_note(f"seed {seed}, step {len(taken)}: {', '.join(taken[-8:])}")
        raise
    return collections.Counter(taken)
