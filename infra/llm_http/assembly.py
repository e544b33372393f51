"""One reply, put together from the frames of a stream or from one whole message."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from infra.contract.llm import MAX_CALLS, MAX_TEXT_BYTES, Call, Delta, Finish
from infra.llm_http.call_parts import CallList
from infra.llm_http.failures import TryFailed, failed_frame
from infra.llm_http.frames import FrameDecoder, content_of, object_of, text_of
from infra.llm_http.opaque import REASONING, merge_opaque

_STOP = frozenset(
    ["stop", "tool_calls", "function_call", "eos", "eos_token", "end_turn", "stop_sequence", "tool_use", "complete"]
)
_LENGTH = frozenset(["length", "max_tokens", "max_output_tokens", "model_length", "model_context_window_exceeded"])
_FILTERED = frozenset(
    [
        "blocklist",
        "content_filter",
        "content_filtered",
        "guardrail_intervened",
        "prohibited_content",
        "recitation",
        "refusal",
        "safety",
        "sensitive",
    ]
)
_NO_REASON = frozenset(["null", "none"])
"""Texts with which some endpoints say in every frame that the reply has not ended."""


class Assembly:
    """Reply under way."""

    def __init__(self) -> None:
        self.reason = ""
        """Why the model ended, in the words of the endpoint; empty while it has not."""
        self.usage: Any = None
        self.served = ""
        self._decoder = FrameDecoder()
        self._opaque: dict[str, Any] = {}
        self._reasoning: defaultdict[str, list[str]] = defaultdict(list)
        self._text: list[str] = []
        self._refusal: list[str] = []
        self._calls = CallList()
        self._bytes = 0

    def add_frame(self, data: bytes) -> list[Delta]:
        """Add one frame of a stream; return its deltas. Raises TryFailed."""
        choice = self._choice(self._decoder.decode(data))
        if choice is None:
            return []
        delta = object_of(choice.get("delta"))
        self._bytes += sum(self._calls.add_part(part) for part in _parts(delta))
        return self._add(choice, delta)

    def add_whole(self, data: bytes) -> list[Delta]:
        """Add an answer that was not streamed; return its deltas. Raises TryFailed."""
        choice = self._choice(self._decoder.decode(data))
        if choice is None:
            raise TryFailed("the answer has no choice")
        message = object_of(choice.get("message"))
        self._bytes += sum(self._calls.add_whole(call) for call in _parts(message))
        return self._add(choice, message)

    def _choice(self, frame: Mapping[str, Any]) -> Mapping[str, Any] | None:
        if error := _error(frame):
            raise failed_frame(error)
        self.served = self.served or text_of(frame.get("model"))[:200]
        self.usage = frame.get("usage") or self.usage
        choices = frame.get("choices")
        found = [choice for choice in choices if isinstance(choice, dict)] if isinstance(choices, list) else []
        return next((choice for choice in found if choice.get("index") in (None, 0)), None)

    def _add(self, choice: Mapping[str, Any], message: Mapping[str, Any]) -> list[Delta]:
        deltas = []
        if text := content_of(message.get("content")):
            self._text.append(text)
            deltas.append(Delta("text", text))
        thoughts = {key: thought for key in REASONING if (thought := text_of(message.get(key)))}
        for key, thought in thoughts.items():
            self._reasoning[key].append(thought)
        if thoughts:  # an endpoint with both fields repeats the same text
            deltas.append(Delta("reasoning", next(iter(thoughts.values()))))
        self._refusal.append(text_of(message.get("refusal")))
        self._bytes += sum(len(part.encode()) for part in (text, self._refusal[-1], *thoughts.values()))
        self._bytes += merge_opaque(self._opaque, message)
        if self._bytes > MAX_TEXT_BYTES or len(self._calls) > MAX_CALLS:
            raise TryFailed(f"the reply has more than {MAX_TEXT_BYTES} bytes or {MAX_CALLS} calls", "cut")
        reason = text_of(choice.get("finish_reason")).lower()
        self.reason = self.reason or ("" if reason in _NO_REASON else reason)
        return deltas

    def _finish(self) -> Finish:
        if not self.reason:
            raise TryFailed("the answer ended before the reply was complete")
        if self.reason in _STOP:
            return "calls" if self._calls else "stop"
        if self.reason in _LENGTH:
            return "length"
        if self.reason in _FILTERED:
            raise TryFailed("a filter of the provider stopped the reply", "refused")
        raise TryFailed(f"the reply ended with the unknown reason '{self.reason[:50]}'")

    def whole(self, model: str) -> tuple[str, Sequence[Call], Finish, Mapping[str, Any]]:
        """Return text, calls, finish and opaque fields of the complete reply. Raises TryFailed if it is none."""
        finish, text = self._finish(), "".join(self._text)
        self._calls.sort()
        if refusal := "".join(self._refusal):
            raise TryFailed(refusal, "refused")
        if finish == "length" and (self._calls or not text):
            raise TryFailed("the reply was cut at the limit of output tokens", "cut")
        if self._calls.has_nameless():
            raise TryFailed("the reply has a call without a name")
        return text, self._calls.made(), finish, self._opaque_of(model)

    def output_bytes(self) -> int:
        """Return the bytes that the model wrote, as far as they are known."""
        return self._bytes

    def _opaque_of(self, model: str) -> Mapping[str, Any]:
        calls = self._calls.opaque()
        message = {**self._opaque, **{key: "".join(parts) for key, parts in self._reasoning.items()}}
        fields = {**({"message": message} if message else {}), **({"calls": calls} if calls else {})}
        return {model: fields} if fields else {}


def _parts(message: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    calls = message.get("tool_calls")
    return [part for part in calls if isinstance(part, dict)] if isinstance(calls, list) else []


def _error(frame: Mapping[str, Any]) -> Any:
    """Return the error that a frame reports, in any of the shapes of endpoints; None if it reports none."""
    if frame.get("error"):
        return frame["error"]
    is_error = "error" in (frame.get("object"), frame.get("type"))
    has_text = "choices" not in frame and any(isinstance(frame.get(name), str) for name in ("message", "detail"))
    return frame if is_error or has_text else None
