"""The layout that systemd gives, in plain folders, whose files do not fill themselves."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

import pytest

from ollamad.runners import cgroup
from ollamad.runners.cgroup import CgroupTree, NotDelegated, RunnerGroup, claim, own_group
from ollamad.units import GIB, MIB

EVERYTHING = "cpuset cpu io memory hugetlb pids"


@pytest.fixture
def service(tmp_path: Path) -> Path:
    """A delegated group with this process alone in it."""
    folder = tmp_path / "ollamad.service"
    folder.mkdir()
    (folder / "cgroup.controllers").write_text(EVERYTHING)
    (folder / "cgroup.subtree_control").write_text("")
    (folder / "cgroup.procs").write_text(f"{os.getpid()}\n")
    return folder


def claimed(service: Path) -> CgroupTree:
    tree = claim(service, is_delegated=lambda folder: folder == service)
    assert isinstance(tree, CgroupTree)
    return tree


def leaves(group: RunnerGroup) -> None:
    """The kernel is done with a group: its files go, and it can be removed."""
    for file in group.folder.iterdir():
        file.unlink()


def test_the_daemon_moves_into_a_leaf_before_it_turns_controllers_on(service: Path) -> None:
    tree = claimed(service)

    assert (service / "daemon" / "cgroup.procs").read_text() == str(os.getpid())
    assert tree.controllers == {"cpu", "memory", "pids"}
    assert (service / "cgroup.subtree_control").read_text().startswith("+")


def test_in_the_leaf_already_it_makes_no_other(service: Path) -> None:
    """systemd's DelegateSubgroup= has done it."""
    leaf = service / "daemon"
    leaf.mkdir()

    tree = claim(leaf, is_delegated=lambda folder: folder == service)

    assert isinstance(tree, CgroupTree)
    assert not (leaf / "daemon").exists()
    assert tree.make().folder.parent == service


def test_what_is_not_delegated_is_left_alone(service: Path) -> None:
    before = sorted(service.iterdir())

    assert claim(service) == NotDelegated("the service manager has delegated no cgroup")
    assert claim(None) == NotDelegated("no cgroup v2")
    assert sorted(service.iterdir()) == before


def test_a_tree_that_cannot_be_written_is_none(service: Path) -> None:
    (service / "cgroup.subtree_control").unlink()
    (service / "cgroup.subtree_control").mkdir()

    refused = claim(service, is_delegated=lambda folder: folder == service)

    assert isinstance(refused, NotDelegated)
    assert "cannot be used" in refused.why


def test_the_mark_is_the_service_managers(tmp_path: Path) -> None:
    assert not cgroup.is_marked(tmp_path)
    try:
        os.setxattr(tmp_path, "user.delegate", b"1")
    except OSError as exc:
        pytest.skip(f"no extended attributes here: {exc}")
    assert cgroup.is_marked(tmp_path)


def test_ones_own_group_is_found_in_a_tree_of_version_2_only(tmp_path: Path) -> None:
    lines = tmp_path / "cgroup"
    lines.write_text("4:memory:/x\n0::/system.slice/ollamad.service\n")
    assert own_group(lines, tmp_path) is None

    (tmp_path / "cgroup.controllers").write_text(EVERYTHING)
    assert own_group(lines, tmp_path) == tmp_path / "system.slice" / "ollamad.service"


def test_a_runner_gets_a_group_with_limits_from_its_plan(service: Path) -> None:
    group = claimed(service).make()
    group.limit_memory(4 * GIB)

    def value(name: str) -> int:
        return int((group.folder / name).read_text())

    assert value("memory.high") == 5 * GIB + 512 * MIB
    assert value("memory.max") == int((5 * GIB + 512 * MIB) * 1.25)
    assert value("cpu.weight") < 100
    assert value("memory.oom.group") == 1
    assert value("pids.max") == cgroup.PIDS_MAX


def test_a_controller_that_is_not_there_is_not_written_to(service: Path) -> None:
    (service / "cgroup.controllers").write_text("pids")
    group = claimed(service).make()
    group.limit_memory(GIB)

    assert {file.name for file in group.folder.iterdir()} == {"pids.max"}


def test_a_group_is_killed_as_a_whole_and_removed(service: Path) -> None:
    tree = claimed(service)
    group = tree.make()
    assert group.kill()
    assert (group.folder / "cgroup.kill").read_text() == "1"
    leaves(group)
    tree.remove(group)

    assert not group.folder.exists()


def test_a_group_that_processes_still_leave_is_removed_when_the_next_one_is_made(
    service: Path,
) -> None:
    tree = claimed(service)
    first = tree.make()
    tree.remove(first)
    assert first.folder.exists()

    leaves(first)
    second = tree.make()

    assert not first.folder.exists()
    assert second.folder != first.folder


def test_only_so_many_groups_are_tried_again(
    service: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cgroup, "DOOMED_MAX", 2)
    tree = claimed(service)
    groups = [tree.make() for _ in range(3)]
    for group in groups:
        tree.remove(group)
    for group in groups:
        leaves(group)
    tree.make()

    assert [group.folder.exists() for group in groups] == [False, False, True]


def test_what_an_earlier_life_left_is_ended_at_the_start(service: Path) -> None:
    (service / "runner-1").mkdir()
    tree = claimed(service)

    assert tree.end_leftovers() == 1
    assert (service / "runner-1" / "cgroup.kill").read_text() == "1"
    assert tree.make().folder.name == "runner-2"


def test_an_end_for_memory_is_counted(service: Path) -> None:
    group = claimed(service).make()
    assert group.n_oom_kills == 0

    (group.folder / "memory.events").write_text("low 0\nhigh 3\nmax 9\noom 1\noom_kill 1\n")
    assert group.n_oom_kills == 1


def test_a_limit_that_cannot_be_set_is_said(
    service: Path, caplog: pytest.LogCaptureFixture
) -> None:
    group = claimed(service).make()
    shutil.rmtree(group.folder)
    with caplog.at_level(logging.WARNING):
        group.limit_memory(GIB)

    assert "cannot set memory.max" in caplog.text
    assert not group.kill()
    assert group.try_remove()
