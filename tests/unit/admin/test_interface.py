"""The interface's file is the source of its types: the code is held to it, name by name.

It is read by the parser of the `varlink` package, which nobody here wrote.
"""

from __future__ import annotations

import enum
import types
import typing
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest
import varlink.scanner
from varlink import Interface

from ollamad import adminwire as wire
from ollamad import varlink as ours
from ollamad.admin.connection import DESCRIPTION, SERVICE_DESCRIPTION
from ollamad.admin.looking import kind_of
from ollamad.gpu.devices import DeviceHealth, DeviceKind
from ollamad.runners.protocol import EngineGauges
from ollamad.runners.states import RunnerState
from ollamad.supervisor.commands import NoteKind
from ollamad.supervisor.daemonstate import DaemonState

INTERFACE = Interface(DESCRIPTION)
KINDS = {"type": varlink.scanner._Alias, "method": varlink.scanner._Method}
METHODS = {n: m for n, m in INTERFACE.members.items() if isinstance(m, varlink.scanner._Method)}
ALIASES = {n: m for n, m in INTERFACE.members.items() if isinstance(m, varlink.scanner._Alias)}
ERRORS = {n: m for n, m in INTERFACE.members.items() if isinstance(m, varlink.scanner._Error)}
PLAIN = {str: str, int: int, float: float, bool: bool}


def same(written: Any, coded: Any) -> bool:
    """Tell whether a type of the interface is that of the code. Any: types are values here."""
    origin, arguments = typing.get_origin(coded), typing.get_args(coded)
    match written:
        case varlink.scanner._Maybe():
            inner = [each for each in arguments if each is not types.NoneType]
            return types.NoneType in arguments and same(written.element_type, inner[0])
        case varlink.scanner._Array():
            return origin is tuple and same(written.element_type, arguments[0])
        case varlink.scanner._Dict():
            return origin is Mapping and same(written.element_type, arguments[1])
        case varlink.scanner._CustomType():
            return bool(coded.__name__ == written.name)
        case varlink.scanner._Object():
            return origin is dict
        case _:
            return PLAIN.get(type(written)) is coded


def assert_same_fields(written: varlink.scanner._Struct, coded: type[Any]) -> None:
    hints = typing.get_type_hints(coded)
    assert list(written.fields) == list(hints)
    for name, field in written.fields.items():
        assert same(field, hints[name]), f"{coded.__name__}.{name}"


def test_it_is_the_interface_by_that_name() -> None:
    assert INTERFACE.name == wire.INTERFACE
    assert Interface(SERVICE_DESCRIPTION).name == ours.SERVICE


def test_every_method_is_there_and_no_other() -> None:
    assert list(METHODS) == list(wire.METHODS)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_takes_and_returns_what_is_written(name: str) -> None:
    assert_same_fields(METHODS[name].in_type, wire.METHODS[name].takes)
    assert_same_fields(METHODS[name].out_type, wire.METHODS[name].returns)


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_has_the_parameters_that_are_written(name: str) -> None:
    assert_same_fields(ERRORS[name].type, wire.ERRORS[f"{wire.INTERFACE}.{name}"])


def test_every_error_is_written() -> None:
    assert {f"{wire.INTERFACE}.{name}" for name in ERRORS} == set(wire.ERRORS)
    assert set(wire.ERRORS.values()) == set(typing.get_args(wire.AdminError))


@pytest.mark.parametrize("name", ALIASES)
def test_a_type_is_as_it_is_written(name: str) -> None:
    coded, written = getattr(wire, name), ALIASES[name].type
    if isinstance(written, varlink.scanner._Enum):
        assert list(written.fields) == [member.value for member in coded]
    else:
        assert_same_fields(written, coded)


def test_what_can_be_unknown_to_a_caller_is_refused_and_not_ignored() -> None:
    for spec in wire.METHODS.values():
        assert msgspec.structs.fields(spec.takes) == () or spec.takes is not wire.Nothing
        assert spec.takes.__struct_config__.forbid_unknown_fields


@pytest.mark.parametrize(
    ("told", "decided"),
    [
        (wire.DaemonState, DaemonState),
        (wire.RunnerState, RunnerState),
        (wire.DeviceHealth, DeviceHealth),
        (wire.DeviceKind, DeviceKind),
    ],
)
def test_every_state_can_be_told(told: type[enum.Enum], decided: type[enum.Enum]) -> None:
    assert [each.value for each in told] == [each.value for each in decided]


def test_every_kind_of_event_is_written() -> None:
    doc = DESCRIPTION.partition("# Something that happened.")[2].partition("type Event")[0]

    for kind in NoteKind:
        assert f"`{kind_of(kind)}`" in doc


def test_gauges_that_are_told_are_gauges_that_there_are() -> None:
    assert set(wire.Engine.__struct_fields__) <= set(EngineGauges.__struct_fields__)
