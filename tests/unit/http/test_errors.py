"""Every error has a status, and clients are told in Ollama's shape."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from ollamad import errors
from ollamad.errors import CannotServeNow, OllamadError, QueueFull
from ollamad.http.errors import STATUS, body_of, headers_of, only_error, status_of


def leaves_of(kind: type[OllamadError]) -> Iterator[type[OllamadError]]:
    below = [sub for sub in kind.__subclasses__() if sub.__module__ == errors.__name__]
    if not below:
        yield kind
    for sub in below:
        yield from leaves_of(sub)


def test_every_leaf_of_the_error_tree_has_a_row_and_nothing_else_has() -> None:
    assert set(leaves_of(OllamadError)) == set(STATUS)


@pytest.mark.parametrize(
    ("fault", "allowed"),
    [
        (errors.BadRequest, {400, 413}),
        (errors.NotFound, {404}),
        (errors.NotOffered, {401, 403}),
        (errors.CannotServeNow, {503}),
        (errors.CannotServe, {500}),
    ],
)
def test_a_status_says_whose_fault_it_is(fault: type[OllamadError], allowed: set[int]) -> None:
    assert {STATUS[leaf] for leaf in leaves_of(fault)} == allowed


def test_a_class_below_a_row_has_that_row_s_status() -> None:
    class MoreThanFull(QueueFull):
        pass

    assert status_of(MoreThanFull("full")) == 503


@pytest.mark.parametrize(
    ("seconds", "header"), [(0.0, "1"), (0.2, "1"), (1.0, "1"), (1.01, "2"), (29.5, "30")]
)
def test_retry_after_is_rounded_up_to_whole_seconds_and_never_zero(
    seconds: float, header: str
) -> None:
    error: CannotServeNow = QueueFull("full", retry_after_s=seconds)

    assert headers_of(error) == {"Retry-After": header}


def test_errors_that_last_suggest_no_time_to_retry() -> None:
    assert headers_of(errors.ModelNotFound("gone")) == {}
    assert headers_of(errors.LoadFailed("broken")) == {}


def test_an_error_body_has_ollama_s_one_key() -> None:
    assert json.loads(body_of('model "ü" not found')) == {"error": 'model "ü" not found'}


def test_an_error_that_shows_what_it_was_given_is_escaped_like_an_answer() -> None:
    assert body_of("<b>") == rb'{"error":"\u003cb\u003e"}'


def test_one_error_in_groups_is_found() -> None:
    error = QueueFull("full")
    nested = ExceptionGroup("outer", [ExceptionGroup("inner", [error])])

    assert only_error(nested) is error
    assert only_error(error) is error


def test_a_group_of_two_errors_stays_a_group() -> None:
    group = ExceptionGroup("both", [QueueFull("a"), ValueError("b")])

    assert only_error(group) is group
    assert only_error(ExceptionGroup("outer", [group])) is group
