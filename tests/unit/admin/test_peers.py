from __future__ import annotations

import os
import threading

import pytest
import trio
import trio.testing

from ollamad.admin import peers
from ollamad.admin.peers import Access, Peer, PeerReader, Rules, groups_by_name, read_rules

LOOK, CHANGE = 2001, 2002
RULES = Rules(
    own_uid=1000, look_group="ollama", look_gid=LOOK, change_group="ollama-admin", change_gid=CHANGE
)


@pytest.mark.parametrize(
    ("uid", "groups", "access"),
    [
        (0, set(), Access.CHANGE),
        (1000, set(), Access.CHANGE),
        (1001, {CHANGE}, Access.CHANGE),
        (1001, {CHANGE, LOOK}, Access.CHANGE),
        (1001, {LOOK}, Access.LOOK),
        (1001, {5}, Access.NONE),
        (1001, set(), Access.NONE),
    ],
)
def test_access_follows_from_user_and_groups(uid: int, groups: set[int], access: Access) -> None:
    assert RULES.access_of(Peer(pid=1, uid=uid, groups=frozenset(groups))) is access


def test_groups_that_do_not_exist_let_nobody_in() -> None:
    rules = read_rules("no-such-group-1", "no-such-group-2")

    assert (rules.look_gid, rules.change_gid) == (None, None)
    assert rules.access_of(Peer(pid=1, uid=99_999, groups=frozenset({1}))) is Access.NONE
    assert rules.own_uid == os.geteuid()


def test_groups_are_found_by_name() -> None:
    assert read_rules("root", "daemon").look_gid == 0


async def test_the_kernel_says_who_a_peer_is() -> None:
    ours, theirs = trio.socket.socketpair()
    with ours, theirs:
        peer = await PeerReader().read(ours)

    assert (peer.pid, peer.uid) == (os.getpid(), os.geteuid())
    assert peer.groups == {*os.getgroups(), os.getegid()}


async def test_where_the_kernel_does_not_tell_groups_the_database_is_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(peers, "_kernel_groups", lambda _: None)
    ours, theirs = trio.socket.socketpair()
    with ours, theirs:
        peer = await PeerReader(lambda _uid, _gid: frozenset({7})).read(ours)

    assert peer.groups == {7, os.getegid()}


async def test_a_database_that_hangs_holds_up_nobody_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(peers, "_kernel_groups", lambda _: None)
    monkeypatch.setattr(peers, "LOOKUP_TIMEOUT_S", 0.05)
    answers = threading.Event()

    def hang(_uid: int, _gid: int) -> frozenset[int]:
        answers.wait(60)
        return frozenset({7})

    ours, theirs = trio.socket.socketpair()
    with ours, theirs:
        peer = await PeerReader(hang).read(ours)
    answers.set()

    assert peer.groups == {os.getegid()}


def test_the_database_knows_the_groups_of_root_and_of_nobody_else() -> None:
    assert 0 in groups_by_name(0, 0)
    assert groups_by_name(123_456_789, 5) == {5}
