"""Whether ours writes what llama.cpp's own server writes: `python -m bench equality`.

Greedy answers of the same file to the same texts must be the same, but for near-ties: where two
tokens are almost equally likely, the order of additions decides, and that depends on how tokens
are batched. So each first difference is shown with the distance of our two best tokens there. A
great distance means that one of the two computes something else.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from bench.peers import command, facts, models
from bench.peers.build import built_programs
from bench.peers.contest import N_CTX, N_SLOTS, Pair, running_pair
from bench.peers.dialects import MODEL
from bench.peers.servers import Setting, control
from tools.console import Progress, endings_raise
from tools.machine import SetupError

N_TOKENS: Final = 64
NEAR_TIE: Final = 0.1
"""Logits closer than this may change places by rounding alone."""

PROMPTS: Final = (
    "The capital of France is",
    "Once upon a time, in a village by the sea,",
    "def fibonacci(n):\n",
    "Water boils at a lower temperature in the mountains because",
    "The three laws of thermodynamics are:\n1.",
    "Dear Sir or Madam,\n",
    "SELECT name, age FROM users WHERE",
    "Question: What is the largest planet?\nAnswer:",
    "El perro corre por",
    "Le petit chat est",
    "1, 1, 2, 3, 5, 8, 13,",
    "The recipe needs flour, sugar,",
    "In 1969, the first humans",
    "<html>\n<head>\n<title>",
    "A haiku about rain:\n",
    "The difference between a virus and a bacterium is",
    "Roses are red,",
    "To install the package, run",
    "The meeting is moved from Monday to",
    "import numpy as np\n\n",
)


@dataclasses.dataclass(frozen=True, slots=True)
class Token:
    """One token of ours: its text, and how far the second best was."""

    text: str
    gap: float


@dataclasses.dataclass(frozen=True, slots=True)
class Difference:
    """The first token at which two answers part."""

    n_token: int
    ours: str
    theirs: str
    gap: float

    @property
    def is_near_tie(self) -> bool:
        """Whether rounding explains it."""
        return self.gap <= NEAR_TIE


def first_difference(ours: Sequence[Token], theirs: str) -> Difference | None:
    """Return where *theirs* leaves the text of *ours*, or None if one continues the other."""
    at = 0
    for n, token in enumerate(ours):
        rest = theirs[at:]
        if not rest.startswith(token.text):
            if token.text.startswith(rest):
                return None  # Theirs ended first.
            return Difference(n, token.text, rest[: max(8, len(token.text))], token.gap)
        at += len(token.text)
    return None


def n_within(tokens: Sequence[Token], text: str) -> int:
    """Return how many whole tokens at the beginning of *tokens* fit into *text*."""
    ends = itertools.accumulate(len(token.text) for token in tokens)
    return sum(end <= len(text) for end in ends)


def tokens_of(answer: Mapping[str, Any]) -> list[Token]:
    """Return the tokens of our answer. Any: decoded JSON. Raises KeyError without logprobs."""
    tokens: list[Token] = []
    for entry in answer["logprobs"]:
        best = sorted((each["logprob"] for each in entry["top_logprobs"]), reverse=True)
        # Differences of log-probabilities are differences of logits.
        tokens.append(Token(entry["token"], best[0] - best[1] if len(best) > 1 else float("inf")))
    return tokens


def compare(pair: Pair, prompt: str) -> tuple[int, Difference | None]:
    """Let both continue *prompt* alone; return how many tokens are alike, and where they part."""
    options = {"num_predict": N_TOKENS, "temperature": 0, "seed": 1}
    body = {"model": MODEL, "prompt": prompt, "raw": True, "stream": False, "options": options}
    body |= {"logprobs": True, "top_logprobs": 2, "keep_alive": -1}
    ours = control(pair.ours.address, "POST", "/api/generate", body)
    theirs = control(
        pair.peer.address,
        "POST",
        "/completion",
        {"prompt": prompt, "n_predict": N_TOKENS, "temperature": 0, "cache_prompt": False},
    )
    tokens, text = tokens_of(ours), str(theirs["content"])
    difference = first_difference(tokens, text)
    if difference is not None:
        return difference.n_token, difference
    # Where one ended first, only what both wrote was compared.
    return n_within(tokens, text), None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--model", type=Path, metavar="GGUF", help="default: the installed one")
    parser.add_argument("--threads", type=int, default=facts.n_physical_cores())


def run(arguments: argparse.Namespace) -> int:
    """Compare and print; return 1 if something differs that no near-tie explains."""
    progress = Progress(sys.stdout)
    setting = Setting(n_threads=arguments.threads, n_slots=N_SLOTS, n_ctx=N_CTX)
    n_differing = n_compared = 0
    try:
        with endings_raise():
            programs = built_programs(command.ROOT, dict(os.environ), progress)
            model = models.given(arguments.model) if arguments.model else models.embedded()
            with running_pair(programs, model, setting, progress) as pair:
                for prompt in PROMPTS:
                    n_alike, difference = compare(pair, prompt)
                    n_compared += n_alike
                    n_differing += difference is not None and not difference.is_near_tie
                    progress.say(f"{prompt[:40]!r:<44} {described(n_alike, difference)}")
    except SetupError as exc:
        print(f"bench: {exc}", file=sys.stderr)
        return 1
    progress.say(
        f"{n_differing} of {len(PROMPTS)} differ beyond a near-tie (gap {NEAR_TIE});"
        f" {n_compared} tokens alike"
    )
    return 1 if n_differing else 0


def described(n_alike: int, difference: Difference | None) -> str:
    """Return what the table says about one prompt."""
    if difference is None:
        return f"the same, {n_alike} tokens"
    kind = "near-tie" if difference.is_near_tie else "DIFFERS"
    return (
        f"{kind} at token {difference.n_token}: {difference.ours!r} and {difference.theirs!r},"
        f" our gap {difference.gap:.3f}"
    )
