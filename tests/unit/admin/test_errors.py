from __future__ import annotations

from collections.abc import Iterator

import pytest

from ollamad import adminwire as wire
from ollamad.admin.errors import FAMILIES, refused
from ollamad.errors import CannotServeNow, CoolingDown, ModelNotFound, OllamadError


def leaves_of(kind: type[OllamadError]) -> Iterator[type[OllamadError]]:
    below = kind.__subclasses__()
    if not below:
        yield kind
    for each in below:
        yield from leaves_of(each)


@pytest.mark.parametrize("kind", list(leaves_of(OllamadError)))
def test_every_error_has_a_name_on_the_wire(kind: type[OllamadError]) -> None:
    error = refused(kind("why"), "m").error

    assert error.message == "why"
    assert f"{wire.INTERFACE}.{type(error).__name__}" in wire.ERRORS


def test_every_family_is_in_the_table() -> None:
    assert set(OllamadError.__subclasses__()) == set(FAMILIES)


def test_what_a_caller_can_act_on_is_told() -> None:
    assert issubclass(CoolingDown, CannotServeNow)
    assert refused(CoolingDown("hot", retry_after_s=9.0), "m").error == wire.CannotServeNow(
        message="hot", retry_after_s=9.0
    )
    assert refused(ModelNotFound("no m"), "m").error == wire.ModelNotFound(
        model="m", message="no m"
    )
