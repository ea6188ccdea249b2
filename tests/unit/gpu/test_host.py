from __future__ import annotations

import os
import types
from pathlib import Path

import psutil
import pytest

from ollamad.gpu import host
from ollamad.gpu.devices import HOST
from ollamad.gpu.host import HostMemory, n_cores, own_cgroup
from ollamad.units import GIB, MIB

MACHINE_BYTES = 64 * GIB
AVAILABLE_BYTES = 48 * GIB


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with 64 GiB, 48 of them available, and 16 cores of two threads each."""
    memory = types.SimpleNamespace(total=MACHINE_BYTES, available=AVAILABLE_BYTES)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    monkeypatch.setattr(psutil, "cpu_count", lambda *, logical: 32 if logical else 16)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(32)))
    monkeypatch.setattr(host, "own_cgroup", lambda: None)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hierarchy of cgroups."""
    folder = tmp_path / "cgroup"
    folder.mkdir()
    monkeypatch.setattr(host, "_CGROUP_ROOT", folder)
    return folder


def a_group(
    folder: Path,
    *,
    limit: int | str | None = None,
    current: int | None = None,
    cached: int = 0,
    cpu_max: str | None = None,
) -> Path:
    """Make a cgroup as the kernel shows it, with the files that are named here."""
    folder.mkdir(parents=True, exist_ok=True)
    stat = f"anon 1\nfile {cached}\ninactive_file {cached // 4}\nactive_file {cached * 3 // 4}"
    files = {
        "memory.max": limit,
        "memory.current": current,
        "memory.stat": stat if cached else None,
        "cpu.max": cpu_max,
    }
    for name, content in files.items():
        if content is not None:
            (folder / name).write_text(f"{content}\n")
    return folder


def in_use(memory: HostMemory) -> int:
    return memory.used_bytes(memory.facts().capacity_bytes)


def test_without_a_cgroup_the_machine_is_the_limit() -> None:
    memory = HostMemory()

    assert memory.facts().device == HOST
    assert memory.facts().capacity_bytes == MACHINE_BYTES
    assert in_use(memory) == MACHINE_BYTES - AVAILABLE_BYTES


@pytest.mark.parametrize(
    ("outer", "inner", "configured", "capacity_bytes"),
    [
        ("max", "max", 0, MACHINE_BYTES),
        ("max", 4 * GIB, 0, 4 * GIB),
        (4 * GIB, "max", 0, 4 * GIB),
        (4 * GIB, 8 * GIB, 0, 4 * GIB),
        (4 * GIB, 8 * GIB, 2 * GIB, 2 * GIB),
        (128 * GIB, None, 0, MACHINE_BYTES),
        ("garbage", "", 0, MACHINE_BYTES),
    ],
)
def test_the_tightest_limit_at_any_level_counts(
    root: Path, outer: int | str, inner: int | str | None, configured: int, capacity_bytes: int
) -> None:
    a_group(root / "slice", limit=outer)
    group = a_group(root / "slice" / "service", limit=inner)

    facts = HostMemory(memory_max_bytes=configured, cgroup=group).facts()

    assert facts.capacity_bytes == capacity_bytes


def test_a_limit_above_the_hierarchys_root_is_not_looked_for(root: Path) -> None:
    a_group(root.parent, limit=GIB)
    group = a_group(root / "service", limit=8 * GIB)

    assert HostMemory(cgroup=group).facts().capacity_bytes == 8 * GIB


@pytest.mark.parametrize(
    ("current", "cached", "used"),
    [(0, 0, 0), (3 * GIB, 0, 3 * GIB), (3 * GIB, 2 * GIB, GIB), (4 * GIB, 0, 4 * GIB)],
    ids=["nothing", "own", "mostly-page-cache", "full"],
)
def test_page_cache_is_not_in_use(root: Path, current: int, cached: int, used: int) -> None:
    group = a_group(root / "service", limit=4 * GIB, current=current, cached=cached)

    assert in_use(HostMemory(cgroup=group)) == used


def test_the_tightest_level_says_how_much_is_in_use(root: Path) -> None:
    """A neighbour in the same slice uses what the slice may use."""
    a_group(root / "slice", limit=10 * GIB, current=9 * GIB)
    group = a_group(root / "slice" / "service", limit=4 * GIB, current=GIB)

    assert in_use(HostMemory(cgroup=group)) == 3 * GIB


def test_a_machine_without_memory_counts_even_in_a_roomy_cgroup(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = types.SimpleNamespace(total=MACHINE_BYTES, available=GIB)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    group = a_group(root / "service", limit=4 * GIB, current=0)

    assert in_use(HostMemory(cgroup=group)) == 3 * GIB


def test_a_configured_limit_below_what_is_available_is_all_free() -> None:
    assert in_use(HostMemory(memory_max_bytes=8 * GIB)) == 0


def test_a_limit_that_changes_is_seen_at_the_next_reading(root: Path) -> None:
    group = a_group(root / "service", limit=4 * GIB, current=GIB)
    memory = HostMemory(cgroup=group)
    assert memory.facts().capacity_bytes == 4 * GIB

    a_group(group, limit=512 * MIB)

    assert memory.facts().capacity_bytes == 512 * MIB


@pytest.mark.parametrize(
    ("n_affine", "outer", "inner", "expected"),
    [
        (32, None, None, 16),
        (8, None, None, 4),
        (1, None, None, 1),
        (32, None, "max 100000", 16),
        (32, None, "400000 100000", 4),
        (32, "200000 100000", "400000 100000", 2),
        (32, None, "50000 100000", 1),
        (8, None, "1600000 100000", 4),
        (32, None, "garbage", 16),
    ],
)
def test_affinity_and_quota_bound_the_cores(
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    n_affine: int,
    outer: str | None,
    inner: str | None,
    expected: int,
) -> None:
    a_group(root / "slice", cpu_max=outer)
    group = a_group(root / "slice" / "service", cpu_max=inner)
    monkeypatch.setattr(host, "own_cgroup", lambda: group)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(n_affine)))

    assert n_cores() == expected


def test_a_machine_that_does_not_tell_its_cores_is_taken_by_its_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(psutil, "cpu_count", lambda *, logical: None)

    assert n_cores() == 32


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("0::/system.slice/ollamad.service\n", "system.slice/ollamad.service"),
        ("4:memory:/old\n0::/\n", "."),
        ("4:memory:/old\n", None),
        ("", None),
        (None, None),
    ],
    ids=["unified", "hybrid-root", "version-1", "empty", "unreadable"],
)
def test_the_own_cgroup_is_the_unified_one(
    root: Path, monkeypatch: pytest.MonkeyPatch, content: str | None, expected: str | None
) -> None:
    def read_text(path: Path) -> str:
        assert path == Path("/proc/self/cgroup")
        if content is None:
            raise FileNotFoundError(path)
        return content

    monkeypatch.setattr(Path, "read_text", read_text)

    assert own_cgroup() == (root / expected if expected is not None else None)
