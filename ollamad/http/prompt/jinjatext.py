"""Texts as Jinja's filters make them: marked as safe for HTML, escaped, or JSON. Knows no Jinja.

Chat templates want no HTML, but some say `safe` all the same, and what is added to such a text is
escaped. So it is in Hugging Face's libraries, and so models saw it there.
"""

from __future__ import annotations

import html
import json


class SafeText(str):
    """A text that is safe for HTML and stays so: what is added to it is escaped.

    Its methods are a text's and return plain texts; Jinja's own class has many more, which a
    sandbox would have to know.
    """

    __slots__ = ()

    def __add__(self, other: str) -> SafeText:
        return SafeText(str.__add__(self, escape(other)))

    def __radd__(self, other: str) -> SafeText:
        return SafeText(str.__add__(escape(other), self))


def escape(value: object) -> SafeText:
    """Return the text of *value* escaped for HTML, unless it is safe already."""
    return value if isinstance(value, SafeText) else escape_again(value)


def escape_again(value: object) -> SafeText:
    """Return the text of *value* escaped for HTML, whatever it is."""
    return SafeText(html.escape(str(value)).replace("&quot;", "&#34;").replace("&#x27;", "&#39;"))


def to_json(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Return *value* as JSON. Jinja's own filter escapes for HTML, which no model has seen."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )
