"""`python -m bench peers`: ours against llama.cpp's own server, side by side on this machine."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import sys
from pathlib import Path
from typing import Final

from bench.peers import facts, models, report
from bench.peers.build import built_programs
from bench.peers.case import Case, Needs
from bench.peers.cases import conversations, house, streams
from bench.peers.contest import N_CTX, N_SLOTS, Contest
from bench.peers.models import ModelFile
from tools import machine
from tools.console import Progress, Runner, endings_raise
from tools.machine import SetupError

ROOT: Final = Path(__file__).resolve().parent.parent.parent
CASES: Final[tuple[Case, ...]] = (*streams.CASES, *conversations.CASES, *house.CASES)
ROUNDS: Final = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--model",
        action="append",
        type=Path,
        default=[],
        metavar="GGUF",
        help="compare on this file too (repeatable)",
    )
    parser.add_argument(
        "--gemma", action="store_true", help="compare on Gemma 3 270M too; fetched once (250 MB)"
    )
    parser.add_argument(
        "--no-embedded", action="store_true", help="leave the model out that is installed with us"
    )
    parser.add_argument(
        "--embedding-model", type=Path, metavar="GGUF", help="what the embedding case runs on"
    )
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"default {ROUNDS}")
    parser.add_argument(
        "--threads",
        type=int,
        default=facts.n_physical_cores(),
        help="of both servers; default: one a physical core",
    )
    parser.add_argument("--cases", help="only these, by name and separated by commas")
    parser.add_argument("--list", action="store_true", help="list the cases and end")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write all values as JSON")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the ratios as a PNG")
    parser.add_argument("--build", action="store_true", help="only build llama.cpp's programs")


def chosen_cases(wanted: str | None) -> tuple[Case, ...]:
    """Return the cases that *wanted* names, or all. Raises SetupError."""
    if wanted is None:
        return CASES
    by_name = {case.name: case for case in CASES}
    names = [name.strip() for name in wanted.split(",") if name.strip()]
    unknown = [name for name in names if name not in by_name]
    if unknown or not names:
        raise SetupError(f"no such case: {', '.join(unknown)}; there are: {', '.join(by_name)}")
    return tuple(case for case in CASES if case.name in names)


def run(arguments: argparse.Namespace) -> int:
    """Compare; return the exit status."""
    if arguments.list:
        for case in CASES:
            print(f"{case.name:<14} {case.title}")
        return 0
    progress = Progress(sys.stdout)
    try:
        with endings_raise(), contextlib.ExitStack() as stack:
            stack.callback(progress.abandon)
            return _compare(arguments, progress)
    except SetupError as exc:
        print(f"bench: {exc}", file=sys.stderr)
        return 1


def _compare(arguments: argparse.Namespace, progress: Progress) -> int:
    cases = chosen_cases(arguments.cases)
    if arguments.rounds < 1 or arguments.threads < 1:
        raise SetupError("--rounds and --threads must be at least 1")
    environ = dict(os.environ)
    programs = built_programs(ROOT, environ, progress)
    if arguments.build:
        progress.say(f"llama.cpp's programs are in {programs.folder}")
        return 0
    text_models = _text_models(arguments, environ, progress)
    embedding = models.given(arguments.embedding_model) if arguments.embedding_model else None
    before = facts.busyness()
    contest = Contest(programs, cases, arguments.threads, progress)
    interrupted = False
    try:
        for model in text_models:
            contest.run(model, Needs.TEXT, arguments.rounds)
        if embedding is not None:
            contest.run(embedding, Needs.EMBEDDING, arguments.rounds)
        elif any(case.needs is Needs.EMBEDDING for case in cases):
            progress.say("embeddings are left out: name a model with --embedding-model")
    except (KeyboardInterrupt, SystemExit):
        progress.abandon()
        progress.say("interrupted; this is what there is")
        interrupted = True
    about = {**facts.facts(ROOT, programs)}
    for when, busy in (("before", before), ("after", facts.busyness())):
        about[when] = dataclasses.asdict(busy)
    settings = {
        "threads": arguments.threads,
        "rounds": arguments.rounds,
        "slots": N_SLOTS,
        "n_ctx": N_CTX,
        "interrupted": interrupted,
    }
    report.show(contest.results)
    subtitle = f"{about['processor']}, {arguments.threads} threads, {arguments.rounds} rounds"
    load = ", ".join(f"{each:.1f}" for each in before.load_average)
    progress.say(f"{subtitle}; load average before: {load}")
    progress.say(report.disturbed(contest.results))
    if arguments.out:
        report.write_json(arguments.out, contest.results, about, settings)
        progress.say(f"all values: {arguments.out}")
    if arguments.plot:
        missing = report.plot(arguments.plot, contest.results, subtitle)
        progress.say(missing or f"picture: {arguments.plot}")
    return 130 if interrupted else 0


def _text_models(
    arguments: argparse.Namespace, environ: dict[str, str], progress: Progress
) -> list[ModelFile]:
    found = [] if arguments.no_embedded else [models.embedded()]
    if arguments.gemma:
        cache = machine.cache_home(environ)
        found.append(models.gemma(cache, Runner(progress, cache / "bench.log")))
    found += [models.given(path) for path in arguments.model]
    if not found and arguments.embedding_model is None:
        raise SetupError("there is no model to compare on; name one with --model")
    return found
