"""The Quart application inside the site, for tests that ask which routes there are."""

from __future__ import annotations

from typing import Any

import pytest
from quart_trio import QuartTrio

from ollamad.http import routes


def noted_apps(monkeypatch: pytest.MonkeyPatch) -> list[QuartTrio]:
    """Return a list that gets every application that is built from now on."""
    made: list[QuartTrio] = []

    class Noted(QuartTrio):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            made.append(self)

    monkeypatch.setattr(routes, "QuartTrio", Noted)
    return made


def routes_of(app: QuartTrio) -> set[tuple[str, str]]:
    """Return every method and path, but for the methods that are there by themselves."""
    return {
        (method, rule.rule)
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"OPTIONS", "HEAD"}
    }
