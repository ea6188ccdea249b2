"""Jinja chat templates, as model makers write them: rendered like Hugging Face's libraries do.

Templates come with models, so they are untrusted: Jinja's immutable sandbox keeps them from the
daemon's objects, and every loop round, call and text operation is counted and bounded, because a
template that never ends would stop the whole daemon. The limits are those of `jinjabudget` and
`jinjachecks`; this module puts them into Jinja, and leaves out of Jinja what chats do not need and
what could not be bounded.
"""

from __future__ import annotations

import contextvars
import functools
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import jinja2
import jinja2.ext
import jinja2.filters
import jinja2.nodes
import jinja2.parser
import jinja2.runtime
import jinja2.sandbox
import jinja2.utils
import jinja2.visitor
from jinja2 import nodes

from ollamad.errors import TemplateBroken
from ollamad.http.prompt.jinjabudget import Budget, broken
from ollamad.http.prompt.jinjachecks import FILTER_CHECKS, check_field, check_method, check_operator
from ollamad.http.prompt.jinjatext import SafeText, escape, escape_again, to_json
from ollamad.wallclock import WallClock

TEMPLATE_CHARS_MAX: Final = 1 << 16
"""So many take up to a second to compile, and the daemon waits; the longest in use have half."""
OUTPUT_CHARS_MAX: Final = 16 << 20
_TIME_PATTERN_CHARS_MAX: Final = 256
_CACHED_TEMPLATES: Final = 64

_NO_FILTERS: Final = (
    "filesizeformat", "pprint", "random", "striptags", "urlize", "wordcount", "wordwrap", "xmlattr",
)  # fmt: skip
_NO_METHODS: Final = frozenset({"encode", "from_bytes", "maketrans", "to_bytes", "translate"})
_ITERATING: Final = frozenset(
    {
        "batch", "groupby", "join", "list", "map", "max", "min", "reject", "rejectattr", "select",
        "selectattr", "slice", "sort", "sum", "unique",
    }
)  # fmt: skip
"""Filters that go through all items of their value."""

_spending: Final[contextvars.ContextVar[Budget]] = contextvars.ContextVar("jinja_budget")
"""The budget of the rendering that is going on."""


class _Generation(jinja2.ext.Extension):
    """`{% generation %}` marks the assistant's text for training; rendering ignores the marks."""

    tags = {"generation"}  # noqa: RUF012 - jinja2's own interface

    def parse(self, parser: jinja2.parser.Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Namespace(jinja2.utils.Namespace):
    """A namespace that does not print what it holds, which may be itself."""

    def __repr__(self) -> str:
        return "<Namespace>"


class _Formatter(jinja2.sandbox.SandboxedFormatter):
    """`str.format` with fields and a whole of bounded length."""

    def __init__(self, environment: jinja2.Environment) -> None:
        super().__init__(environment)
        self._n_chars = 0

    def format_field(self, value: Any, format_spec: str) -> str:
        budget = _spending.get()
        budget.tick()
        check_field(format_spec)
        text: str = super().format_field(value, format_spec)
        self._n_chars += len(text)
        budget.check_length(self._n_chars)
        return text


class _Bounded(jinja2.sandbox.ImmutableSandboxedEnvironment):
    """A sandbox whose every operation is counted."""

    intercepted_binops = frozenset({"+", "-", "*", "/", "//", "**", "%"})

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=["jinja2.ext.loopcontrols", _Generation],
            # Nothing of a template runs while it is compiled: no constant folding.
            optimized=False,
            finalize=_printed,
        )
        del self.globals["lipsum"]
        self.globals["namespace"] = _Namespace
        for name in _NO_FILTERS:
            del self.filters[name]
        self.filters.update(_OWN_FILTERS)
        for name, function in self.filters.items():
            self.filters[name] = _metered(
                function, FILTER_CHECKS.get(name), goes_through=name in _ITERATING
            )
        for name, function in self.tests.items():
            self.tests[name] = _metered(function)

    # For the code that templates are compiled to; `_Rewriter` puts the calls in.

    def tick(self) -> None:
        """Count a loop round, or a test that decides on one."""
        _spending.get().tick()

    def passed(self, value: object) -> object:
        """Return *value*, counting the comparison that it goes into."""
        _spending.get().tick()
        return value

    def made(self, value: object) -> object:
        """Return a new list or part of one, counted."""
        budget = _spending.get()
        budget.tick()
        return budget.made(value)

    def spread(self, items: Iterable[object]) -> list[object]:
        """Return the arguments that `*items` stands for."""
        return _spending.get().spread(items)

    def join_texts(self, *parts: object) -> str:
        """Concatenate, as the `~` operator does."""
        budget = _spending.get()
        budget.tick()
        return budget.joined("", parts)

    def concat(self, pieces: Iterable[str]) -> str:
        """Return the text of a macro or a block."""
        return _spending.get().joined("", pieces)

    # What Jinja asks its environment.

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        template = super()._parse(source, name, filename)
        return _Rewriter().visit(template)  # type: ignore[no-any-return]

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        return attr not in _NO_METHODS and super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        if (
            not isinstance(value, types.BuiltinMethodType)
            or value.__name__ not in {"format", "format_map"}
            or not isinstance(value.__self__, str)
        ):
            return None
        pattern: str = value.__self__

        def format_text(*args: Any, **kwargs: Any) -> str:
            return _Formatter(self).vformat(pattern, args, kwargs)

        def format_map(mapping: Mapping[str, Any]) -> str:
            return _Formatter(self).vformat(pattern, (), mapping)

        return format_text if value.__name__ == "format" else format_map

    def call_binop(
        self, context: jinja2.runtime.Context, operator: str, left: Any, right: Any
    ) -> Any:  # values of the template's own
        budget = _spending.get()
        budget.tick()
        check_operator(budget, operator, left, right)
        result = super().call_binop(context, operator, left, right)
        if operator == "+" and isinstance(left, list) and isinstance(right, list):
            return budget.chained(result, left, right)
        return budget.made(result)

    def call(
        __self,  # noqa: N805 - jinja2's own way of leaving `self` to keyword arguments
        __context: jinja2.runtime.Context,
        __obj: Any,
        *args: Any,
        **kwargs: Any,
    ) -> Any:  # values of the template's own
        receiver = getattr(__obj, "__self__", None)
        if receiver is __self:
            return __obj(*args)  # One of the methods above: no template has a name for them.
        budget = _spending.get()
        budget.tick()
        if isinstance(receiver, str):
            name = __obj.__name__
            if name == "join" and len(args) == 1:
                return budget.joined(receiver, budget.counted(_texts(args[0])))
            check_method(budget, name, receiver, (*args, *kwargs.values()))
        return budget.made(super().call(__context, __obj, *args, **kwargs))


@jinja2.pass_context  # Jinja computes no constants in advance when it would need a context.
def _printed(_: jinja2.runtime.Context, value: object) -> str:
    budget = _spending.get()
    budget.tick()
    return budget.text(value)


def _texts(items: Iterable[object]) -> Iterable[object]:
    for item in items:
        if not isinstance(item, str):
            raise TypeError(f"expected a string to join, found {type(item).__name__}")
        yield item


class _Rewriter(jinja2.visitor.NodeTransformer):
    """Puts the environment's counting into a parsed template."""

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802 - jinja2's names
        self.generic_visit(node)
        node.body.insert(0, nodes.ExprStmt(_asked("tick")))
        if node.test is not None:
            node.test = nodes.Or(_asked("tick"), node.test)
        return node

    def visit_Macro(self, node: nodes.Macro) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.body.insert(0, nodes.ExprStmt(_asked("tick")))
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _asked("join_texts", *node.nodes)

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.expr = _asked("passed", node.expr)
        return node

    def visit_List(self, node: nodes.List) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return node if _is_constant(node.items) else _asked("made", node)

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        is_target = node.ctx != "load"
        return node if is_target or _is_constant(node.items) else _asked("made", node)

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _asked("made", node)

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _asked("made", node) if isinstance(node.arg, nodes.Slice) else node

    def visit_Call(self, node: nodes.Call) -> nodes.Node:  # noqa: N802
        return self._with_arguments(node)

    def visit_Filter(self, node: nodes.Filter) -> nodes.Node:  # noqa: N802
        return self._with_arguments(node)

    def visit_Test(self, node: nodes.Test) -> nodes.Node:  # noqa: N802
        return self._with_arguments(node)

    def _with_arguments(self, node: nodes.Call | nodes.Filter | nodes.Test) -> nodes.Node:
        self.generic_visit(node)
        if node.dyn_args is not None:
            node.dyn_args = _asked("spread", node.dyn_args)
        return node

    def _refused(self, node: nodes.Node) -> nodes.Node:
        raise jinja2.TemplateSyntaxError(
            "a chat template stands alone, without other files and without autoescape", node.lineno
        )

    visit_Include = visit_Import = visit_FromImport = visit_Extends = _refused  # noqa: N815
    visit_ScopedEvalContextModifier = visit_EvalContextModifier = _refused  # noqa: N815


def _asked(method: str, *arguments: nodes.Expr) -> nodes.Call:
    return nodes.Call(nodes.EnvironmentAttribute(method), list(arguments), [], None, None)


def _is_constant(items: Sequence[nodes.Node]) -> bool:
    return all(isinstance(item, nodes.Const) for item in items)


def _metered(
    function: Any, check: Callable[..., None] | None = None, *, goes_through: bool = False
) -> Any:  # filters and tests have any signature
    """Return *function*, counted and checked; each item as well if it *goes_through* them.

    Attribute `jinja_pass_arg` says that an argument of Jinja's comes before the value.
    """
    place = 0 if getattr(function, "jinja_pass_arg", None) is None else 1

    @functools.wraps(function, assigned=())
    def metered(*args: Any, **kwargs: Any) -> Any:
        budget = _spending.get()
        budget.tick()
        if check is not None:
            check(budget, *args[place:], **kwargs)
        # Jinja's lazy filters take none for nothing, and templates rely on it.
        if goes_through and args[place] is not None:
            args = (*args[:place], budget.counted(iter(args[place])), *args[place + 1 :])
        return budget.made(function(*args, **kwargs))

    return metered


def _safe(value: object) -> SafeText:
    return SafeText(_spending.get().text(value))


@jinja2.pass_environment
def _join(
    environment: jinja2.Environment,
    value: Iterable[Any],
    d: object = "",
    attribute: str | int | None = None,
) -> str:
    if attribute is not None:
        value = map(jinja2.filters.make_attrgetter(environment, attribute), value)
    budget = _spending.get()
    return budget.joined(budget.text(d), value)


_OWN_FILTERS: Final[Mapping[str, Any]] = {
    "e": escape,
    "escape": escape,
    "forceescape": escape_again,
    "join": _join,
    "safe": _safe,
    "tojson": to_json,
}

_environment: Final = _Bounded()


@functools.lru_cache(maxsize=_CACHED_TEMPLATES)
def _compiled(text: str) -> jinja2.Template:
    if len(text) > TEMPLATE_CHARS_MAX:
        raise TemplateBroken(f"a chat template has at most {TEMPLATE_CHARS_MAX} characters")
    try:
        return _environment.from_string(text)
    except jinja2.TemplateSyntaxError as exc:
        raise TemplateBroken(f"template error: line {exc.lineno}: {exc.message}") from exc
    except (RecursionError, MemoryError):
        raise TemplateBroken("template error: it is nested too deeply") from None
    except (SyntaxError, ValueError, ArithmeticError) as exc:
        # Python compiles what Jinja writes, and has limits of its own.
        raise TemplateBroken(f"template error: {exc}") from exc


def check_template(text: str) -> None:
    """Raise TemplateBroken if *text* is not a Jinja template."""
    _compiled(text)


def render_jinja(
    text: str, variables: Mapping[str, Any], clock: WallClock, budget: Budget | None = None
) -> str:
    """Return what the template *text* makes of *variables*. Raises TemplateBroken.

    Besides *variables* a template may use `raise_exception` and `strftime_now`. Renderings that
    share a *budget* cost no more together than one may.
    """
    template = _compiled(text)

    def strftime_now(pattern: str) -> str:
        local: datetime = clock.now().astimezone()
        return local.strftime(pattern[:_TIME_PATTERN_CHARS_MAX])

    own = {"raise_exception": _raise_exception, "strftime_now": strftime_now}
    token = _spending.set(budget or Budget())
    pieces: list[str] = []
    n_chars = 0
    try:
        for piece in template.generate({**variables, **own}):
            n_chars += len(piece)
            if n_chars > OUTPUT_CHARS_MAX:
                raise broken("its output is too long")
            pieces.append(piece)
    except TemplateBroken:
        raise
    except (RecursionError, MemoryError):
        raise broken("it goes too deep") from None
    except Exception as exc:
        # A template is a stranger's program: it can make Python raise nearly anything.
        raise broken(exc) from exc
    finally:
        _spending.reset(token)
    return "".join(pieces)


def _raise_exception(message: object) -> None:
    raise TemplateBroken(
        f"the model's chat template refuses this conversation: {str(message)[:500]}"
    )
