"""Whatever is sent to whichever route: an answer that is nobody's crash, and nothing left behind.

In virtual time, where a hang is seen at once: nothing is due any more, or only in a year.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
import trio
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from quart_trio import QuartTrio
from trio.testing import MockClock, wait_all_tasks_blocked

from ollamad.names import ModelName
from ollamad.registry.create import CreateSpec
from tests.builders import a_gguf_blob, created
from tests.fakes.launcher import Script
from tests.wire.apps import noted_apps, routes_of
from tests.wire.site import Answer, Site, a_site
from tests.wire.templates import TOOLS

ANSWER_S: Final = 3600
"""What any answer of a fake runner may take."""
EXAMPLES: Final = 60
REQUESTS: Final = 6
"""Requests of one example: what one leaves behind, the next one meets."""

_PARAMETER: Final = re.compile("<[^>]+>")

FIELDS: Final[dict[str, tuple[object, ...]]] = {
    "model": ("tiny", "TINY", "ranker", "x", "", "tiny:local", "a:cloud", "../../etc"),
    "name": ("tiny", ""),
    "source": ("tiny", "x"),
    "destination": ("other", "tiny", ""),
    "from": ("tiny", "x"),
    "files": ({"a.gguf": "sha256:" + "0" * 64}, {"../a": "x"}),
    "prompt": ("hi", "", ["hi"], [1, 2]),
    "messages": (
        [],
        [{"role": "user", "content": "hi"}],
        [{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
        [{"role": "tool", "content": "4", "tool_call_id": "x"}],
        [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": {}}}]}],
        [{"role": "assistant", "content": "I am"}],
    ),
    "tools": (
        [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
        [{"type": "function", "function": 5}],
        [{}],
    ),
    "tool_choice": ("required", "auto", "none", {"type": "tool", "name": "f"}, {"type": "any"}),
    "format": ("json", {"type": "object"}, {"$ref": "#"}, "xml"),
    "response_format": ({"type": "json_object"}, {"type": "json_schema", "json_schema": {}}),
    "options": ({"num_ctx": 1}, {"stop": ["a"]}, {"temperature": 0, "num_predict": 2}),
    "keep_alive": (0, -1, "5m", "5", 1e300, "forever"),
    "think": (True, False, "low", "x"),
    "stream": (True, False),
    "raw": (True,),
    "suffix": ("x",),
    "template": ("{{ .Prompt }}", "{% for %}", "{{ messages }}"),
    "context": ([1, 2, 3], [-1], [2**40]),
    "input": ("a", ["a", ""], [[1, 2]], [{"role": "user", "content": "hi"}]),
    "documents": (["a", "b"], [{"text": "c"}]),
    "query": ("q",),
    "dimensions": (1, -1, 2**70),
    "top_logprobs": (3, 21, -1),
    "logprobs": (True, 3),
    "images": (["aGk="],),
    "max_tokens": (1, 0, -1),
    "n": (2, 0),
    "best_of": (1, 3, -1),
    "echo": (True,),
    "stop": ("a", ["a", "b"], [5]),
    "seed": (2**63, -(2**63), -1),
    "logit_bias": ({"1": -100}, {"x": 1}, {"1": "x"}),
    "guided_regex": ("[a-z]+", "("),
    "guided_choice": (["yes", "no"], []),
    "structured_outputs": ({"json": {"type": "object"}}, {"regex": 5}),
    "reasoning_effort": ("none", "high", "x"),
    "stream_options": ({"include_usage": True}, {}),
    "encoding_format": ("base64", "float", "x"),
    "top_n": (1, 0, 2**70),
    "_debug_render_only": (True,),
    "verbose": (True,),
}
"""Fields that routes have, with values that bring a request past the first checks."""

numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none() | st.booleans() | numbers | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)


@st.composite
def bodies(draw: st.DrawFn) -> object:
    """Mostly objects of known fields, whose values are now and then of any shape."""
    if draw(st.integers(0, 9)) == 0:
        return draw(json_values | st.binary(max_size=30))
    names = draw(st.sets(st.sampled_from(sorted(FIELDS)), max_size=8))
    body: dict[str, object] = {"model": "tiny"}
    for name in sorted(names):
        is_wild = draw(st.integers(0, 5)) == 0
        body[name] = draw(json_values if is_wild else st.sampled_from(FIELDS[name]))
    return body


requests = st.lists(st.tuples(st.integers(0, 10**6), bodies()), min_size=1, max_size=REQUESTS)


def addresses(app: QuartTrio) -> list[tuple[str, str]]:
    """Return every method with a path, parameters filled in."""
    return sorted((method, _PARAMETER.sub("tiny", path)) for method, path in routes_of(app))


async def fuzzed(folder: Path, app_of: list[QuartTrio], asked: list[tuple[int, Any]]) -> None:
    script = Script(says='one <tool_call>{"name": "f", "arguments": {}}</tool_call> "two"')
    async with a_site(folder, script, chat_template=TOOLS) as site:
        ranker = a_gguf_blob(site.store, folder, metadata={"llama.pooling_type": 4})
        files = {"ranker.gguf": str(ranker)}
        created(site.store, CreateSpec(name=ModelName.parse("ranker"), files=files))
        known = addresses(app_of[-1])
        for number, body in asked:
            method, path = known[number % len(known)]
            answer = await _answered(site, method, path, body)
            assert answer.status < 500 or answer.status == 503, (path, body, answer.body[:500])
            _assert_readable(answer, path)
        await wait_all_tasks_blocked()
        assert [view.n_leases for view in site.house.supervisor.residents() if view.n_leases] == []
        assert site.house.core.line.n_waiting == 0


async def _answered(site: Site, method: str, path: str, body: Any) -> Answer:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    with trio.fail_after(ANSWER_S):
        return await site.ask(method, path, data)


def _assert_readable(answer: Answer, path: str) -> None:
    kind = answer.headers.get("content-type", "")
    if kind.startswith("application/json") and answer.body:
        assert isinstance(answer.json, dict), path
    elif kind.startswith("application/x-ndjson"):
        assert all(isinstance(line, dict) for line in answer.lines), path


async def _inline(work: Callable[[], Any], **_: Any) -> Any:
    await trio.lowlevel.checkpoint()
    return work()


@pytest.fixture
def app_of(monkeypatch: pytest.MonkeyPatch) -> list[QuartTrio]:
    """The applications that were built, the last one last.

    They read files without threads, because virtual time jumps while one works.
    """
    monkeypatch.setattr(trio.to_thread, "run_sync", _inline)
    return noted_apps(monkeypatch)


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(asked=requests)
@example(asked=[(number, {"model": "tiny", "prompt": "hi"}) for number in range(40)])
@example(asked=[(number, {"model": "tiny", "messages": [{}]}) for number in range(40)])
@example(asked=[(number, {"model": "ranker", "query": "q"}) for number in range(40)])
@example(asked=[(number, b"") for number in range(40)])
def test_nothing_that_is_sent_breaks_hangs_or_holds_anything(
    app_of: list[QuartTrio], asked: list[tuple[int, Any]]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        trio.run(fuzzed, Path(folder), app_of, asked, clock=MockClock(autojump_threshold=0))
