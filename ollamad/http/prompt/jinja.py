"""Jinja chat templates, as model makers write them: rendered like Hugging Face's libraries do.

Templates come with models, so they are untrusted: Jinja's immutable sandbox keeps them from the
daemon's objects, and every loop round, call and text operation is counted and bounded, because a
template that never ends would stop the whole daemon.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
import jinja2.sandbox
from jinja2 import nodes

from ollamad.errors import TemplateBroken
from ollamad.wallclock import WallClock

TEMPLATE_CHARS_MAX: Final = 1 << 20
STEPS_MAX: Final = 200_000
"""Loop rounds and calls in one rendering. A long chat with many tools takes a few thousand."""
OUTPUT_CHARS_MAX: Final = 16 << 20
TEXT_CHARS_MAX: Final = 16 << 20
"""Characters that one operation on texts may make."""
REPEAT_MAX: Final = 1 << 16
"""How often a text or list may be repeated by one multiplication."""
_WIDTH_METHODS: Final = frozenset({"center", "ljust", "rjust", "zfill", "expandtabs"})
_WIDTH_FILTERS: Final = frozenset({"center", "indent", "format", "wordwrap", "batch", "slice"})
_CACHED_TEMPLATES: Final = 64


class _TooMuchError(jinja2.TemplateRuntimeError):
    """A bound was reached."""


class _Generation(jinja2.ext.Extension):
    """`{% generation %}` marks the assistant's text for training; rendering ignores the marks."""

    tags = {"generation"}  # noqa: RUF012 - jinja2's own interface

    def parse(self, parser: jinja2.parser.Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Bounded(jinja2.sandbox.ImmutableSandboxedEnvironment):
    """A sandbox that also counts. One rendering at a time: rendering never awaits."""

    intercepted_binops = frozenset({"*", "**", "+", "%"})

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=["jinja2.ext.loopcontrols", _Generation],
        )
        self.steps_left = 0
        self.filters["tojson"] = _to_json
        for name in _WIDTH_FILTERS:
            self.filters[name] = _bounded_width(self.filters[name])

    def tick(self) -> str:
        """Count one loop round."""
        self.steps_left -= 1
        if self.steps_left < 0:
            raise _TooMuchError(f"it takes more than {STEPS_MAX} steps")
        return ""

    def join_texts(self, *parts: object) -> str:
        """Concatenate, as the `~` operator does, within bounds."""
        texts = [str(part) for part in parts]
        if sum(map(len, texts)) > TEXT_CHARS_MAX:
            raise _TooMuchError("it makes a text that is too long")
        return "".join(texts)

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        template = super()._parse(source, name, filename)
        repeated: list[nodes.For | nodes.Macro | nodes.CallBlock] = [
            *template.find_all(nodes.For),
            *template.find_all(nodes.Macro),
            *template.find_all(nodes.CallBlock),
        ]
        for node in repeated:
            node.body.insert(0, nodes.Output([_call_environment("tick", [])]))
        return _Rewriter().visit(template)  # type: ignore[no-any-return]

    def call_binop(
        self, context: jinja2.runtime.Context, operator: str, left: Any, right: Any
    ) -> Any:  # values of the template's own
        if operator == "*" and isinstance(left, str | list | tuple | str):
            _check_repeat(right, left)
        elif operator == "*" and isinstance(right, str | list | tuple):
            _check_repeat(left, right)
        elif operator == "**" and not (abs(left) < REPEAT_MAX and abs(right) < 64):
            raise _TooMuchError("it raises a number to a power that is too large")
        elif operator == "%" and isinstance(left, str) and len(left) > TEXT_CHARS_MAX:
            raise _TooMuchError("it formats a text that is too long")
        elif operator == "%" and isinstance(left, str):
            _check_format_widths(left)
        elif operator == "+" and isinstance(left, str) and isinstance(right, str):
            return self.join_texts(left, right)
        return super().call_binop(context, operator, left, right)

    def call(
        __self,  # noqa: N805 - jinja2's own way of leaving `self` to keyword arguments
        __context: jinja2.runtime.Context,
        __obj: Any,
        *args: Any,
        **kwargs: Any,
    ) -> Any:  # values of the template's own
        __self.tick()
        if getattr(__obj, "__name__", "") in _WIDTH_METHODS:
            _check_widths(args)
        result = super().call(__context, __obj, *args, **kwargs)
        if isinstance(result, str) and len(result) > TEXT_CHARS_MAX:
            raise _TooMuchError("it makes a text that is too long")
        return result


class _Rewriter(jinja2.visitor.NodeTransformer):
    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802 - jinja2's name
        self.generic_visit(node)
        return _call_environment("join_texts", node.nodes).set_lineno(node.lineno)


def _call_environment(method: str, arguments: Sequence[nodes.Expr]) -> nodes.Call:
    return nodes.Call(nodes.EnvironmentAttribute(method), list(arguments), [], None, None)


def _check_repeat(times: object, what: Sequence[object]) -> None:
    if isinstance(times, int) and (
        times > REPEAT_MAX or times * max(len(what), 1) > TEXT_CHARS_MAX
    ):
        raise _TooMuchError("it repeats something too often")


def _check_widths(arguments: Sequence[object]) -> None:
    if any(isinstance(n, int) and n > REPEAT_MAX for n in arguments):
        raise _TooMuchError("it asks for a text that is too wide")


def _check_format_widths(pattern: str) -> None:
    # A width of more than four digits is no honest template's.
    digits = 0
    for char in pattern:
        digits = digits + 1 if char.isdigit() else 0
        if digits > 4 or char == "*":
            raise _TooMuchError("it asks for a text that is too wide")


def _bounded_width(function: Any) -> Any:  # jinja2's filters have any signature
    @functools.wraps(function)
    def bounded(*arguments: Any, **named: Any) -> Any:
        _check_widths((*arguments, *named.values()))
        for argument in arguments:
            if isinstance(argument, str) and function.__name__ == "do_format":
                _check_format_widths(argument)
        return function(*arguments, **named)

    return bounded


def _to_json(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # Jinja's own filter escapes for HTML, which a model has never seen in training.
    if indent is not None:
        _check_widths((indent,))
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _raise_exception(message: str) -> None:
    raise TemplateBroken(f"the model's chat template refuses this conversation: {message}")


_environment: Final = _Bounded()


@functools.lru_cache(maxsize=_CACHED_TEMPLATES)
def _compiled(text: str) -> jinja2.Template:
    if len(text) > TEMPLATE_CHARS_MAX:
        raise TemplateBroken(f"a chat template has at most {TEMPLATE_CHARS_MAX} characters")
    try:
        return _environment.from_string(text)
    except jinja2.TemplateSyntaxError as exc:
        raise TemplateBroken(f"template error: line {exc.lineno}: {exc.message}") from exc
    except RecursionError:
        raise TemplateBroken("template error: it is nested too deeply") from None


def check_template(text: str) -> None:
    """Raise TemplateBroken if *text* is not a Jinja template."""
    _compiled(text)


def render_jinja(text: str, variables: Mapping[str, Any], clock: WallClock) -> str:
    """Return what the template *text* makes of *variables*. Raises TemplateBroken.

    Besides *variables* a template may use `raise_exception` and `strftime_now`.
    """
    template = _compiled(text)
    _environment.steps_left = STEPS_MAX

    def strftime_now(pattern: str) -> str:
        local: datetime = clock.now().astimezone()
        return local.strftime(pattern[:256])

    pieces: list[str] = []
    n_chars = 0
    try:
        for piece in template.generate(
            **variables, raise_exception=_raise_exception, strftime_now=strftime_now
        ):
            n_chars += len(piece)
            if n_chars > OUTPUT_CHARS_MAX:
                raise _TooMuchError("its output is too long")
            pieces.append(piece)
    except TemplateBroken:
        raise
    except jinja2.TemplateError as exc:
        raise TemplateBroken(f"the model's chat template failed: {exc.message}") from exc
    except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as exc:
        raise TemplateBroken(f"the model's chat template failed: {exc}") from exc
    except (RecursionError, MemoryError):
        raise TemplateBroken("the model's chat template failed: it goes too deep") from None
    return "".join(pieces)
