"""What is asked of the core from outside: eviction, restart, reset, pins, pause, explanations."""

from __future__ import annotations

import dataclasses
import math

import pytest

from ollamad.config import SchedulingConfig
from ollamad.errors import CoolingDown, DoesNotFit, Draining, LoadFailed
from ollamad.modelinfo import WeightsId
from ollamad.modelpolicy import ModelPolicy
from ollamad.options import LoadOptions
from ollamad.runners.states import RunnerState
from ollamad.supervisor.commands import (
    GiveSign,
    Grant,
    NoteKind,
    Refuse,
    StartRunner,
    StopRunner,
)
from ollamad.supervisor.core import Core
from ollamad.supervisor.daemonstate import DaemonState
from ollamad.supervisor.decisions import Verdict
from ollamad.supervisor.events import (
    DrainAsked,
    EvictAsked,
    PauseAsked,
    PinAsked,
    RequestGone,
    ResetAsked,
    RestartAsked,
    ResumeAsked,
    RunnerExited,
    RunnerHello,
    RunnerId,
    RunnerStalled,
    SignAsked,
    TicketId,
    UnloadAsked,
)
from ollamad.supervisor.explanation import Explanation, explain
from ollamad.supervisor.steering import PINS_MAX
from ollamad.supervisor.views import cooling_views, device_views, resident_views, waiting_views
from ollamad.units import GIB
from tests.unit.supervisor.playing import (
    GEMMA,
    LLAMA,
    QWEN,
    R1,
    R2,
    kinds,
    leave,
    load,
    notes,
    orders,
    refusal,
    resident_core,
)
from tests.values import a_core, a_reading, a_subject, arrival

MONSTER = a_subject(name="monster", weights_bytes=40 * GIB)


def busy_core(*, memory_bytes: int = 8 * GIB) -> Core:
    """A core with one model that is used by ticket 1."""
    core = a_core(memory_bytes=memory_bytes)
    core.handle(arrival(1, LLAMA), 0)
    load(core, R1, 1)
    return core


def failing_core(n_failures: int) -> Core:
    """A core whose model has stalled so many times; requests cool it after three."""
    core = a_core()
    now = 0.0
    for number in range(1, n_failures + 1):
        core.handle(arrival(number, LLAMA), now)
        load(core, RunnerId(number), now + 1)
        core.handle(RunnerStalled(RunnerId(number)), now + 2)
        leave(core, RunnerId(number), now + 3)
        core.handle(RequestGone(TicketId(number)), now + 3)
        now += 10
    return core


# Eviction


def test_an_idle_runner_is_evicted_at_once() -> None:
    core = resident_core()

    assert orders(core.handle(EvictAsked(LLAMA.weights_id), 2)) == [StopRunner(R1)]


def test_a_busy_runner_finishes_its_answers_first() -> None:
    core = busy_core()

    assert orders(core.handle(EvictAsked(LLAMA.weights_id), 2)) == []
    assert core.residents[R1].state is RunnerState.DRAINING
    assert orders(core.handle(RequestGone(TicketId(1)), 3)) == [StopRunner(R1)]


def test_force_does_not_wait_for_answers() -> None:
    core = busy_core()

    forced = core.handle(EvictAsked(LLAMA.weights_id, by_force=True), 2)

    assert orders(forced) == [StopRunner(R1)]
    assert notes(forced, NoteKind.STOPPING)[0].fields["leases"] == 1


def test_force_hurries_a_runner_that_is_draining() -> None:
    core = busy_core()
    core.handle(EvictAsked(LLAMA.weights_id), 2)

    assert orders(core.handle(EvictAsked(LLAMA.weights_id, by_force=True), 3)) == [StopRunner(R1)]
    assert orders(core.handle(EvictAsked(LLAMA.weights_id, by_force=True), 4)) == []


def test_force_refuses_those_who_wait_for_the_load() -> None:
    core = a_core()
    core.handle(arrival(1, LLAMA), 0)

    forced = core.handle(EvictAsked(LLAMA.weights_id, by_force=True), 1)

    assert set(kinds(forced)) == {StopRunner, Refuse}
    assert isinstance(refusal(forced), LoadFailed)
    assert kinds(leave(core, R1, 2)) == []
    assert kinds(core.handle(arrival(2, LLAMA), 3)) == [StartRunner]


def test_a_load_is_finished_for_those_who_wait_and_leaves_after_that() -> None:
    core = a_core()
    core.handle(arrival(1, LLAMA), 0)

    assert orders(core.handle(EvictAsked(LLAMA.weights_id), 1)) == []
    assert load(core, R1, 2) == [Grant(TicketId(1), R1)]
    assert orders(core.handle(RequestGone(TicketId(1)), 3)) == [StopRunner(R1)]


# Restart


def test_a_restarted_runner_comes_again_though_nobody_asks_for_it() -> None:
    core = a_core()
    core.handle(arrival(1, LLAMA, options=LoadOptions(n_ctx=2048), keep_alive_s=math.inf), 0)
    load(core, R1, 1)

    core.handle(RestartAsked(LLAMA.weights_id), 2)
    core.handle(RequestGone(TicketId(1)), 3)
    (again,) = leave(core, R1, 4)

    assert isinstance(again, StartRunner)
    assert again.plan.n_ctx == 2048
    assert load(core, R2, 5) == []
    assert core.residents[R2].is_idle
    assert math.isinf(core.next_deadline())


def test_a_restart_that_fails_tells_nobody() -> None:
    core = resident_core()
    core.handle(RestartAsked(LLAMA.weights_id), 2)
    leave(core, R1, 3)

    failed = core.handle(RunnerExited(R2, "exit status 1"), 4)

    assert orders(failed) == []
    assert core.line.n_waiting == 0


def test_a_load_under_way_is_not_restarted() -> None:
    core = a_core()
    core.handle(arrival(1, LLAMA), 0)

    assert orders(core.handle(RestartAsked(LLAMA.weights_id), 1)) == []
    assert load(core, R1, 2) == [Grant(TicketId(1), R1)]


# Reset


def test_a_reset_ends_a_cooling() -> None:
    core = failing_core(3)
    assert isinstance(refusal(core.handle(arrival(8, LLAMA), 30)), CoolingDown)
    (cooling,) = cooling_views(core, 30)
    assert (cooling.name, cooling.n_failures, cooling.until) == (LLAMA.name, 3, 52)
    assert "no progress" in cooling.reason

    core.handle(ResetAsked(LLAMA.weights_id), 31)

    assert cooling_views(core, 31) == ()
    assert kinds(core.handle(arrival(9, LLAMA), 31)) == [StartRunner]


def test_a_restart_that_is_put_off_keeps_its_requests_waiting_until_then() -> None:
    core = a_core(scheduling=SchedulingConfig(restart_delay_s=5))
    for number, now in ((1, 0.0), (2, 10.0)):
        core.handle(arrival(number, LLAMA), now)
        load(core, RunnerId(number), now + 1)
        core.handle(RunnerStalled(RunnerId(number)), now + 2)
        leave(core, RunnerId(number), now + 2)
        core.handle(RequestGone(TicketId(number)), now + 2)

    assert orders(core.handle(arrival(3, LLAMA), 13)) == []
    assert core.next_deadline() == 17
    assert kinds(core.handle(None, 17)) == [StartRunner]


# Pins


def test_a_pinned_model_neither_expires_nor_leaves_for_others() -> None:
    core = resident_core(memory_bytes=4 * GIB)
    core.handle(PinAsked(LLAMA.weights_id, True), 2)

    refused = refusal(core.handle(arrival(2, GEMMA), 10))

    assert isinstance(refused, DoesNotFit)
    assert "pinned models stay: llama:8b" in refused.message
    assert core.next_deadline() == math.inf
    core.handle(PinAsked(LLAMA.weights_id, False), 400)
    assert core.residents[R1].state is RunnerState.STOPPING


def test_places_that_pinned_models_hold_are_nobody_elses() -> None:
    core = resident_core(scheduling=SchedulingConfig(models_loaded_max=1))
    core.handle(PinAsked(LLAMA.weights_id, True), 2)

    refused = refusal(core.handle(arrival(2, QWEN), 10))

    assert "all 1 places are taken by pinned models" in refused.message


def test_a_client_cannot_unload_a_pinned_model_and_an_administrator_can() -> None:
    core = resident_core(dataclasses.replace(LLAMA, policy=ModelPolicy(pinned=True)))

    assert orders(core.handle(UnloadAsked(LLAMA.weights_id), 2)) == []
    assert orders(core.handle(EvictAsked(LLAMA.weights_id), 3)) == [StopRunner(R1)]


def test_an_administrators_word_outlives_the_runner_and_beats_the_policy() -> None:
    core = resident_core(dataclasses.replace(LLAMA, policy=ModelPolicy(pinned=True)))

    core.handle(PinAsked(LLAMA.weights_id, False), 2)
    core.handle(EvictAsked(LLAMA.weights_id), 3)
    leave(core, R1, 4)
    core.handle(arrival(2, dataclasses.replace(LLAMA, policy=ModelPolicy(pinned=True))), 5)

    assert not core.residents[R2].is_pinned


def test_words_about_pinning_are_bounded() -> None:
    core = a_core()
    for number in range(PINS_MAX + 10):
        core.handle(PinAsked(WeightsId(f"model {number}"), True), 0)

    assert len(core.steering._pins) == PINS_MAX
    assert core.steering.is_pinned(a_subject(name=f"model {PINS_MAX + 9}"))


# Pause and resume


def test_a_paused_daemon_takes_no_requests_and_lets_models_leave_when_they_are_idle() -> None:
    core = busy_core()
    core.handle(arrival(2, QWEN), 2)
    load(core, R2, 3, QWEN)
    core.handle(RequestGone(TicketId(2)), 4)

    paused = core.handle(PauseAsked(), 5)
    refused = refusal(core.handle(arrival(3, LLAMA), 6))

    assert orders(paused) == [StopRunner(R2)]
    assert isinstance(refused, Draining)
    assert refused.retry_after_s > 1
    assert orders(core.handle(RequestGone(TicketId(1)), 7)) == [StopRunner(R1)]
    leave(core, R1, 8)
    leave(core, R2, 8)
    assert core.state is DaemonState.PAUSED


def test_a_resumed_daemon_serves_and_keeps_what_is_still_loaded() -> None:
    core = busy_core()
    core.handle(PauseAsked(), 2)

    core.handle(ResumeAsked(), 3)
    core.handle(RequestGone(TicketId(1)), 4)

    assert orders(core.handle(arrival(2, LLAMA), 5)) == [Grant(TicketId(2), R1)]
    assert core.state is DaemonState.SERVING


def test_a_daemon_that_ends_does_not_turn_back() -> None:
    core = busy_core()
    core.handle(DrainAsked(), 2)

    core.handle(ResumeAsked(), 3)

    assert isinstance(refusal(core.handle(arrival(2, LLAMA), 4)), Draining)


def test_even_pinned_models_leave_a_paused_daemon() -> None:
    core = resident_core(dataclasses.replace(LLAMA, policy=ModelPolicy(pinned=True)))

    assert orders(core.handle(PauseAsked(), 2)) == [StopRunner(R1)]


# Signs of life


def test_a_sign_is_given_when_the_event_is_handled() -> None:
    assert a_core().handle(SignAsked(7), 0) == [GiveSign(7)]


def test_a_deadline_that_passed_long_ago_is_overdue() -> None:
    core = resident_core()

    assert core.overdue(305) == ""
    assert "deadline passed" in core.overdue(320)


def test_nothing_is_overdue_where_requests_wait_for_good_reasons() -> None:
    core = busy_core(memory_bytes=4 * GIB)
    core.handle(arrival(2, GEMMA), 2)
    core.handle(None, 32)

    assert core.overdue(32 + 20) == ""


def test_a_request_that_waits_for_nothing_is_overdue() -> None:
    core = busy_core(memory_bytes=4 * GIB)
    core.handle(arrival(2, GEMMA), 2)
    # As if the kernel had lost sight of a runner that left.
    core.budget.release(R1)
    del core.roster.residents[R1]

    assert "gemma" in core.overdue(20)


# Explanations and views


def explained(core: Core, *, options: LoadOptions | None = None, **asked: object) -> Explanation:
    subject = asked.get("subject", LLAMA)
    return explain(core, subject, options or LoadOptions(), 60)  # type: ignore[arg-type]


def test_an_explanation_is_what_would_happen() -> None:
    core = resident_core(memory_bytes=4 * GIB)
    before = repr(core.residents)

    cases = {
        Verdict.GRANT: explained(core),
        Verdict.EVICT: explained(core, options=LoadOptions(n_ctx=2048)),
        Verdict.START: explained(core, subject=QWEN),
        Verdict.REFUSE: explained(core, subject=MONSTER),
    }

    assert {verdict: each.verdict for verdict, each in cases.items()} == {v: v for v in cases}
    assert explained(core, subject=GEMMA).victims == (LLAMA.name,)
    assert repr(core.residents) == before
    assert core.line.n_waiting == 0
    assert core.handle(None, 61) == []


def test_an_explanation_tells_the_way_with_its_numbers() -> None:
    core = resident_core(memory_bytes=4 * GIB)

    told = explained(core, subject=GEMMA)

    assert told.lines[0] == "it has no runner"
    assert "it needs 3.0 GiB and could have 4.0 GiB" in told.lines[1]
    assert "1 of 3 places taken" in told.lines[2]
    assert told.lines[-1].startswith("evict: gemma:27b needs 3.0 GiB")
    assert told.demand is not None
    assert told.demand.weights_bytes == 3 * GIB
    assert told.placement is not None


def test_an_explanation_counts_what_those_who_wait_will_take() -> None:
    core = busy_core(memory_bytes=4 * GIB)
    core.handle(arrival(2, GEMMA), 2)

    told = explained(core, subject=QWEN)

    assert told.verdict is Verdict.WAIT
    assert told.lines[0] == "1 requests wait already"


@pytest.mark.parametrize("event", [PauseAsked(), DrainAsked()])
def test_an_explanation_of_a_daemon_that_takes_no_work_says_so(event: object) -> None:
    core = a_core()
    core.handle(event, 0)  # type: ignore[arg-type]

    assert explained(core).verdict is Verdict.REFUSE
    assert "draining" in explained(core).why


def test_views_show_who_is_there_who_waits_and_who_holds_what() -> None:
    core = busy_core(memory_bytes=4 * GIB)
    core.handle(a_reading(0, memory_bytes=4 * GIB), 1)
    core.handle(arrival(2, dataclasses.replace(GEMMA, policy=ModelPolicy(priority=3))), 2)

    (resident,) = resident_views(core, 4, lambda _runner: None)
    (waiting,) = waiting_views(core, 40)
    (device,) = device_views(core)

    assert (resident.pid, resident.age_s, resident.since, resident.n_leases) == (1001, 4, 1, 1)
    assert (waiting.place, waiting.waited_s, waiting.priority) == (1, 38, 4)
    assert waiting.waits_for.startswith("room: gemma:27b needs 3.0 GiB")
    assert device.holders == {LLAMA.name: device.reserved_bytes}
    assert device.free_bytes == 4 * GIB - device.reserved_bytes


def test_a_load_shows_its_progress_and_no_deadline_of_an_idle_runner() -> None:
    core = a_core()
    core.handle(arrival(1, LLAMA), 0)
    core.handle(RunnerHello(R1, 77), 1)

    (view,) = resident_views(core, 2, lambda _runner: None)

    assert (view.state, view.pid, view.progress) == (RunnerState.LOADING, 77, 0)
