"""The events of a streamed response: their order, their numbers, their bytes. Pure.

`response.created` and `response.in_progress` come first, then each item from its `added` to its
`done`, then how it ended: `completed`, `incomplete`, or `failed` and an `error`.
"""

from __future__ import annotations

from typing import Final

import msgspec

from ollamad.http.openai.errors import ErrorDetail
from ollamad.http.openai.responseswire import (
    ArgumentsDeltaEvent,
    ArgumentsDoneEvent,
    ContentPartEvent,
    ErrorEvent,
    Event,
    FailedDetails,
    FunctionCallItem,
    Item,
    ItemEvent,
    MessageItem,
    OutputText,
    ReasoningItem,
    ResponseEvent,
    ResponseObject,
    SummaryDeltaEvent,
    SummaryDoneEvent,
    SummaryPartEvent,
    SummaryText,
    TextDeltaEvent,
    TextDoneEvent,
)
from ollamad.http.openai.wire import TokenLogprobs
from ollamad.http.sse import event

_ENCODER: Final = msgspec.json.Encoder()
_TEXT_DELTA: Final = "response.output_text.delta"
_EMPTY: Final = OutputText(text="")


class ResponseEvents:
    """An `OutputListener` that turns what it hears into bytes, which `take` returns."""

    def __init__(self) -> None:
        self._number = 0
        self._written: list[bytes] = []
        self._delta_head = b""
        self._delta_middle = b""

    def take(self) -> bytes:
        """Return what is new."""
        data = b"".join(self._written)
        self._written.clear()
        return data

    def began(self, response: ResponseObject) -> None:
        """Tell that there is a response: before anything else."""
        for kind in ("response.created", "response.in_progress"):
            self._put(ResponseEvent(type=kind, sequence_number=self._number, response=response))

    def ended(self, response: ResponseObject) -> None:
        """Tell how it ended. Nothing comes after it."""
        kind = f"response.{response.status}"
        self._put(ResponseEvent(type=kind, sequence_number=self._number, response=response))

    def failed(self, response: ResponseObject, error: ErrorDetail) -> None:
        """Tell that it has failed: as a response, and as an error that clients raise."""
        code = error.code or "server_error"
        response.error = FailedDetails(code, error.message)
        self.ended(response)
        self._put(
            ErrorEvent(
                type="error",
                sequence_number=self._number,
                code=code,
                message=error.message,
                param=error.param,
                error=error,
            )
        )

    # What an Output says

    def opened(self, index: int, item: Item) -> None:
        """See OutputListener."""
        self._item("response.output_item.added", index, item)
        match item:
            case ReasoningItem():
                self._summary_part("response.reasoning_summary_part.added", index, item.id, "")
            case MessageItem():
                self._content_part("response.content_part.added", index, item.id, _EMPTY)
                self._prepare_deltas(index, item.id)
            case FunctionCallItem():
                pass

    def thought(self, index: int, item_id: str, delta: str) -> None:
        """See OutputListener."""
        self._put(
            SummaryDeltaEvent(
                type="response.reasoning_summary_text.delta",
                sequence_number=self._number,
                item_id=item_id,
                output_index=index,
                summary_index=0,
                delta=delta,
            )
        )

    def said(self, index: int, item_id: str, delta: str, logprobs: list[TokenLogprobs]) -> None:
        """See OutputListener."""
        if not logprobs:
            # Nearly all events are of this kind: encoding an object for each would cost more than
            # everything else about it.
            self._written += (
                self._delta_head,
                b"%d" % self._number,
                self._delta_middle,
                _ENCODER.encode(delta),
                b',"logprobs":[]}\n\n',
            )
            self._number += 1
            return
        self._put(
            TextDeltaEvent(
                type=_TEXT_DELTA,
                sequence_number=self._number,
                item_id=item_id,
                output_index=index,
                content_index=0,
                delta=delta,
                logprobs=logprobs,
            )
        )

    def closed(self, index: int, item: Item) -> None:
        """See OutputListener."""
        match item:
            case ReasoningItem():
                self._thinking_done(index, item.id, item.summary[0].text)
            case MessageItem():
                self._text_done(index, item.id, item.content[0])
            case FunctionCallItem():
                self._arguments_done(index, item)
        self._item("response.output_item.done", index, item)

    def _thinking_done(self, index: int, item_id: str, text: str) -> None:
        self._put(
            SummaryDoneEvent(
                type="response.reasoning_summary_text.done",
                sequence_number=self._number,
                item_id=item_id,
                output_index=index,
                summary_index=0,
                text=text,
            )
        )
        self._summary_part("response.reasoning_summary_part.done", index, item_id, text)

    def _text_done(self, index: int, item_id: str, part: OutputText) -> None:
        self._put(
            TextDoneEvent(
                type="response.output_text.done",
                sequence_number=self._number,
                item_id=item_id,
                output_index=index,
                content_index=0,
                text=part.text,
                logprobs=part.logprobs,
            )
        )
        self._content_part("response.content_part.done", index, item_id, part)

    def _arguments_done(self, index: int, item: FunctionCallItem) -> None:
        self._put(
            ArgumentsDeltaEvent(
                type="response.function_call_arguments.delta",
                sequence_number=self._number,
                item_id=item.id,
                output_index=index,
                delta=item.arguments,
            )
        )
        self._put(
            ArgumentsDoneEvent(
                type="response.function_call_arguments.done",
                sequence_number=self._number,
                item_id=item.id,
                output_index=index,
                name=item.name,
                arguments=item.arguments,
            )
        )

    def _item(self, kind: str, index: int, item: Item) -> None:
        self._put(ItemEvent(type=kind, sequence_number=self._number, output_index=index, item=item))

    def _summary_part(self, kind: str, index: int, item_id: str, text: str) -> None:
        self._put(
            SummaryPartEvent(
                type=kind,
                sequence_number=self._number,
                item_id=item_id,
                output_index=index,
                summary_index=0,
                part=SummaryText(text),
            )
        )

    def _content_part(self, kind: str, index: int, item_id: str, part: OutputText) -> None:
        self._put(
            ContentPartEvent(
                type=kind,
                sequence_number=self._number,
                item_id=item_id,
                output_index=index,
                content_index=0,
                part=part,
            )
        )

    def _prepare_deltas(self, index: int, item_id: str) -> None:
        """Keep what the deltas of a message have in common, as `TextDeltaEvent` would have it."""
        self._delta_head = (
            f'event: {_TEXT_DELTA}\ndata: {{"type":"{_TEXT_DELTA}","sequence_number":'.encode()
        )
        self._delta_middle = (
            f',"item_id":"{item_id}","output_index":{index},"content_index":0,"delta":'.encode()
        )

    def _put(self, one: Event) -> None:
        self._written.append(event(_ENCODER.encode(one), one.type))
        self._number += 1
