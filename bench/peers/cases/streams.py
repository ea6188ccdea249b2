"""Streams of tokens: one alone, several at once, a long prompt, and one that comes in between."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from bench.peers import clients
from bench.peers.case import Case
from bench.peers.clients import Load, LoadFailed
from bench.peers.dialects import Completion
from bench.peers.figures import Better, Figure, percentile
from bench.peers.prompts import Prompts
from bench.peers.servers import Server

N_IN: Final = 32
N_OUT: Final = 128
N_LONG: Final = 1500
CONCURRENT: Final = (4, 8)

N_STREAMS_DISTURBED: Final = 4
N_OUT_DISTURBED: Final = 256
PIECES_BEFORE: Final = 48
"""How much each stream has said before the long prompt comes."""


def ask(server: Server, prompts: list[str], n_tokens: int) -> list[Completion]:
    """Send all *prompts* at once; return what came.

    Raises LoadFailed if an answer has not exactly *n_tokens*: sides that compute different
    amounts cannot be compared.
    """
    requests = [server.dialect.completion(prompt, n_tokens) for prompt in prompts]
    answers = clients.together(server.address, requests)
    read = [server.dialect.read_completion(answer) for answer in answers]
    short = [answer.n_tokens for answer in read if answer.n_tokens != n_tokens]
    if short:
        raise LoadFailed(f"{short[0]} tokens instead of {n_tokens}; does it know ignore_eos?")
    return read


def single(server: Server, prompts: Prompts) -> Mapping[str, float]:
    """Measure one stream alone."""
    answer = ask(server, [prompts.text(N_IN)], N_OUT)[0]
    return {"decode": answer.decode_per_s, "first": answer.first_s * 1e3}


def prefill(server: Server, prompts: Prompts) -> Mapping[str, float]:
    """Measure how fast a long prompt is read: its tokens over the wait for the first one out."""
    answer = ask(server, [prompts.text(N_LONG)], 1)[0]
    return {"prefill": answer.n_prompt_tokens / answer.first_s}


def concurrent(n_streams: int) -> Callable[[Server, Prompts], Mapping[str, float]]:
    """Return the measurement of *n_streams* at once."""

    def measure(server: Server, prompts: Prompts) -> Mapping[str, float]:
        cpu_before_s = server.daemon_cpu_s()
        answers = ask(server, [prompts.text(N_IN, n) for n in range(n_streams)], N_OUT)
        cpu_after_s = server.daemon_cpu_s()
        n_tokens = sum(answer.n_tokens for answer in answers)
        begun_s = min(answer.started_s for answer in answers)
        ended_s = max(answer.arrivals_s[-1] for answer in answers)
        measured = {"tokens": n_tokens / (ended_s - begun_s)}
        if cpu_before_s is not None and cpu_after_s is not None:
            measured["daemon"] = (cpu_after_s - cpu_before_s) / n_tokens * 1e6
        return measured

    return measure


def disturbed(server: Server, prompts: Prompts) -> Mapping[str, float]:
    """Measure how streams stutter while a long prompt is read."""
    dialect = server.dialect
    with Load(server.address) as load:
        streams = [
            load.ask(dialect.completion(prompts.text(N_IN, n), N_OUT_DISTURBED))
            for n in range(N_STREAMS_DISTURBED)
        ]
        while min(len(stream.lines) for stream in streams) < PIECES_BEFORE:
            if load.n_running < N_STREAMS_DISTURBED:
                raise LoadFailed("a stream ended by itself; does the server know ignore_eos?")
            load.step()
        long = load.ask(dialect.completion(prompts.text(N_LONG, "long"), 1))
        load.finish()
    newcomer = dialect.read_completion(long)
    begun_s, read_s = newcomer.started_s, newcomer.arrivals_s[0]
    answers = [dialect.read_completion(stream) for stream in streams]
    # The first gap of each stream is still prefill of the others.
    settled_s = max(answer.arrivals_s[1] for answer in answers)
    before = [g for each in answers for g in each.gaps_s(after_s=settled_s, until_s=begun_s)]
    during = [g for each in answers for g in each.gaps_across_s(after_s=begun_s, until_s=read_s)]
    if not before or not during:
        raise LoadFailed("the streams ended before the long prompt was read")
    return {
        "before": percentile(before, 50) * 1e3,
        "during": percentile(during, 95) * 1e3,
        "longest": max(during) * 1e3,
        "stutter": percentile(during, 95) / percentile(before, 50),
        "first": newcomer.first_s * 1e3,
    }


TOKENS: Final = Figure("tokens", "tokens/s", Better.HIGHER)
FIRST: Final = Figure("first", "ms to first token", Better.LOWER)

CASES: Final = (
    Case(
        "single",
        "one stream, 32 in, 128 out",
        (Figure("decode", "tokens/s", Better.HIGHER), FIRST),
        single,
    ),
    Case(
        "prefill",
        "prompt of 1,500 tokens",
        (Figure("prefill", "tokens/s", Better.HIGHER),),
        prefill,
    ),
    *(
        Case(
            f"streams-{n}",
            f"{n} streams, 32 in, 128 out each",
            (TOKENS, Figure("daemon", "µs of the daemon per token", Better.LOWER)),
            concurrent(n),
        )
        for n in CONCURRENT
    ),
    Case(
        "disturbed",
        "4 streams while 1,500 tokens come in",
        (
            Figure("before", "ms between tokens before, p50", Better.LOWER),
            Figure("during", "ms between tokens meanwhile, p95", Better.LOWER),
            Figure("longest", "ms, the longest gap", Better.LOWER),
            Figure("stutter", "times, p95 meanwhile / p50 before", Better.LOWER),
            Figure("first", "ms to the newcomer's first token", Better.LOWER),
        ),
        disturbed,
    ),
)
