"""What a model says as items: thinking, messages, calls, one after another. Pure."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import msgspec

from ollamad.http.answer.parts import Call, Parts
from ollamad.http.ids import new_id
from ollamad.http.openai.logprobs import token_logprobs
from ollamad.http.openai.responseswire import (
    FunctionCallItem,
    Item,
    MessageItem,
    OutputText,
    ReasoningItem,
    SummaryText,
)
from ollamad.http.openai.wire import TokenLogprobs
from ollamad.runners.protocol import StepLogprob

IN_PROGRESS: Final = "in_progress"
COMPLETED: Final = "completed"
INCOMPLETE: Final = "incomplete"


class OutputListener(Protocol):
    """Whoever tells how an answer grows. *index* is the item's place among all of them."""

    def opened(self, index: int, item: Item) -> None:
        """An item begins, with nothing in it."""
        ...

    def thought(self, index: int, item_id: str, delta: str) -> None:
        """There is more thinking in the open item."""
        ...

    def said(self, index: int, item_id: str, delta: str, logprobs: list[TokenLogprobs]) -> None:
        """There is more text in the open item."""
        ...

    def closed(self, index: int, item: Item) -> None:
        """The open item is complete."""
        ...


class Nobody:
    """A listener to an answer that is told as a whole."""

    def opened(self, index: int, item: Item) -> None:
        """See OutputListener."""

    def thought(self, index: int, item_id: str, delta: str) -> None:
        """See OutputListener."""

    def said(self, index: int, item_id: str, delta: str, logprobs: list[TokenLogprobs]) -> None:
        """See OutputListener."""

    def closed(self, index: int, item: Item) -> None:
        """See OutputListener."""


class _Open(enum.Enum):
    """What kind of item is open. A call never is: it comes whole."""

    NOTHING = "nothing"
    REASONING = "reasoning"
    MESSAGE = "message"


SplitName = Callable[[str], tuple[str, str]]
"""Takes a tool's name apart: the group it is in, empty for none, and its name there."""


class Output:
    """The items of one answer. At most one is open; what is of another kind closes it."""

    def __init__(
        self, listener: OutputListener, split_name: SplitName, *, shows_encrypted: bool = False
    ) -> None:
        self.items: list[Item] = []
        """Those that are closed."""
        self._listener = listener
        self._split_name = split_name
        self._shows_encrypted = shows_encrypted
        self._open = _Open.NOTHING
        self._id = ""
        self._texts: list[str] = []
        self._logprobs: list[TokenLogprobs] = []
        self._early: list[TokenLogprobs] = []
        """Of tokens whose text is still held back."""

    def feed(self, parts: Parts, logprobs: Sequence[StepLogprob] = ()) -> None:
        """Take what is new. *logprobs* are those of its tokens."""
        if logprobs:
            self._early += token_logprobs(logprobs)
        if parts.thinking:
            self._enter(_Open.REASONING)
            self._texts.append(parts.thinking)
            self._listener.thought(len(self.items), self._id, parts.thinking)
        if parts.text:
            self._enter(_Open.MESSAGE)
            new, self._early = self._early, []
            self._texts.append(parts.text)
            self._logprobs += new
            self._listener.said(len(self.items), self._id, parts.text, new)
        elif parts.thinking or parts.calls:
            # Log-probabilities are those of messages only.
            self._early = []
        for call in parts.calls:
            self._call(call)

    def close(self, status: str) -> None:
        """End the open item, if one is."""
        if self._open is _Open.NOTHING:
            return
        text, self._texts = "".join(self._texts), []
        item: Item
        if self._open is _Open.REASONING:
            item = ReasoningItem(
                id=self._id,
                summary=[SummaryText(text)],
                encrypted_content=text if self._shows_encrypted else None,
                status=status,
            )
        else:
            part = OutputText(text=text, logprobs=self._logprobs)
            item = MessageItem(id=self._id, status=status, content=[part])
            self._logprobs = []
        self._open = _Open.NOTHING
        self._listener.closed(len(self.items), item)
        self.items.append(item)

    def _enter(self, kind: _Open) -> None:
        if self._open is kind:
            return
        self.close(COMPLETED)
        self._open = kind
        item: Item
        if kind is _Open.REASONING:
            item = ReasoningItem(id=new_id("rs_"), status=IN_PROGRESS)
        else:
            item = MessageItem(id=new_id("msg_"), status=IN_PROGRESS)
        self._id = item.id
        self._listener.opened(len(self.items), item)

    def _call(self, call: Call) -> None:
        self.close(COMPLETED)
        namespace, name = self._split_name(call.name)
        begun = FunctionCallItem(
            id=new_id("fc_"),
            status=IN_PROGRESS,
            call_id=call.id,
            name=name,
            namespace=namespace or msgspec.UNSET,
            arguments="",
        )
        whole = msgspec.structs.replace(
            begun, status=COMPLETED, arguments=msgspec.json.encode(call.arguments).decode()
        )
        self._listener.opened(len(self.items), begun)
        self._listener.closed(len(self.items), whole)
        self.items.append(whole)
