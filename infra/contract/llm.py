"""Port to a language model: one exchange, from the messages of a conversation to one whole reply.

ModelError
├── ModelBusy         every model refuses for now; `after_s` says when to ask again
├── ModelUnavailable  no model gave a whole reply, after all tries
├── ModelRejected     the endpoint rejects the request or the credentials; another try would not help
│   └── ContextTooLong  the messages do not fit into the context of the model
├── ModelRefused      the model, or a filter of its provider, refuses to answer
└── ModelCut          the reply was cut at the limit of output tokens, or exceeds a bound

No error and no message of this module contains the credentials of the endpoint.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, Protocol, TypeAlias

import msgspec

from infra.contract.errors import ContractError

Role: TypeAlias = Literal["system", "user", "assistant", "tool"]
Finish: TypeAlias = Literal["stop", "calls", "length"]

MAX_TEXT_BYTES = 4 * 1024 * 1024
"""Bytes of one reply: its text, reasoning and calls together."""
MAX_CALLS = 128
"""Calls of one reply."""
BYTES_PER_TOKEN = 3
"""Bytes of UTF-8 that an estimate takes for one token. Text has about four, so that an estimate is rather too high."""


class Price(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Price of a model per million tokens. `cached`: price of input tokens that the provider had cached; by default
    the price of other input."""

    currency: Literal["CHF", "USD"]
    input: Annotated[float, msgspec.Meta(ge=0, le=1_000_000)]
    output: Annotated[float, msgspec.Meta(ge=0, le=1_000_000)]
    cached: Annotated[float, msgspec.Meta(ge=0, le=1_000_000)] | None = None


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens of one or several exchanges.

    `cached` is a part of `input`, `reasoning` a part of `output`. `estimated`: the endpoint did not tell all of them.
    `cost_micros`: cost in millionths of the currency, rounded up; None if the price of a model is unknown.
    """

    input: int = 0
    output: int = 0
    cached: int = 0
    reasoning: int = 0
    estimated: bool = False
    cost_micros: int | None = 0

    def __add__(self, other: "Usage") -> "Usage":
        known = self.cost_micros is not None and other.cost_micros is not None
        return Usage(
            input=self.input + other.input,
            output=self.output + other.output,
            cached=self.cached + other.cached,
            reasoning=self.reasoning + other.reasoning,
            estimated=self.estimated or other.estimated,
            cost_micros=(self.cost_micros or 0) + (other.cost_micros or 0) if known else None,
        )


class ModelChoice(msgspec.Struct, frozen=True, kw_only=True):
    """Model by the name that its endpoint knows, and its price. Without a price, costs are unknown."""

    name: str
    price: Price | None = None

    def cost_micros(self, *, input_tokens: int, output_tokens: int, cached_tokens: int = 0) -> int | None:
        """Return the cost of tokens in millionths of the currency, rounded up; None without a price."""
        if self.price is None:
            return None
        cached_price = self.price.input if self.price.cached is None else self.price.cached
        # A price per million tokens is the price of one token in millionths.
        cost = (input_tokens - cached_tokens) * self.price.input + cached_tokens * cached_price
        cost += output_tokens * self.price.output
        return -int(-round(cost, 6) // 1)


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """Call of a tool. `arguments` is JSON text as the model wrote it, which may be invalid; `id` is unique within its
    reply."""

    id: str
    name: str
    arguments: str


class ToolSpec(msgspec.Struct, frozen=True, kw_only=True):
    """Tool that a model may call. `parameters` is the JSON Schema of its arguments, an object."""

    name: str
    description: str
    parameters: Mapping[str, Any]


class ChatMessage(msgspec.Struct, frozen=True, kw_only=True):
    """Message of a conversation.

    `calls` belong to the role `assistant`, `call_id` (the id of the call that is answered) to the role `tool`.
    `opaque` is `Reply.opaque` of the reply that the message repeats.
    """

    role: Role
    text: str = ""
    calls: Sequence[Call] = ()
    call_id: str = ""
    opaque: Mapping[str, Any] = {}


class ModelRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One request. `models`: the model to ask, and those to ask after it has failed, in order; at least one.

    `purpose` is repeated in the reply. `must_call`: the reply should be a call; not every model obeys. `stream`: read
    the reply as it is generated.
    """

    models: Sequence[ModelChoice]
    messages: Sequence[ChatMessage]
    tools: Sequence[ToolSpec] = ()
    purpose: str = "turn"
    max_output_tokens: int = 4096
    must_call: bool = False
    stream: bool = True


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """Whole reply of a model.

    `model`: the name from the request; `served`: the name that the endpoint reports. `wasted`: tokens of tries that
    failed, as far as they are known. `opaque`: model name → fields, such as signed reasoning, that only this model
    understands. `tries`: number of HTTP requests. `ms`: duration, with all tries and pauses.
    """

    purpose: str
    text: str
    calls: Sequence[Call]
    finish: Finish
    model: str
    served: str
    usage: Usage
    wasted: Usage = Usage()
    opaque: Mapping[str, Any] = {}
    tries: int = 1
    ms: int = 0


class Delta(msgspec.Struct, frozen=True, tag=True):
    """Part of a reply under way, as the endpoint sent it; joining small parts is left to the receiver."""

    kind: Literal["text", "reasoning"]
    text: str


class RetryNotice(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Failed try: its deltas are void. After `after_s` seconds `next_model` is asked."""

    model: str
    reason: str
    next_model: str
    after_s: float


OnProgress: TypeAlias = Callable[[Delta | RetryNotice], Awaitable[None]]
"""Callback for the progress of an exchange. It is awaited, so that a slow receiver slows the reading down."""


class ModelError(ContractError):
    """Base of the errors of an exchange. `usage`: tokens of all its tries, as far as they are known."""

    usage: Usage = Usage()


class ModelBusy(ModelError):
    """Every model refuses for now. Asking again makes sense after `after_s` seconds."""

    def __init__(self, message: str, after_s: float) -> None:
        super().__init__(message)
        self.after_s = after_s


class ModelUnavailable(ModelError):
    """No model gave a whole reply, after all tries; the message names the last reason."""


class ModelRejected(ModelError):
    """The endpoint rejects the request, the model or the credentials."""


class ContextTooLong(ModelRejected):
    """The messages do not fit into the context of the model."""


class ModelRefused(ModelError):
    """The model, or a filter of its provider, refuses to answer; the message is its reason."""


class ModelCut(ModelError):
    """The reply was cut at the limit of output tokens and cannot be used, or exceeds a bound of this module."""


class LanguageModel(Protocol):
    """Language models behind one endpoint."""

    async def ask(self, request: ModelRequest, on_progress: OnProgress | None = None) -> Reply:
        """Return the whole reply of the first model that gives one. Raises ModelError, HostExhausted.

        If the calling task is cancelled, the connection to the endpoint is closed before CancelledError leaves.
        """
        ...

    async def close(self) -> None:
        """Close all connections."""
        ...


def estimated_tokens(size: int) -> int:
    """Return a number of tokens that text of `size` bytes of UTF-8 hardly exceeds."""
    return -(-size // BYTES_PER_TOKEN)
