"""Events for people and of models: `message`, `log`, `model.*`, `context.compacted`, `limit.near`."""

from typing import Annotated, Literal

from msgspec import UNSET, Meta, UnsetType

from infra.contract.agent import LimitName
from infra.contract.events.base import Splittable, Truncated

Text = Annotated[str, Meta(description="Text, or a part of it.")]
Exchange = Annotated[int, Meta(description="Number of the exchange with models, counted from 0.")]
Purpose = Annotated[str, Meta(description="Purpose of the exchange: `plan`, `turn` or `summary`.")]


class Message(Splittable, frozen=True, kw_only=True):
    """Message of the agent to the people who watch the run."""

    TYPE = "message"

    text: Text


class MessageReceived(Truncated, frozen=True, kw_only=True):
    """A user has sent the run a message; its worker reads the message before the run can succeed."""

    TYPE = "message.received"
    MAX_TEXT_CHARS = 8000

    text: Annotated[str, Meta(description="Message, up to 8000 characters.")]
    by: Annotated[str, Meta(description="User who sent it.")]


class Log(Truncated, frozen=True, kw_only=True):
    """Note of the platform about the run."""

    TYPE = "log"

    level: Annotated[Literal["info", "warning", "error"], Meta(description="Severity.")]
    message: Annotated[str, Meta(description="Message for people; truncated to 2000 characters.")]


class ModelStarted(Truncated, frozen=True, kw_only=True):
    """A model is asked for a reply."""

    TYPE = "model.started"

    n: Exchange
    model: Annotated[str, Meta(description="Name of the first model that is asked.")]
    purpose: Purpose


class ModelDelta(Splittable, frozen=True, kw_only=True):
    """Piece of a reply, which `model.message` repeats; void after `model.retry`, `run.resumed` or `run.retried`."""

    TYPE = "model.delta"

    text: Text
    n: Exchange | UnsetType = UNSET
    kind: Annotated[Literal["text", "reasoning"], Meta(description="Part of the reply.")] | UnsetType = UNSET


class ModelMessage(Splittable, frozen=True, kw_only=True):
    """Complete text of a model's reply."""

    TYPE = "model.message"

    text: Text
    n: Exchange | UnsetType = UNSET
    purpose: Purpose | UnsetType = UNSET
    model: Annotated[str, Meta(description="Name of the model that replied.")] | UnsetType = UNSET
    calls: Annotated[int, Meta(description="Number of tool calls in the reply.")] | UnsetType = UNSET
    problem: Annotated[str, Meta(description="Why the reply cannot be used, if so.")] | UnsetType = UNSET
    input_tokens: Annotated[int, Meta(description="Number of tokens that the model read.")] | UnsetType = UNSET
    output_tokens: Annotated[int, Meta(description="Number of tokens that the model wrote.")] | UnsetType = UNSET
    cached_tokens: Annotated[int, Meta(description="Input tokens that the provider had cached.")] | UnsetType = UNSET
    reasoning_tokens: Annotated[int, Meta(description="Output tokens of reasoning.")] | UnsetType = UNSET
    cost_micros: Annotated[int, Meta(description="Cost in millionths of the currency of the prices.")] | UnsetType = (
        UNSET
    )


class ModelRetry(Truncated, frozen=True, kw_only=True):
    """A model has given no usable reply; it, or another one, is asked again after a pause."""

    TYPE = "model.retry"

    n: Exchange
    model: Annotated[str, Meta(description="Name of the model that failed.")]
    reason: Annotated[str, Meta(description="Reason for people.")]
    next_model: Annotated[str, Meta(description="Name of the model that is asked next.")]
    until_ms: Annotated[int, Meta(description="Time at which it is asked, in ms since the epoch.")]


class ContextCompacted(Truncated, frozen=True, kw_only=True):
    """Earlier exchanges are replaced by a summary in what the models read from now on. The log keeps them."""

    TYPE = "context.compacted"

    before: Annotated[int, Meta(description="Exchanges with a smaller number are replaced.")]


class LimitNear(Truncated, frozen=True, kw_only=True):
    """The run has used four fifths of a limit."""

    TYPE = "limit.near"

    limit: Annotated[LimitName, Meta(description="Limit of the run.")]
    used: Annotated[float, Meta(description="Amount used so far.")]
    allowed: Annotated[float, Meta(description="Amount at which the run ends.")]
