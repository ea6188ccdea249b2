from __future__ import annotations

import threading

import pytest

from ollamad.gpu.sessionlock import SessionBusy, SessionLock

AT_ONCE_S = 0.0
FOR_EVER_S = 30.0


def test_many_use_a_session_at_the_same_time() -> None:
    lock = SessionLock()

    with lock.using(AT_ONCE_S), lock.using(AT_ONCE_S):
        pass


def test_a_session_in_use_is_not_renewed() -> None:
    lock = SessionLock()

    with lock.using(AT_ONCE_S):
        with pytest.raises(SessionBusy, match="has not returned"), lock.renewing(AT_ONCE_S):
            raise AssertionError

    with lock.renewing(AT_ONCE_S):
        pass


def test_a_session_that_is_renewed_is_used_by_nobody() -> None:
    lock = SessionLock()

    with lock.renewing(AT_ONCE_S):
        with pytest.raises(SessionBusy, match="takes too long"), lock.using(AT_ONCE_S):
            raise AssertionError
        with pytest.raises(SessionBusy), lock.renewing(AT_ONCE_S):
            raise AssertionError


def test_renewing_waits_until_the_last_one_is_out() -> None:
    lock = SessionLock()
    order: list[str] = []

    def renew() -> None:
        with lock.renewing(FOR_EVER_S):
            order.append("renewed")

    renewer = threading.Thread(target=renew)
    with lock.using(AT_ONCE_S):
        renewer.start()
        order.append("used")
    renewer.join(FOR_EVER_S)

    assert order == ["used", "renewed"]


def test_a_failure_inside_gives_the_lock_back() -> None:
    lock = SessionLock()

    with pytest.raises(ValueError, match="inside"), lock.renewing(AT_ONCE_S):
        raise ValueError("inside")
    with pytest.raises(ValueError, match="inside"), lock.using(AT_ONCE_S):
        raise ValueError("inside")

    with lock.renewing(AT_ONCE_S):
        pass
