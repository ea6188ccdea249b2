from __future__ import annotations

import platform
from pathlib import Path

import pytest

from ollamad.config import RunnerConfig
from ollamad.runners import isolation, landlock, seccomp
from ollamad.runners.cgroup import CgroupTree, NotDelegated
from ollamad.runners.isolation import Feature, Isolation, describe, linked_folders, summary
from ollamad.runners.walls import Wall

KERNELS = (Wall.FILES, Wall.NETWORK, Wall.SCOPES)


def walls(of: Isolation) -> dict[Wall, Feature]:
    features = describe(of)
    assert len({feature.name for feature in features}) == len(features)
    return {feature.name: feature for feature in features}


def test_every_wall_is_described_whatever_is_asked_for() -> None:
    assert set(walls(Isolation())) == set(Wall)
    assert set(walls(Isolation(is_on=False))) == set(Wall)


@pytest.mark.parametrize(
    ("abi", "standing"),
    [(0, ()), (1, KERNELS[:1]), (3, KERNELS[:1]), (4, KERNELS[:2]), (6, KERNELS), (7, KERNELS)],
)
def test_an_older_kernel_has_fewer_walls_and_says_so(
    abi: int, standing: tuple[Wall, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(landlock, "abi_version", lambda: abi)

    described = walls(Isolation())

    assert tuple(name for name in KERNELS if described[name].is_on) == standing
    assert all(described[name].why for name in KERNELS)


def test_a_machine_without_a_filter_says_which_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seccomp, "machine", lambda: None)
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")

    assert walls(Isolation())[Wall.SYSTEM_CALLS] == Feature(
        Wall.SYSTEM_CALLS, False, "no filter is known for riscv64"
    )


def test_turned_off_only_what_the_launcher_does_is_left() -> None:
    described = walls(Isolation(is_on=False))

    on = {name for name, feature in described.items() if feature.is_on}
    assert on == {Wall.PROCESS_GROUP, Wall.DESCRIPTORS}
    assert described[Wall.FILES].why == "turned off by runner.isolation"


def test_core_dumps_are_described_as_configured() -> None:
    assert walls(Isolation())[Wall.CORE_DUMPS].is_on
    assert not walls(Isolation(core_dumps=True))[Wall.CORE_DUMPS].is_on


def test_a_cgroup_is_described_by_its_controllers(tmp_path: Path) -> None:
    tree = CgroupTree(tmp_path, frozenset({"memory", "cpu"}))

    assert walls(Isolation(cgroups=tree))[Wall.CGROUP].why.endswith("controllers: cpu, memory")
    without = walls(Isolation(cgroups=NotDelegated("no cgroup v2")))[Wall.CGROUP]
    assert (without.is_on, without.why.partition(";")[0]) == (False, "no cgroup v2")


def test_the_log_has_one_line_with_what_is_not_there_and_why() -> None:
    features = [
        Feature(Wall.FILES, True, "x"),
        Feature(Wall.LIMITS, True, "y"),
        Feature(Wall.CGROUP, False, "no cgroup v2"),
    ]

    assert summary(features) == "runners are kept apart by files, limits; no cgroup (no cgroup v2)"


def test_a_worker_is_told_what_to_apply(tmp_path: Path) -> None:
    (tmp_path / "blobs").mkdir()
    told = Isolation(models_path=tmp_path, core_dumps=True).worker_arguments()

    readable = str((tmp_path / "blobs").resolve())
    assert told == ["--isolation", "auto", "--core-dumps", "--readable", readable]
    assert Isolation(is_on=False, models_path=tmp_path).worker_arguments() == ["--isolation", "off"]


def test_in_a_store_that_is_still_empty_a_spare_may_read_what_comes(tmp_path: Path) -> None:
    told = Isolation(models_path=tmp_path).worker_arguments()

    assert told[-2:] == ["--readable", str(tmp_path.resolve())]


def test_settings_become_an_isolation(tmp_path: Path) -> None:
    asked = isolation.isolation_for(RunnerConfig(isolation="off", core_dumps=True), tmp_path)

    assert (asked.is_on, asked.core_dumps, asked.models_path) == (False, True, tmp_path)


def test_folders_that_links_lead_to_are_found_up_to_a_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    (blobs / "plain").write_text("x")
    for n in range(3):
        (blobs / f"link{n}").symlink_to(tmp_path / f"disk{n}" / "weights")
    (blobs / "again").symlink_to(tmp_path / "disk0" / "others")
    disks = {(tmp_path / f"disk{n}").resolve() for n in range(3)}

    assert set(linked_folders(blobs)) == disks
    monkeypatch.setattr(isolation, "LINKED_FOLDERS_MAX", 2)
    assert len(linked_folders(blobs)) == 2
    assert linked_folders(tmp_path / "nowhere") == ()
