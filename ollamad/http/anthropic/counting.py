"""POST /v1/messages/count_tokens: how long a conversation is for its model, exactly.

The conversation is rendered as for an answer and counted by the model's own tokenizer, which its
runner has: so the model is loaded, if it is not, and that costs what loading costs. An estimate
would be cheap; but clients that count want to know whether it fits.
"""

from __future__ import annotations

from ollamad.http.anthropic.reading import asked_of, check_early
from ollamad.http.anthropic.wire import MessagesRequest, TokenCount
from ollamad.http.chatting import render
from ollamad.http.doors import Doors, read_keep_alive
from ollamad.http.prompt.prompt import Prompt
from ollamad.supervisor.leases import Lease


async def count_tokens(doors: Doors, body: MessagesRequest) -> TokenCount:
    """Return how many tokens the prompt has, also when it does not fit. Raises what is wrong."""
    check_early(body)
    keep_alive = read_keep_alive(body.keep_alive)
    model = await doors.find(body.model)
    asked, load = asked_of(body, model)
    prompt = render(doors, model, asked)
    lease = await doors.lease(model, load, keep_alive)
    return TokenCount(input_tokens=await n_tokens_of(lease, prompt))


async def n_tokens_of(lease: Lease, prompt: Prompt) -> int:
    """Return how many tokens *prompt* has. Raises the runner's error."""
    return len(await lease.tokenize(prompt.text, add_special=prompt.add_special))
