from __future__ import annotations

import pytest

from bench.peers.limit import BatchRate, parse_rates

PRINTED = """\
0.00.100.123 I main: loading model
{"n_kv_max": 16384, "n_batch": 2048, "n_ubatch": 512, "flash_attn": -1, "is_pp_shared": 0, \
"n_gpu_layers": -1, "n_threads": 2, "n_threads_batch": 2, "pp": 32, "tg": 128, "pl": 1, \
"n_kv": 160, "t_pp": 0.032, "speed_pp": 1000.0, "t_tg": 1.28, "speed_tg": 100.0, "t": 1.312, \
"speed": 121.95}
0.00.200.123 I {"pp": 32, "tg": 128, "pl": 8, "speed_pp": 2000.0, "speed_tg": 400.0}
{"something": "else"}
{broken
"""


def test_rates_are_found_among_the_log() -> None:
    assert parse_rates(PRINTED) == [
        BatchRate(32, 128, 1, 1000.0, 100.0),
        BatchRate(32, 128, 8, 2000.0, 400.0),
    ]


def test_the_limit_counts_reading_and_writing() -> None:
    # 8 x 32 / 2000 + 8 x 128 / 400 = 2.688 s for 1024 tokens.
    assert BatchRate(32, 128, 8, 2000.0, 400.0).tokens_per_s == pytest.approx(1024 / 2.688)
