from __future__ import annotations

import mmap
from pathlib import Path

from ollamad.runners.protocol import MemoryUse
from ollamad.runners.worker.memoryuse import (
    PROMISE_BYTES_MIN,
    MemoryBefore,
    mappings_in,
    memory_before,
    memory_use,
)
from ollamad.runners.worker.memoryuse import promised_in as promised_in_mappings
from ollamad.units import KIB, MIB


def a_mapping(size_kib: int, rss_kib: int, mode: str = "rw-p", name: str = "") -> str:
    return (
        f"7f3367e2e000-7f33877b3000 {mode} 00000000 00:00 {'12' if name.startswith('/') else '0'}"
        f" {name}\nSize: {size_kib} kB\nKernelPageSize: 4 kB\nRss: {rss_kib} kB\n"
        "VmFlags: rd wr mr mw me ac sd\n"
    )


def promised_in(smaps: str) -> int:
    return promised_in_mappings(list(mappings_in(smaps)))


def test_untouched_parts_of_large_mappings_are_promises() -> None:
    smaps = a_mapping(100_000, 30_000) + a_mapping(50_000, 0)

    assert promised_in(smaps) == 120_000 * KIB


def test_only_large_private_writable_memory_without_a_name_is_promised() -> None:
    small = PROMISE_BYTES_MIN // KIB - 4
    smaps = (
        a_mapping(small, 0)
        + a_mapping(65_404, 0, mode="---p")
        + a_mapping(100_000, 0, mode="r--s", name="/models/weights")
        + a_mapping(100_000, 0, mode="rw-p", name="/models/weights")
        + a_mapping(100_000, 0, name="[heap]")
    )

    assert promised_in(smaps) == 0
    assert promised_in(a_mapping(small + 4, 0)) == PROMISE_BYTES_MIN


def test_a_thread_s_stack_is_no_promise_but_a_buffer_that_was_joined_to_it_is() -> None:
    guard = "7f0000000000-7f0000001000 ---p 00000000 00:00 0 \nSize: 4 kB\nRss: 0 kB\n"
    stack = "7f0000001000-7f0000801000 rw-p 00000000 00:00 0 \nSize: 8192 kB\nRss: 8 kB\n"
    joined = "7f0000001000-7f0002001000 rw-p 00000000 00:00 0 \nSize: 32768 kB\nRss: 0 kB\n"

    assert promised_in(guard + stack) == 0
    assert promised_in(guard + joined) == 24 * MIB
    assert promised_in(stack) == 0, "its guard may have become part of something else"


def test_a_real_mapping_is_a_promise_until_it_is_touched() -> None:
    before = memory_before()
    with mmap.mmap(-1, 64 * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as mapping:
        mapped = memory_use(before)
        mapping[: 32 * MIB] = b"x" * (32 * MIB)
        touched = memory_use(before)

    assert mapped.promised_bytes >= 63 * MIB
    assert touched.anonymous_bytes - mapped.anonymous_bytes >= 30 * MIB
    assert mapped.promised_bytes - touched.promised_bytes >= 31 * MIB


def test_what_was_promised_to_libraries_before_is_not_the_model_s() -> None:
    before = MemoryBefore(memory_before().promised_bytes + MIB)

    assert memory_use(before).promised_bytes == 0


def test_only_files_that_came_with_the_model_are_its_own(tmp_path: Path) -> None:
    path = tmp_path / "the weights"
    path.write_bytes(bytes(3 * MIB))
    before = memory_before()
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapping:
        assert mapping.find(b"x") == -1, "all of it is read"
        mapped = memory_use(before)

    assert mapped.file_bytes == 3 * MIB
    assert memory_use(before).file_bytes == 0


def test_what_is_held_is_what_was_touched_promised_and_mapped() -> None:
    memory = MemoryUse(anonymous_bytes=1, promised_bytes=20, file_bytes=300)

    assert memory.held_bytes == 321


def test_what_the_engine_will_take_later_is_promised() -> None:
    before = memory_before()

    more = MemoryBefore(before.promised_bytes + MIB)
    assert memory_use(more, later_bytes=5 * MIB).promised_bytes == 5 * MIB
