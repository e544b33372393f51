"""One reply, put together from the frames of a stream or from one whole message."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from infra.contract.llm import MAX_CALLS, MAX_TEXT_BYTES, Call, Delta, Finish
from infra.llm_http.failures import NOT_JSON, TryFailed, failed_frame

_STOP = frozenset(
    ["stop", "tool_calls", "function_call", "eos", "eos_token", "end_turn", "stop_sequence", "tool_use", "complete"]
)
_LENGTH = frozenset(["length", "max_tokens", "max_output_tokens"])
_FILTERED = frozenset(["content_filter", "safety", "refusal", "recitation", "prohibited_content"])
_REASONING_TEXT = ("reasoning_content", "reasoning")
_OPAQUE = ("reasoning_details", "thinking_blocks", "extra_content", "provider_specific_fields")
"""Fields of a message, or of a call, that are returned to the model they came from, as are those with reasoning."""
_JOINED = frozenset(["text", "summary", "thinking", "data"])
"""Members of these fields whose parts are joined; of others the last value counts."""


class CallParts:
    """Call of which parts have arrived."""

    def __init__(self, index: Any) -> None:
        self.index = index
        self.id = ""
        self.name = ""
        self.arguments: list[str] = []
        self.opaque: dict[str, Any] = {}

    @property
    def text(self) -> str:
        """JSON text of the arguments so far."""
        return "".join(self.arguments)

    def add(self, part: Mapping[str, Any]) -> int:
        """Add a part; return its size in bytes."""
        function = _object(part.get("function"))
        self.id = self.id or _text(part.get("id"))
        name = _text(function.get("name"))
        if name != self.name:  # some endpoints repeat the name in every part
            self.name += name
        arguments = function.get("arguments")
        if arguments is not None and not isinstance(arguments, str):
            arguments = msgspec.json.encode(arguments).decode()  # an object where the protocol has its text
        self.arguments.append(arguments or "")
        return len(name) + len((arguments or "").encode()) + merge_opaque(self.opaque, part)


class Assembly:
    """Reply under way."""

    def __init__(self) -> None:
        self.reason = ""
        """Why the model ended, in the words of the endpoint; empty while it has not."""
        self.usage: Any = None
        self.served = ""
        self._opaque: dict[str, Any] = {}
        self._reasoning: defaultdict[str, list[str]] = defaultdict(list)
        self._text: list[str] = []
        self._refusal: list[str] = []
        self._calls: list[CallParts] = []
        self._bytes = 0

    def add_frame(self, data: bytes) -> list[Delta]:
        """Add one frame of a stream; return its deltas. Raises TryFailed."""
        frame = _decode(data)
        choice = self._choice(frame)
        return [] if choice is None else self._add(choice, _object(choice.get("delta")))

    def add_whole(self, data: bytes) -> list[Delta]:
        """Add an answer that was not streamed; return its deltas. Raises TryFailed."""
        choice = self._choice(_decode(data))
        if choice is None:
            raise TryFailed("the answer has no choice")
        return self._add(choice, _object(choice.get("message")))

    def _choice(self, frame: Mapping[str, Any]) -> Mapping[str, Any] | None:
        if frame.get("error"):
            raise failed_frame(frame["error"])
        self.served = self.served or _text(frame.get("model"))[:200]
        self.usage = frame.get("usage") or self.usage
        choices = frame.get("choices")
        found = [choice for choice in choices if isinstance(choice, dict)] if isinstance(choices, list) else []
        return next((choice for choice in found if choice.get("index") in (None, 0)), None)

    def _add(self, choice: Mapping[str, Any], message: Mapping[str, Any]) -> list[Delta]:
        deltas = []
        if text := _content(message.get("content")):
            self._text.append(text)
            deltas.append(Delta("text", text))
        thoughts = {key: thought for key in _REASONING_TEXT if (thought := _text(message.get(key)))}
        for key, thought in thoughts.items():
            self._reasoning[key].append(thought)
        if thoughts:  # an endpoint with both fields repeats the same text
            deltas.append(Delta("reasoning", next(iter(thoughts.values()))))
        self._refusal.append(_text(message.get("refusal")))
        self._bytes += sum(len(part.encode()) for part in (text, self._refusal[-1], *thoughts.values()))
        self._bytes += merge_opaque(self._opaque, message)
        calls = message.get("tool_calls")
        for part in calls if isinstance(calls, list) else ():
            if isinstance(part, dict):
                self._bytes += self._call(part).add(part)
        if self._bytes > MAX_TEXT_BYTES or len(self._calls) > MAX_CALLS:
            raise TryFailed(f"the reply has more than {MAX_TEXT_BYTES} bytes or {MAX_CALLS} calls", "cut")
        self.reason = self.reason or _text(choice.get("finish_reason")).lower()
        return deltas

    def _call(self, part: Mapping[str, Any]) -> CallParts:
        """Return the call that a part belongs to, which is perhaps a new one.

        By its index, if it has one. Several endpoints number every call 0, so a new id begins a new call all the same.
        Without an index, a part continues the last call unless it names a function after complete arguments.
        """
        index, call_id = part.get("index"), _text(part.get("id"))
        if index is None:
            known = self._calls[-1] if self._calls else None
        else:
            known = next((call for call in reversed(self._calls) if call.index == index), None)
        if known is not None and call_id and known.id and call_id != known.id:
            known = None
        if known is not None and index is None and _begins(part) and _is_json(known.text):
            known = None
        if known is None:
            known = CallParts(index)
            self._calls.append(known)
        return known

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
        if all(isinstance(call.index, int) for call in self._calls):
            self._calls.sort(key=lambda call: call.index)  # parts may interleave
        if refusal := "".join(self._refusal):
            raise TryFailed(refusal, "refused")
        if finish == "length" and (self._calls or not text):
            raise TryFailed("the reply was cut at the limit of output tokens", "cut")
        if any(not call.name for call in self._calls):
            raise TryFailed("the reply has a call without a name")
        return text, _unique(self._calls), finish, self._opaque_of(model)

    def output_bytes(self) -> int:
        """Return the bytes that the model wrote, as far as they are known."""
        return self._bytes

    def _opaque_of(self, model: str) -> Mapping[str, Any]:
        calls = {str(number): call.opaque for number, call in enumerate(self._calls) if call.opaque}
        message = {**self._opaque, **{key: "".join(parts) for key, parts in self._reasoning.items()}}
        fields = {**({"message": message} if message else {}), **({"calls": calls} if calls else {})}
        return {model: fields} if fields else {}


def _unique(calls: Sequence[CallParts]) -> Sequence[Call]:
    """Return the calls with unique ids: some endpoints repeat them, or leave them out."""
    taken = {call.id for call in calls}
    used: set[str] = set()
    made = []
    for number, call in enumerate(calls):
        call_id = call.id
        if not call_id or call_id in used:
            call_id = next(each for n in range(len(calls) + 1) if (each := f"call_{number}_{n}") not in taken | used)
        used.add(call_id)
        made.append(Call(id=call_id, name=call.name, arguments=call.text.strip() or "{}"))
    return made


def merge_opaque(into: dict[str, Any], source: Mapping[str, Any]) -> int:
    """Add the opaque fields of a message, a call or a part of them; return their size in bytes."""
    size = 0
    for key in _OPAQUE:
        value = source.get(key)
        if value is not None and value != "":
            size += len(msgspec.json.encode(value))
            into[key] = _merged(key, into.get(key), value)
    return size


def _merged(key: str, before: Any, value: Any) -> Any:
    if key in _JOINED and isinstance(before, str) and isinstance(value, str):
        return before + value
    if isinstance(before, dict) and isinstance(value, dict):
        return before | {
            name: _merged(name, before.get(name), part) for name, part in value.items() if part is not None
        }
    if isinstance(before, list) and isinstance(value, list):
        entries = list(before)
        for entry in value:
            at = next((n for n, other in enumerate(entries) if _same_entry(other, entry)), None)
            if at is None:
                entries.append(entry)
            else:
                entries[at] = _merged("", entries[at], entry)
        return entries
    return value


def _same_entry(one: Any, other: Any) -> bool:
    if not isinstance(one, dict) or not isinstance(other, dict) or other.get("index") is None:
        return False
    return bool(one.get("index") == other["index"] and one.get("type") == other.get("type"))


def _decode(data: bytes) -> Mapping[str, Any]:
    try:
        frame = msgspec.json.decode(data)
    except NOT_JSON:
        raise TryFailed("the answer contains something else than JSON") from None
    if not isinstance(frame, dict):
        raise TryFailed("the answer contains something else than JSON objects")
    return frame


def _begins(part: Mapping[str, Any]) -> bool:
    function = _object(part.get("function"))
    return bool(function.get("name")) and bool(function.get("arguments"))


def _is_json(text: str) -> bool:
    try:
        msgspec.json.decode(text)
    except NOT_JSON:
        return False
    return True


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else str(value) if isinstance(value, int) else ""


def _content(value: Any) -> str:
    """Return the text of a content: a string, or a list of parts with the type `text` and others."""
    if isinstance(value, list):
        return "".join(
            _text(part.get("text")) for part in value if isinstance(part, dict) and part.get("type") == "text"
        )
    return _text(value)
