"""The core on machines with GPUs: where models go, and what happens when a device changes."""

from __future__ import annotations

import dataclasses

import pytest

from ollamad.errors import DoesNotFit, LoadFailed
from ollamad.gpu.devices import HOST, DeviceHealth, DeviceId, SeenDevice
from ollamad.modelpolicy import ModelPolicy
from ollamad.options import LoadOptions
from ollamad.runners.states import RunnerState
from ollamad.supervisor.commands import Command, NoteKind, ReadDevices, StartRunner, StopRunner
from ollamad.supervisor.core import Core
from ollamad.supervisor.events import (
    DevicesSeen,
    MemoryReturned,
    RequestGone,
    RunnerExited,
    RunnerHello,
    RunnerLoadFailed,
    Subject,
    TicketId,
)
from ollamad.units import GIB, MIB
from tests.fakes.placing import place_simply
from tests.unit.supervisor.playing import (
    GEMMA,
    LLAMA,
    QWEN,
    R1,
    R2,
    R3,
    kinds,
    leave,
    load,
    notes,
    orders,
    refusal,
)
from tests.values import a_core, a_gpu, a_reading, a_subject, arrival, devices

GPU0, GPU1 = DeviceId("GPU-0"), DeviceId("GPU-1")
WHOLE_GPU = a_subject(name="whole", weights_bytes=3 * GIB + 900 * MIB)


def a_machine(*gpus: SeenDevice) -> Core:
    core = a_core(place=place_simply)
    core.handle(devices(*gpus), 0)
    return core


def where(core: Core, name: str) -> set[DeviceId]:
    """On which GPUs a model is."""
    (resident,) = (r for r in core.residents.values() if r.subject.name == name)
    return set(resident.placement.devices)


def idle_on_gpu(subject: Subject = LLAMA, *gpus: SeenDevice) -> Core:
    """A machine with a model on its first GPU that nobody uses."""
    core = a_machine(*(gpus or (a_gpu(0),)))
    core.handle(arrival(1, subject), 0)
    load(core, R1, 1, subject)
    core.handle(RequestGone(TicketId(1)), 1)
    return core


def started(commands: list[Command]) -> list[str]:
    return [command.name for command in commands if isinstance(command, StartRunner)]


def test_loads_on_different_gpus_run_side_by_side() -> None:
    core = a_machine(a_gpu(0), a_gpu(1))

    first = core.handle(arrival(1, LLAMA), 0)
    second = core.handle(arrival(2, QWEN), 0)

    assert (started(first), started(second)) == ([LLAMA.name], [QWEN.name])
    assert where(core, LLAMA.name) != where(core, QWEN.name)


def test_loads_on_one_gpu_run_one_after_another_and_not_in_main_memory_instead() -> None:
    core = a_machine(a_gpu(0))
    core.handle(arrival(1, LLAMA), 0)

    second = core.handle(arrival(2, QWEN), 0)
    after = load(core, R1, 1)

    assert started(second) == []
    assert started(after) == [QWEN.name]
    assert where(core, QWEN.name) == {GPU0}


def test_a_model_waits_for_a_gpu_in_use_rather_than_being_slow_in_main_memory() -> None:
    core = a_machine(a_gpu(0))
    core.handle(arrival(1, GEMMA), 0)
    load(core, R1, 1, GEMMA)

    waiting = core.handle(arrival(2, a_subject(name="other", weights_bytes=2 * GIB)), 2)

    assert orders(waiting) == []
    assert "room: other needs" in core.line.waiting()[0].waits_for
    assert "2.0 GiB of GPU-0" in core.line.waiting()[0].waits_for


def test_an_idle_model_leaves_its_gpu_for_another_one() -> None:
    core = idle_on_gpu(GEMMA)

    evicting = core.handle(arrival(2, WHOLE_GPU), 20)

    assert orders(evicting) == [StopRunner(R1)]


def test_only_models_whose_devices_help_are_evicted() -> None:
    core = a_machine(a_gpu(0), a_gpu(1, capacity_bytes=1500 * MIB))
    for number, (subject, runner) in enumerate([(GEMMA, R1), (LLAMA, R2)], start=1):
        core.handle(arrival(number, subject), 0)
        load(core, runner, 1, subject)
        core.handle(RequestGone(TicketId(number)), 1)
    assert (where(core, GEMMA.name), where(core, LLAMA.name)) == ({GPU0}, {GPU1})

    evicting = core.handle(arrival(3, WHOLE_GPU), 20)

    assert orders(evicting) == [StopRunner(R1)]


def test_what_one_request_waits_for_is_not_taken_by_the_next() -> None:
    core = a_machine(a_gpu(0))
    core.handle(arrival(1, a_subject(name="busy", weights_bytes=GIB)), 0)
    load(core, R1, 1)
    core.handle(arrival(2, WHOLE_GPU), 2)

    later = core.handle(arrival(3, QWEN), 3)

    # It would fit beside the busy one, and so keep the other one waiting for longer.
    assert started(later) == []


def test_who_can_start_because_another_one_has_started_need_not_wait_for_an_event() -> None:
    """A pinned model's start moves what an earlier request waits for to the other GPU."""
    core = a_machine(a_gpu(0), a_gpu(1))
    pinned = ModelPolicy(pinned=True)
    core.handle(arrival(1, a_subject(name="both", weights_bytes=6 * GIB)), 0)
    core.handle(arrival(2, GEMMA), 1)
    core.handle(arrival(3, a_subject(name="kept", weights_bytes=GIB // 2, policy=pinned)), 2)
    core.handle(arrival(4, a_subject(name="small", weights_bytes=GIB // 2)), 3)

    after = load(core, R1, 4)

    assert started(after) == ["kept", "small"]


@pytest.mark.parametrize("health", [DeviceHealth.QUARANTINED, DeviceHealth.RECOVERING])
def test_a_device_that_is_not_trusted_takes_nothing(health: DeviceHealth) -> None:
    core = a_machine(a_gpu(0, health=health))

    core.handle(arrival(1, LLAMA), 1)

    assert where(core, LLAMA.name) == set()


def test_a_suspect_device_takes_models() -> None:
    core = a_machine(a_gpu(0, health=DeviceHealth.SUSPECT))

    core.handle(arrival(1, LLAMA), 1)

    assert where(core, LLAMA.name) == {GPU0}


def test_models_on_a_quarantined_device_finish_their_answers_and_come_again_elsewhere() -> None:
    core = a_machine(a_gpu(0), a_gpu(1))
    core.handle(arrival(1, LLAMA), 0)
    load(core, R1, 1)
    bad = dataclasses.replace(a_gpu(0, health=DeviceHealth.QUARANTINED), why="Xid 79")
    assert where(core, LLAMA.name) == {GPU0}

    turned = core.handle(devices(bad, a_gpu(1)), 2)
    assert orders(turned) == []
    assert "Xid 79" in notes(turned, NoteKind.DEVICE)[0].message
    core.handle(arrival(2, LLAMA), 3)
    assert orders(core.handle(RequestGone(TicketId(1)), 4)) == [StopRunner(R1)]
    core.handle(RunnerExited(R1, "exit status 0"), 5)
    again = core.handle(None, 5 + core.scheduling.reclaim_timeout_s)

    assert started(again) == [LLAMA.name]
    assert where(core, LLAMA.name) == {GPU1}


def test_runners_on_a_lost_device_are_stopped_at_once_and_its_memory_is_not_waited_for() -> None:
    core = a_machine(a_gpu(0), a_gpu(1))
    core.handle(arrival(1, LLAMA), 0)
    load(core, R1, 1)

    lost = core.handle(devices(a_gpu(1)), 2)
    core.handle(arrival(2, LLAMA), 3)
    again = leave(core, R1, 4)

    assert StopRunner(R1) in lost
    assert started(again) == [LLAMA.name]
    assert where(core, LLAMA.name) == {GPU1}


def test_who_waits_for_a_load_on_a_device_that_is_lost_waits_on() -> None:
    core = a_machine(a_gpu(0), a_gpu(1))
    core.handle(arrival(1, LLAMA), 0)

    lost = core.handle(devices(a_gpu(1)), 1)
    again = leave(core, R1, 2)

    assert orders(lost) == [StopRunner(R1)]
    assert started(again) == [LLAMA.name]


def test_main_memory_is_not_lost_when_nobody_mentions_it() -> None:
    core = a_machine(a_gpu(0))
    core.handle(dataclasses.replace(a_reading(0), devices=()), 1)

    assert core.budget.devices == (HOST,)
    assert core.budget.ceiling_bytes(HOST) == 8 * GIB


def test_a_gpu_that_comes_late_is_used_by_the_next_load() -> None:
    core = a_machine()
    core.handle(arrival(1, LLAMA), 0)
    load(core, R1, 1)

    core.handle(devices(a_gpu(0)), 2)
    core.handle(arrival(2, QWEN), 3)

    assert (where(core, LLAMA.name), where(core, QWEN.name)) == (set(), {GPU0})


# Memory that comes back


def ended_on_gpu(*gpus: SeenDevice) -> tuple[Core, list[Command]]:
    """A machine whose only runner has just ended, and what that made the core order."""
    core = idle_on_gpu(GEMMA)
    core.handle(devices(*gpus), 2)
    core.handle(None, 301)
    return core, core.handle(RunnerExited(R1, "exit status 0"), 302)


def test_memory_of_a_gpu_is_back_when_its_driver_no_longer_lists_the_process() -> None:
    here = a_gpu(0, used_bytes=3 * GIB, by_process={1001: 3 * GIB})
    core, ended = ended_on_gpu(here)

    assert ReadDevices() in ended
    core.handle(MemoryReturned(R1), 302)
    core.handle(devices(here), 303)
    assert core.residents[R1].state is RunnerState.RECLAIMING
    core.handle(devices(a_gpu(0, used_bytes=0)), 304)

    assert core.residents == {}
    assert core.budget.reserved_bytes(GPU0) == 0


def test_where_no_processes_are_listed_it_is_back_when_most_of_it_is_free() -> None:
    core, _ = ended_on_gpu(a_gpu(0, used_bytes=3500 * MIB))

    core.handle(devices(a_gpu(0, used_bytes=2 * GIB)), 303)
    assert R1 in core.residents
    core.handle(devices(a_gpu(0, used_bytes=600 * MIB)), 304)

    assert core.residents == {}


def test_memory_of_a_gpu_that_does_not_come_back_is_not_waited_for_forever() -> None:
    stuck = a_gpu(0, used_bytes=3 * GIB, by_process={1001: 3 * GIB})
    core, _ = ended_on_gpu(stuck)

    core.handle(devices(stuck), 306)
    core.handle(None, 302 + core.scheduling.reclaim_timeout_s)

    assert core.residents == {}
    core.handle(devices(stuck), 310)
    assert core.budget.others_bytes(GPU0) == 3 * GIB


def test_a_runner_that_died_before_its_hello_has_touched_no_gpu() -> None:
    core = a_machine(a_gpu(0))
    core.handle(arrival(1, LLAMA), 0)

    ended = core.handle(RunnerExited(R1, "exit status 1"), 1)
    core.handle(MemoryReturned(R1), 1)

    assert ReadDevices() not in ended
    assert core.residents == {}


# Readings


def test_what_a_driver_lists_as_ours_is_measured_and_not_counted_as_others() -> None:
    core = idle_on_gpu(LLAMA)

    core.handle(devices(a_gpu(0, used_bytes=3 * GIB, by_process={1001: 2 * GIB, 7: GIB})), 2)

    assert core.budget.others_bytes(GPU0) == GIB
    assert core.budget.held_by(R1)[GPU0] == 2 * GIB


def test_a_reading_is_attributed_while_another_gpu_is_loading() -> None:
    core = idle_on_gpu(GEMMA, a_gpu(0), a_gpu(1))
    core.handle(arrival(2, GEMMA), 2)
    core.handle(arrival(3, WHOLE_GPU), 2)
    assert where(core, WHOLE_GPU.name) == {GPU1}
    held = core.budget.held_by(R1)[GPU0]

    core.handle(devices(a_gpu(0, used_bytes=held + 5), a_gpu(1, used_bytes=GIB)), 3)

    assert core.budget.others_bytes(GPU0) == 5
    assert core.budget.others_bytes(GPU1) == 0


# Loads that run out of memory


def test_a_load_that_runs_out_of_memory_is_tried_once_more_with_more_room() -> None:
    core = a_machine(a_gpu(0))
    core.handle(arrival(1, LLAMA), 0)
    planned = core.residents[R1].placement.amounts[GPU0]
    core.handle(RunnerHello(R1, 1001), 1)

    failed = core.handle(RunnerLoadFailed(R1, LoadFailed("no memory"), out_of_memory=True), 2)
    core.handle(RunnerExited(R1, "exit status 0"), 3)
    again = core.handle(None, 3 + core.scheduling.reclaim_timeout_s)

    assert kinds(failed) == [StopRunner]
    assert started(again) == [LLAMA.name]
    assert core.residents[R2].placement.amounts[GPU0] == pytest.approx(1.25 * planned)


# Policies


def test_a_policy_names_devices_by_index_or_uuid() -> None:
    for wanted in ("1", "GPU-1"):
        bound = dataclasses.replace(LLAMA, policy=ModelPolicy(devices=(wanted,)))
        core = a_machine(a_gpu(0), a_gpu(1))
        core.handle(arrival(1, bound), 0)
        assert where(core, LLAMA.name) == {GPU1}


@pytest.mark.parametrize(
    ("policy", "options"),
    [
        (ModelPolicy(cpu_only=True), LoadOptions()),
        (ModelPolicy(devices=("host",)), LoadOptions()),
        (ModelPolicy(), LoadOptions(n_gpu_layers=0)),
    ],
    ids=["cpu only", "host only", "no layers asked for"],
)
def test_a_model_may_be_kept_from_gpus(policy: ModelPolicy, options: LoadOptions) -> None:
    core = a_machine(a_gpu(0))

    core.handle(arrival(1, dataclasses.replace(LLAMA, policy=policy), options=options), 0)

    assert where(core, LLAMA.name) == set()


def test_what_fits_nowhere_is_refused_also_with_gpus() -> None:
    core = a_machine(a_gpu(0), a_gpu(1))

    refused = refusal(core.handle(arrival(1, a_subject(name="huge", weights_bytes=60 * GIB)), 0))

    assert isinstance(refused, DoesNotFit)


def test_three_models_for_each_gpu_are_loaded_when_nothing_else_is_configured() -> None:
    assert a_machine().situation(0).places_max == 3
    assert a_machine(a_gpu(0), a_gpu(1)).situation(0).places_max == 6
    assert R3 not in a_machine().residents


def test_what_our_runners_touch_later_is_not_taken_for_others_use() -> None:
    """A cache is promised with the load and touched by requests: readings rise by what is ours."""
    core = a_machine()
    core.handle(arrival(1, LLAMA), 0)
    load(core, R1, 1, LLAMA)
    (resident,) = core.residents.values()
    (host,) = a_reading(used_bytes=3 * GIB).devices
    host = dataclasses.replace(host, by_process={resident.pid: 3 * GIB - 200 * MIB})

    core.handle(DevicesSeen((host,)), 2)

    assert core.budget.others_bytes(HOST) == 200 * MIB


def test_others_are_told_from_a_runner_that_is_still_coming() -> None:
    core = a_machine()
    core.handle(arrival(1, LLAMA), 0)
    (host,) = a_reading(used_bytes=GIB).devices
    host = dataclasses.replace(host, by_process={4711: GIB // 4})

    core.handle(DevicesSeen((host,)), 1)

    assert core.budget.others_bytes(HOST) == GIB - GIB // 4
