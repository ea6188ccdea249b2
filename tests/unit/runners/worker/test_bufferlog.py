from __future__ import annotations

from ollamad.buffersizes import BufferSizes
from ollamad.runners.worker.bufferlog import BUFFERS_MAX, BufferLog
from ollamad.units import MIB

ON_HOST = b"""\
print_info: file size   = 92.10 MiB (5.74 BPW)
load_tensors:   CPU_Mapped model buffer size =    92.10 MiB
llama_context:        CPU  output buffer size =     5.25 MiB
llama_kv_cache:        CPU KV buffer size =   360.00 MiB
llama_kv_cache: size =  360.00 MiB ( 16384 cells,  30 layers, 28/1 seqs), K (f16):  180.00 MiB
sched_reserve:        CPU compute buffer size =    98.50 MiB
load: token to piece cache size = 0.3170 MB
"""


def read(text: bytes) -> BufferLog:
    log = BufferLog()
    for line in text.splitlines():
        log.take(line)
    return log


def test_totals_are_read_and_single_buffers_are_not() -> None:
    """In a dry run the lines for single buffers of weights and context say 0."""
    assert read(ON_HOST).sizes() == BufferSizes(
        context_bytes=360 * MIB,
        compute_bytes=int(98.5 * MIB),
        output_bytes=int(5.25 * MIB),
    )


def test_caches_and_states_of_one_context_add_up() -> None:
    log = read(
        ON_HOST
        + b"llama_kv_cache: size =   40.00 MiB (  4608 cells,  15 layers,  8/1 seqs), K (f16)\n"
        + b"llama_memory_recurrent: size =    2.00 MiB (     8 cells,   2 layers,  8 seqs)\n"
    )

    sizes = log.sizes()
    assert sizes is not None
    assert sizes.context_bytes == 402 * MIB


def test_devices_are_told_from_main_memory_and_a_second_reservation_is_no_second_buffer() -> None:
    sizes = read(
        b"sched_reserve:      CUDA0 compute buffer size =   100.00 MiB\n"
        b"sched_reserve:      CUDA1 compute buffer size =   300.00 MiB\n"
        b"sched_reserve:      CUDA1 compute buffer size =   200.00 MiB\n"
        b"sched_reserve:  CUDA_Host compute buffer size =    20.00 MiB\n"
        b"sched_reserve:        CPU compute buffer size =     1.00 MiB\n"
    ).sizes()

    assert sizes is not None
    assert (sizes.device_compute_bytes, sizes.compute_bytes) == (300 * MIB, 21 * MIB)


def test_a_log_that_says_no_size_says_nothing() -> None:
    log = read(b"llama_context: n_ctx = 16384\n size = garbage MiB (\n")

    assert log.sizes() is None


def test_another_model_starts_from_nothing() -> None:
    log = read(ON_HOST)
    log.clear()

    assert log.sizes() is None


def test_no_more_buffers_are_remembered_than_there_can_be() -> None:
    lines = b"".join(b"a: B%d compute buffer size = 1.00 MiB\n" % n for n in range(BUFFERS_MAX + 9))
    log = read(lines + b"a: CPU compute buffer size = 1.00 MiB\n")

    sizes = log.sizes()
    assert sizes is not None
    assert sizes.compute_bytes == 0
