"""What a runner applies, with the kernel's part replaced: this process must not shut itself in."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from ollamad.runners import landlock, seccomp
from ollamad.runners.landlock import READ, Rule
from ollamad.runners.protocol import LoadPlan
from ollamad.runners.walls import Wall
from ollamad.runners.worker import confine
from ollamad.runners.worker.confine import Confinement, Orders

PLAN = LoadPlan(
    model_path="/store/own", adapter_paths=("/store/adapter",), n_ctx=1, n_slots=1, n_batch=1
)


class Kernel:
    """Takes every promise, or refuses some."""

    def __init__(self) -> None:
        self.refuses: set[str] = set()
        self.domains: list[list[Rule]] = []
        self.said: list[str] = []

    def promise(self, name: str) -> None:
        if name in self.refuses:
            raise OSError(1, "Operation not permitted")

    def restrict(self, rules: Iterable[Rule], _abi: int) -> None:
        self.promise("landlock")
        self.domains.append(list(rules))


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    kernel = Kernel()
    for name in ("_limit_files", "_forbid_core_dumps", "_raise_oom_score", "_drop_capabilities"):
        monkeypatch.setattr(confine, name, lambda name=name: kernel.promise(name))
    monkeypatch.setattr(seccomp, "forbid_new_privileges", lambda: kernel.promise("privileges"))
    monkeypatch.setattr(seccomp, "install", lambda _machine: kernel.promise("seccomp"))
    monkeypatch.setattr(seccomp, "is_offered", lambda: True)
    monkeypatch.setattr(seccomp, "machine", lambda: seccomp.MACHINES["x86_64"])
    monkeypatch.setattr(landlock, "abi_version", lambda: 7)
    monkeypatch.setattr(landlock, "restrict", kernel.restrict)
    monkeypatch.setattr(confine, "_say", lambda mark, text: kernel.said.append(f"{mark} {text}"))
    return kernel


def begun(**orders: object) -> Confinement:
    confinement = Confinement(Orders(is_on=True, **orders))  # type: ignore[arg-type]
    confinement.begin()
    return confinement


def test_all_that_the_kernel_offers_is_applied_and_told(kernel: Kernel) -> None:
    applied = begun().applied

    assert set(applied) == set(Wall) - {Wall.PROCESS_GROUP, Wall.DESCRIPTORS, Wall.CGROUP}
    assert len(set(applied)) == len(applied)
    assert kernel.said == []


def test_the_second_domain_has_of_all_models_only_the_plans(kernel: Kernel) -> None:
    begun(readable=(Path("/store"),)).narrow(PLAN)

    first, second = kernel.domains
    assert Rule(Path("/store"), READ) in first
    models = {rule.path for rule in second if rule.path.is_relative_to("/store")}
    assert models == {Path("/store/own"), Path("/store/adapter")}
    assert [rule for rule in first if rule not in second] == [Rule(Path("/store"), READ)]


def test_what_the_kernel_refuses_is_said_and_not_told_as_applied(kernel: Kernel) -> None:
    kernel.refuses = {"landlock", "_raise_oom_score"}
    applied = begun().applied

    assert not {Wall.FILES, Wall.NETWORK, Wall.SCOPES, Wall.OOM_SCORE} & set(applied)
    assert Wall.SYSTEM_CALLS in applied
    assert kernel.said == [
        "W isolation of a runner, oom-score: Operation not permitted",
        "W isolation of a runner, files: Operation not permitted",
    ]


def test_without_its_first_domain_there_is_no_second(kernel: Kernel) -> None:
    kernel.refuses = {"landlock"}
    begun().narrow(PLAN)

    assert kernel.domains == []


def test_a_second_domain_that_is_refused_is_said(kernel: Kernel) -> None:
    confinement = begun()
    kernel.refuses = {"landlock"}
    confinement.narrow(PLAN)

    assert "W this runner may still read other models: Operation not permitted" in kernel.said


def test_without_the_promise_that_the_kernel_wants_first_there_is_no_filter(kernel: Kernel) -> None:
    kernel.refuses = {"privileges"}
    applied = begun().applied

    assert not {Wall.FILES, Wall.SYSTEM_CALLS} & set(applied)
    assert kernel.domains == []


def test_an_older_kernel_has_fewer_walls(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(landlock, "abi_version", lambda: 3)
    applied = begun().applied

    assert Wall.FILES in applied
    assert not {Wall.NETWORK, Wall.SCOPES} & set(applied)


def test_turned_off_nothing_is_applied(kernel: Kernel) -> None:
    confinement = Confinement(Orders(is_on=False))
    confinement.begin()
    confinement.narrow(PLAN)

    assert confinement.applied == ()
    assert kernel.domains == []


def test_a_cgroup_is_joined_also_when_isolation_is_off(kernel: Kernel, tmp_path: Path) -> None:
    confinement = Confinement(Orders(is_on=False, cgroup=tmp_path))
    confinement.begin()

    assert (tmp_path / "cgroup.procs").read_text() == "0"
    assert confinement.applied == (Wall.CGROUP,)
