"""The rounds: both servers up on the same file, each case on one and then on the other.

Owns the order (A B, then B A) and what happens when a side cannot do a case: it is told once and
left out from then on, and everything else goes on.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from bench.peers import limit
from bench.peers.build import PeerPrograms
from bench.peers.case import Case, Needs
from bench.peers.cases.streams import CONCURRENT, N_IN, N_OUT, TOKENS
from bench.peers.clients import LoadFailed
from bench.peers.models import ModelFile
from bench.peers.others import Watch
from bench.peers.prompts import WORDS, Prompts, prompts_for
from bench.peers.report import number
from bench.peers.results import LIMIT, Results, Series
from bench.peers.servers import Ours, Peer, Server, Setting
from bench.peers.wire import BadResponse
from tools.console import Progress

N_SLOTS: Final = 8
N_CTX: Final = 2048
N_CTX_EMBEDDING: Final = 512
FAILURES: Final = (LoadFailed, BadResponse, OSError, ValueError, KeyError, ZeroDivisionError)
"""What a server that cannot do something makes of a case."""


@dataclasses.dataclass(frozen=True, slots=True)
class Pair:
    """Both servers, running, with texts for their model."""

    ours: Ours
    peer: Peer
    prompts: Prompts


@contextmanager
def running_pair(
    programs: PeerPrograms, model: ModelFile, setting: Setting, progress: Progress
) -> Iterator[Pair]:
    """Run both servers on *model* for the block, and end them whatever happens in it."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ollamad-bench-")))
        ours = Ours(model.path, setting, folder)
        peer = Peer(programs, model.path, setting, folder)
        for server in (ours, peer):
            progress.begin(f"{model.label}: starting {server.name}")
            stack.callback(server.end)
            server.start()
            progress.end()
        # What is embedded may be of any length; what is continued is counted to the token.
        any_words = Prompts(WORDS, 0, "")
        prompts = any_words if setting.is_embedding else prompts_for(peer.tokens)
        yield Pair(ours, peer, prompts)


class Contest:
    """A run over models, rounds and cases."""

    def __init__(
        self, programs: PeerPrograms, cases: Sequence[Case], n_threads: int, progress: Progress
    ) -> None:
        self.results = Results()
        self._programs = programs
        self._cases = cases
        self._n_threads = n_threads
        self._progress = progress

    def run(self, model: ModelFile, needs: Needs, n_rounds: int) -> None:
        """Compare on *model* in every case that *needs* such a model."""
        cases = [case for case in self._cases if case.needs is needs]
        if not cases:
            return
        is_embedding = needs is Needs.EMBEDDING
        setting = Setting(
            n_threads=self._n_threads,
            n_slots=N_SLOTS,
            n_ctx=N_CTX_EMBEDDING if is_embedding else N_CTX,
            is_embedding=is_embedding,
        )
        with running_pair(self._programs, model, setting, self._progress) as pair:
            for n_round in range(n_rounds):
                for n_case, case in enumerate(cases):
                    self._compare(pair, model, case, n_round, is_swapped=(n_round + n_case) % 2 > 0)
                    if case.name == f"streams-{CONCURRENT[0]}":
                        self._limit(model, setting, n_round)
                title = f"{model.label}: round {n_round + 1} of {n_rounds}"
                self._progress.say(f"{title} done")

    def _compare(
        self, pair: Pair, model: ModelFile, case: Case, n_round: int, *, is_swapped: bool
    ) -> None:
        sides: list[Server] = [pair.ours, pair.peer]
        touched: dict[str, Series] = {}
        for server in reversed(sides) if is_swapped else sides:
            measured = self._measure(server, pair.prompts, model, case, n_round)
            for figure in case.figures:
                if figure.name in measured:
                    touched[figure.name] = self.results.add(
                        model.label,
                        case.name,
                        case.title,
                        figure,
                        server.name,
                        n_round=n_round,
                        value=measured[figure.name],
                    )
        for series in touched.values():
            latest = {
                server.name: values[n_round]
                for server in sides
                if len(values := series.values.get(server.name, [])) > n_round
            }
            told = "  ".join(f"{side} {number(value)}" for side, value in latest.items())
            self._progress.say(f"    {series.figure.unit}: {told}")

    def _measure(
        self, server: Server, prompts: Prompts, model: ModelFile, case: Case, n_round: int
    ) -> Mapping[str, float]:
        key = (model.label, case.name, server.name)
        if key in self.results.left_out:
            return {}
        self._progress.begin(f"{model.label}, round {n_round + 1}: {case.title}, {server.name}")
        try:
            if case.is_fresh:
                server.refresh()
            with Watch(server.pids) as watch:
                measured = case.measure(server, prompts.seeded(f"{case.name}/{n_round}"))
        except FAILURES as exc:
            self._progress.end()
            reason = str(exc) or type(exc).__name__
            self.results.left_out[key] = reason
            self._progress.say(f"    {server.name} leaves it out: {reason}")
            return {}
        self._progress.end()
        self.results.disturbances.append(watch.share)
        return measured

    def _limit(self, model: ModelFile, setting: Setting, n_round: int) -> None:
        key = (model.label, LIMIT, LIMIT)
        if key in self.results.left_out:
            return
        self._progress.begin(f"{model.label}, round {n_round + 1}: the limit, llama-batched-bench")
        try:
            rates = limit.measure(
                self._programs,
                model.path,
                setting,
                n_in=N_IN,
                n_out=N_OUT,
                n_sequences=(1, *CONCURRENT),
            )
        except (LoadFailed, OSError) as exc:
            self._progress.end()
            self.results.left_out[key] = str(exc)
            return
        self._progress.end()
        titles = {case.name: case.title for case in self._cases}
        for n in CONCURRENT:
            name, value = f"streams-{n}", rates[n].tokens_per_s
            if name in titles:
                self.results.add(
                    model.label, name, titles[name], TOKENS, LIMIT, n_round=n_round, value=value
                )
            self._progress.say(f"    {n} sequences: {number(value)} tokens/s")
