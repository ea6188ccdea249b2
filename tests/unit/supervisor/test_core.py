from __future__ import annotations

import dataclasses
import math

import pytest

from ollamad.config import RunnerConfig, SchedulingConfig
from ollamad.errors import (
    CoolingDown,
    DoesNotFit,
    Draining,
    LoadFailed,
    LoadTimedOut,
    QueueFull,
)
from ollamad.gpu.devices import HOST
from ollamad.options import LoadOptions
from ollamad.runners.states import RunnerState
from ollamad.supervisor.commands import (
    AssignThreads,
    Command,
    Grant,
    Refuse,
    StartRunner,
    StopRunner,
)
from ollamad.supervisor.core import Core
from ollamad.supervisor.daemonstate import DaemonState
from ollamad.supervisor.events import (
    DrainAsked,
    MemoryReturned,
    RequestGone,
    RunnerExited,
    RunnerHello,
    RunnerId,
    RunnerLoaded,
    RunnerLoadFailed,
    RunnerProgress,
    RunnerStalled,
    TicketId,
    UnloadAsked,
)
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
    orders,
    refusal,
    resident_core,
)
from tests.values import a_core, a_reading, a_subject, arrival, some_memory


def test_the_first_request_starts_a_runner_and_is_granted_when_it_is_loaded() -> None:
    core = a_core()

    started = core.handle(arrival(1, LLAMA), 0)
    granted = load(core, R1, 3)

    assert kinds(started) == [StartRunner]
    assert granted == [Grant(TicketId(1), R1)]


def test_a_request_for_a_loading_model_joins_the_load() -> None:
    core = a_core()
    core.handle(arrival(1, LLAMA), 0)

    second = core.handle(arrival(2, LLAMA), 1)
    ready = load(core, R1, 9)

    assert orders(second) == []
    assert ready == [Grant(TicketId(1), R1), Grant(TicketId(2), R1)]


def test_leaving_while_loading_does_not_abort_the_load_for_others() -> None:
    core = a_core()
    core.handle(arrival(1, LLAMA), 0)
    core.handle(arrival(2, LLAMA), 1)

    gone = core.handle(RequestGone(TicketId(1)), 2)

    assert orders(gone) == []
    assert load(core, R1, 9) == [Grant(TicketId(2), R1)]


def test_an_idle_runner_leaves_exactly_when_its_keep_alive_is_over() -> None:
    core = resident_core()

    assert core.next_deadline() == 301
    assert orders(core.handle(None, 300.9)) == []
    assert orders(core.handle(None, 301)) == [StopRunner(R1)]
    leave(core, R1, 302)
    assert core.residents == {}
    assert core.budget.reserved_bytes(HOST) == 0
    assert core.next_deadline() == math.inf


def test_the_reservation_is_held_until_the_memory_is_back() -> None:
    core = resident_core()
    core.handle(None, 301)

    core.handle(RunnerExited(R1, "exit status 0"), 302)
    assert core.budget.reserved_bytes(HOST) > GIB
    core.handle(MemoryReturned(R1), 303)

    assert core.budget.reserved_bytes(HOST) == 0


def test_memory_that_does_not_come_back_is_not_waited_for_forever() -> None:
    core = resident_core()
    core.handle(None, 301)
    core.handle(RunnerExited(R1, "exit status 0"), 302)

    assert core.next_deadline() == 302 + core.scheduling.reclaim_timeout_s
    core.handle(None, core.next_deadline())

    assert core.residents == {}


def test_a_request_keeps_the_runner_however_long_it_takes() -> None:
    core = a_core()
    core.handle(arrival(1, LLAMA), 0)
    load(core, R1, 1)

    assert core.next_deadline() == math.inf
    assert orders(core.handle(None, 10_000)) == []


def test_a_stated_keep_alive_stays_with_the_runner_and_an_unstated_one_changes_nothing() -> None:
    core = a_core()
    core.handle(arrival(1, LLAMA, keep_alive_s=math.inf), 0)
    load(core, R1, 1)
    core.handle(RequestGone(TicketId(1)), 2)
    core.handle(arrival(2, LLAMA), 3)
    core.handle(RequestGone(TicketId(2)), 4)

    assert core.next_deadline() == math.inf


def test_a_keep_alive_of_zero_unloads_after_the_answer() -> None:
    core = a_core()
    core.handle(arrival(1, LLAMA, keep_alive_s=0), 0)
    load(core, R1, 1)

    assert orders(core.handle(RequestGone(TicketId(1)), 2)) == [StopRunner(R1)]


def test_unload_waits_for_open_requests() -> None:
    core = a_core()
    core.handle(arrival(1, LLAMA), 0)
    load(core, R1, 1)

    assert orders(core.handle(UnloadAsked(LLAMA.weights_id), 2)) == []
    assert orders(core.handle(RequestGone(TicketId(1)), 3)) == [StopRunner(R1)]


def test_an_idle_model_makes_room_for_one_that_needs_its_memory() -> None:
    core = resident_core(memory_bytes=4 * GIB)

    evicting = core.handle(arrival(2, GEMMA), 10)
    starting = leave(core, R1, 11)

    assert orders(evicting) == [StopRunner(R1)]
    assert kinds(starting) == [StartRunner]


def test_a_busy_model_is_not_evicted_before_the_other_has_waited_long() -> None:
    core = a_core(memory_bytes=4 * GIB)
    core.handle(arrival(1, LLAMA), 0)
    load(core, R1, 1)

    assert orders(core.handle(arrival(2, GEMMA), 10)) == []
    assert core.next_deadline() == 10 + core.scheduling.starvation_s
    assert orders(core.handle(None, core.next_deadline())) == []
    assert core.residents[R1].state is RunnerState.DRAINING
    assert orders(core.handle(RequestGone(TicketId(1)), 50)) == [StopRunner(R1)]
    assert kinds(leave(core, R1, 51)) == [StartRunner]


def test_steady_traffic_for_one_model_cannot_starve_another() -> None:
    core = a_core(memory_bytes=4 * GIB)
    core.handle(arrival(1, LLAMA), 0)
    load(core, R1, 1)
    core.handle(arrival(2, GEMMA), 2)
    core.handle(None, core.next_deadline())

    late = core.handle(arrival(3, LLAMA), 40)
    core.handle(RequestGone(TicketId(1)), 41)
    started = leave(core, R1, 42)

    assert orders(late) == []
    assert [c.name for c in started if isinstance(c, StartRunner)] == [GEMMA.name]


def test_a_draining_runner_is_stopped_when_its_patience_is_over() -> None:
    core = a_core(memory_bytes=4 * GIB)
    core.handle(arrival(1, LLAMA), 0)
    load(core, R1, 1)
    core.handle(arrival(2, GEMMA), 2)
    core.handle(None, core.next_deadline())
    drains_until = core.next_deadline()

    assert drains_until == 32 + core.scheduling.drain_timeout_s
    assert orders(core.handle(None, drains_until)) == [StopRunner(R1)]


def test_what_can_never_fit_is_refused_at_once_without_evicting_anyone() -> None:
    core = resident_core(memory_bytes=4 * GIB)
    monster = a_subject(name="monster", weights_bytes=40 * GIB)

    refused = core.handle(arrival(2, monster), 10)

    assert isinstance(refusal(refused), DoesNotFit)
    assert "40.0 GiB" in refusal(refused).message
    assert core.residents[R1].state is RunnerState.READY


def test_what_others_use_is_not_ours_to_plan_with() -> None:
    core = a_core(memory_bytes=4 * GIB)
    core.handle(a_reading(3 * GIB, memory_bytes=4 * GIB), 0)

    refused = core.handle(arrival(1, GEMMA), 1)

    assert isinstance(refusal(refused), DoesNotFit)
    assert "other programs use 3.0 GiB" in refusal(refused).message


def test_our_own_memory_is_not_counted_twice() -> None:
    core = resident_core(memory_bytes=4 * GIB)
    own_bytes = some_memory().anonymous_bytes

    core.handle(a_reading(own_bytes, memory_bytes=4 * GIB), 2)

    assert core.budget.others_bytes(HOST) == 0


def test_a_reading_taken_while_a_runner_loads_is_not_attributed() -> None:
    core = a_core()
    core.handle(arrival(1, LLAMA), 0)

    core.handle(a_reading(GIB), 1)

    assert core.budget.others_bytes(HOST) == 0


def test_fewer_slots_are_planned_where_all_do_not_fit() -> None:
    facts = dataclasses.replace(LLAMA.facts, kv_shape=LLAMA.facts.kv_shape)
    wide = dataclasses.replace(facts.kv_shape, key_length=1 << 15, value_length=1 << 15)
    subject = dataclasses.replace(LLAMA, facts=dataclasses.replace(facts, kv_shape=wide))
    core = a_core(memory_bytes=3 * GIB)  # One slot of 4096 tokens takes half a GiB.

    (start,) = orders(core.handle(arrival(1, subject), 0))

    assert isinstance(start, StartRunner)
    assert start.plan.n_slots == 2


def test_an_option_that_is_not_stated_changes_nothing() -> None:
    core = a_core()
    core.handle(arrival(1, LLAMA, options=LoadOptions(n_ctx=2048, n_threads=1)), 0)
    load(core, R1, 1)
    core.handle(RequestGone(TicketId(1)), 2)

    assert orders(core.handle(arrival(2, LLAMA), 3)) == [Grant(TicketId(2), R1)]


def test_other_load_options_reload_an_idle_model() -> None:
    core = resident_core()

    reloading = core.handle(arrival(2, LLAMA, options=LoadOptions(n_ctx=2048)), 10)
    started = leave(core, R1, 11)

    assert orders(reloading) == [StopRunner(R1)]
    assert [c.plan.n_ctx for c in started if isinstance(c, StartRunner)] == [2048]


def test_other_load_options_wait_for_a_busy_model_but_not_for_ever() -> None:
    core = a_core()
    core.handle(arrival(1, LLAMA), 0)
    load(core, R1, 1)

    assert orders(core.handle(arrival(2, LLAMA, options=LoadOptions(n_ctx=2048)), 2)) == []
    assert core.next_deadline() == 2 + core.scheduling.starvation_s
    core.handle(None, core.next_deadline())
    assert core.residents[R1].state is RunnerState.DRAINING


def test_a_context_beyond_the_training_length_is_the_training_length() -> None:
    core = resident_core(runner=RunnerConfig(n_ctx=8192))

    assert orders(core.handle(arrival(2, LLAMA, options=LoadOptions(n_ctx=100_000)), 2)) == [
        Grant(TicketId(2), R1)
    ]


def test_loads_run_one_after_another() -> None:
    core = a_core()

    first = core.handle(arrival(1, LLAMA), 0)
    second = core.handle(arrival(2, QWEN), 0)
    after = load(core, R1, 1)

    assert kinds(first) == [StartRunner]
    assert kinds(second) == []
    assert [type(c) for c in after] == [Grant, StartRunner]


def test_no_more_models_are_loaded_than_may_be() -> None:
    core = resident_core(scheduling=SchedulingConfig(models_loaded_max=1))

    evicting = core.handle(arrival(2, QWEN), 10)

    assert orders(evicting) == [StopRunner(R1)]
    assert kinds(leave(core, R1, 11)) == [StartRunner]


def test_the_queue_has_a_limit_also_for_a_loaded_model() -> None:
    core = a_core(scheduling=SchedulingConfig(queue_length_max=2), runner=RunnerConfig(n_slots=1))
    core.handle(arrival(1, LLAMA), 0)
    load(core, R1, 1)
    granted = [core.handle(arrival(n, LLAMA), 2) for n in (2, 3)]
    waiting = [core.handle(arrival(n, LLAMA), 2) for n in (4, 5)]

    refused = core.handle(arrival(6, LLAMA), 2)

    assert [kinds(c) for c in granted] == [[Grant], [Grant]]
    assert [kinds(c) for c in waiting] == [[], []]
    assert isinstance(refusal(refused), QueueFull)
    assert orders(core.handle(RequestGone(TicketId(1)), 3)) == [Grant(TicketId(4), R1)]


def test_a_failed_load_refuses_those_who_waited_for_it_with_the_reason() -> None:
    core = a_core()
    core.handle(arrival(1, LLAMA), 0)
    core.handle(arrival(2, LLAMA), 0)
    core.handle(RunnerHello(R1), 1)

    failed = orders(core.handle(RunnerLoadFailed(R1, LoadFailed("no such architecture")), 2))

    assert [type(c) for c in failed] == [Refuse, Refuse, StopRunner]


def test_a_load_without_progress_times_out_and_progress_rearms_the_limit() -> None:
    core = a_core()
    core.handle(arrival(1, LLAMA), 0)
    core.handle(RunnerHello(R1), 1)
    core.handle(RunnerProgress(R1, 0.5), 200)

    assert core.next_deadline() == 500
    timed_out = core.handle(None, 500)

    assert isinstance(refusal(timed_out), LoadTimedOut)
    assert StopRunner(R1) in timed_out


def test_a_runner_that_never_says_hello_times_out() -> None:
    core = a_core()
    core.handle(arrival(1, LLAMA), 0)

    timed_out = core.handle(None, core.scheduling.start_timeout_s)

    assert isinstance(refusal(timed_out), LoadTimedOut)


def test_a_crash_is_forgiven_at_once_but_not_again_and_again() -> None:
    core = a_core()
    now = 0.0
    for crash in range(core.scheduling.restart_failures_max):
        runner = RunnerId(crash + 1)
        assert kinds(core.handle(arrival(crash + 1, LLAMA), now)) == [StartRunner]
        load(core, runner, now + 1)
        core.handle(RunnerExited(runner, "killed by SIGSEGV"), now + 2)
        core.handle(MemoryReturned(runner), now + 2)
        core.handle(RequestGone(TicketId(crash + 1)), now + 2)
        now += 3

    refused = refusal(core.handle(arrival(9, LLAMA), now))
    allowed = core.handle(arrival(10, LLAMA), now + core.scheduling.cooling_s)

    assert isinstance(refused, CoolingDown)
    assert "SIGSEGV" in refused.message
    assert 0 < refused.retry_after_s <= core.scheduling.cooling_s
    assert kinds(allowed) == [StartRunner]


def test_one_models_crashes_do_not_touch_another() -> None:
    core = resident_core()
    core.handle(arrival(2, QWEN), 2)
    core.handle(RunnerHello(R2), 3)

    core.handle(RunnerExited(R2, "killed by SIGKILL"), 4)

    assert core.residents[R1].state is RunnerState.READY
    assert orders(core.handle(arrival(3, LLAMA), 5)) == [Grant(TicketId(3), R1)]


def test_a_stalled_runner_is_stopped_under_its_leases() -> None:
    core = a_core()
    core.handle(arrival(1, LLAMA), 0)
    load(core, R1, 1)

    assert orders(core.handle(RunnerStalled(R1), 200)) == [StopRunner(R1)]


def test_draining_refuses_newcomers_and_lets_the_others_end() -> None:
    core = a_core()
    core.handle(arrival(1, LLAMA), 0)
    load(core, R1, 1)

    core.handle(DrainAsked(), 2)
    refused = core.handle(arrival(2, LLAMA), 3)

    assert isinstance(refusal(refused), Draining)
    assert orders(core.handle(RequestGone(TicketId(1)), 4)) == [StopRunner(R1)]
    leave(core, R1, 5)
    assert core.state is DaemonState.STOPPED


def test_draining_stops_a_load_nobody_can_use_any_more() -> None:
    core = a_core()
    core.handle(arrival(1, LLAMA), 0)

    drained = core.handle(DrainAsked(), 1)

    assert StopRunner(R1) in drained
    assert isinstance(refusal(drained), Draining)


def test_an_empty_daemon_is_drained_at_once() -> None:
    core = a_core()

    core.handle(DrainAsked(), 0)

    assert core.state is DaemonState.STOPPED


@pytest.mark.parametrize("times", [1, 2])
def test_leaving_is_legal_in_every_state_and_idempotent(times: int) -> None:
    core = a_core()
    core.handle(arrival(1, LLAMA), 0)
    for _ in range(times):
        assert orders(core.handle(RequestGone(TicketId(1)), 1)) == []
    load(core, R1, 2)
    for _ in range(times):
        assert orders(core.handle(RequestGone(TicketId(1)), 3)) == []

    assert core.residents[R1].is_idle


def test_a_late_word_from_a_runner_that_is_gone_changes_nothing() -> None:
    core = resident_core()
    core.handle(None, 301)
    leave(core, R1, 302)

    assert core.handle(RunnerExited(R1, "again"), 303) == []
    assert core.handle(MemoryReturned(R1), 303) == []
    assert core.handle(RunnerLoaded(R1, some_memory()), 303) == []


def test_a_victim_is_never_called_back_and_its_model_is_loaded_anew() -> None:
    core = resident_core(memory_bytes=4 * GIB)
    core.handle(arrival(2, GEMMA), 10)

    revived = core.handle(arrival(3, LLAMA), 11)
    core.handle(RequestGone(TicketId(2)), 12)
    started = leave(core, R1, 13)

    assert orders(revived) == []
    assert [c.name for c in started if isinstance(c, StartRunner)] == [LLAMA.name]


def test_the_limits_may_change_while_serving() -> None:
    core = a_core()
    core.scheduling = dataclasses.replace(core.scheduling, queue_length_max=0)

    refused = core.handle(arrival(1, LLAMA), 0)

    assert isinstance(refusal(refused), QueueFull)


def two_busy(**settings: object) -> tuple[Core, list[Command]]:
    """A core with two models that are used, and the orders that came with the second one."""
    core = a_core(**settings)  # type: ignore[arg-type]
    core.handle(arrival(1, LLAMA), 0)
    load(core, R1, 1)
    core.handle(arrival(2, QWEN), 2)
    return core, load(core, R2, 3, QWEN)


def test_two_models_that_are_used_share_the_cores() -> None:
    _, loaded = two_busy()

    assert [c for c in loaded if isinstance(c, AssignThreads)] == [
        AssignThreads(R1, 1),
        AssignThreads(R2, 1),
    ]


def test_a_model_has_the_cores_again_when_the_other_is_idle() -> None:
    core, _ = two_busy()

    gone = orders(core.handle(RequestGone(TicketId(2)), 4))

    assert gone == [AssignThreads(R1, 2)]


def test_an_idle_model_is_told_its_threads_when_it_is_used_again() -> None:
    core, _ = two_busy()
    core.handle(RequestGone(TicketId(1)), 4)
    core.handle(RequestGone(TicketId(2)), 5)

    used = orders(core.handle(arrival(3, LLAMA), 6))

    assert used == [Grant(TicketId(3), R1), AssignThreads(R1, 2)]


def test_more_threads_than_cores_are_used_by_a_model_that_is_alone() -> None:
    core, loaded = two_busy(runner=RunnerConfig(n_threads=6))

    assert AssignThreads(R1, 1) in loaded
    assert orders(core.handle(RequestGone(TicketId(2)), 4)) == [AssignThreads(R1, 6)]
