"""Events for people and of models: `message`, `log`, `model.*`."""

from typing import Annotated, Literal

from msgspec import UNSET, Meta, UnsetType

from infra.contract.events.base import Splittable, Truncated

Text = Annotated[str, Meta(description="Text, or a part of it.")]


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


class ModelDelta(Splittable, frozen=True, kw_only=True):
    """Piece of a model's reply, while the model writes it. `model.message` repeats the complete reply."""

    TYPE = "model.delta"

    text: Text


class ModelMessage(Splittable, frozen=True, kw_only=True):
    """Complete text of a model's reply."""

    TYPE = "model.message"

    text: Text
    model: Annotated[str, Meta(description="Name of the model.")] | UnsetType = UNSET
    input_tokens: Annotated[int, Meta(description="Number of tokens that the model read.")] | UnsetType = UNSET
    output_tokens: Annotated[int, Meta(description="Number of tokens that the model wrote.")] | UnsetType = UNSET
