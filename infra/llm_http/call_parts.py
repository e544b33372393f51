"""Calls of a reply, put together from the parts in which endpoints send them."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from infra.contract.llm import Call
from infra.llm_http.frames import object_of, text_of
from infra.llm_http.opaque import merge_opaque


class CallParts:
    """Call of which parts have arrived."""

    def __init__(self, index: Any) -> None:
        self.index = index
        self.id = ""
        self.name = ""
        self.opaque: dict[str, Any] = {}
        self._arguments: list[str] = []

    @property
    def text(self) -> str:
        """JSON text of the arguments so far."""
        return "".join(self._arguments)

    def add(self, part: Mapping[str, Any]) -> int:
        """Add a part; return its size in bytes."""
        call_id = "" if self.id else text_of(part.get("id"))
        self.id = self.id or call_id
        name, arguments = _function(part)
        if name != self.name:  # some endpoints repeat the name in every part
            self.name += name
        # Some endpoints send the arguments once more as a whole, after their pieces.
        if not self._repeats(arguments):
            self._arguments.append(arguments)
        return len(call_id) + len(name) + len(arguments.encode()) + merge_opaque(self.opaque, part)

    def continues_with(self, part: Mapping[str, Any]) -> bool:
        """Return whether a part, which has the same index or none, belongs to this call."""
        call_id = text_of(part.get("id"))
        if call_id and self.id and call_id != self.id:  # several endpoints number every call 0
            return False
        name, arguments = _function(part)
        if not name or not arguments.strip() or self._object() is None:
            return True
        # A name with arguments after complete ones begins a call: endpoints without ids number every call 0, too. What
        # is said twice under one index is one call: it must not be executed twice.
        return self.index is not None and (bool(call_id) or (name == self.name and self._repeats(arguments)))

    def _repeats(self, arguments: str) -> bool:
        """Return whether arguments are a whole object, and the same one as the arguments so far."""
        found = _object_in(arguments)
        return found is not None and self._object() == found

    def _object(self) -> Any:
        """Return the object that the arguments so far are as a whole; None if they are something else."""
        last = next((piece for piece in reversed(self._arguments) if piece.strip()), "")
        # Nearly always: joining or parsing what has arrived after each piece would take quadratic time.
        return _object_in(self.text) if _ends_object(last) else None


class CallList:
    """Calls of a reply under way."""

    def __init__(self) -> None:
        self._calls: list[CallParts] = []

    def __len__(self) -> int:
        return len(self._calls)

    def add_part(self, part: Mapping[str, Any]) -> int:
        """Add a part of a stream to the call that it belongs to, which is perhaps a new one; return its size in bytes.

        A part belongs to the call of its index, or to the last one if it has no index.
        """
        index = part.get("index")
        if index is None:
            known = self._calls[-1] if self._calls else None
        else:
            known = next((call for call in reversed(self._calls) if call.index == index), None)
        if known is None or not known.continues_with(part):
            known = self._begin(index)
        return known.add(part)

    def add_whole(self, call: Mapping[str, Any]) -> int:
        """Add a call of an answer that was not streamed; return its size in bytes."""
        return self._begin(call.get("index")).add(call)

    def _begin(self, index: Any) -> CallParts:
        self._calls.append(CallParts(index))
        return self._calls[-1]

    def sort(self) -> None:
        """Bring the calls into the order of their indexes: parts of a stream may interleave."""
        if all(isinstance(call.index, int) for call in self._calls):
            self._calls.sort(key=lambda call: call.index)

    def has_nameless(self) -> bool:
        """Return whether a call has no name."""
        return any(not call.name for call in self._calls)

    def made(self) -> Sequence[Call]:
        """Return the calls with unique ids: some endpoints repeat them, or leave them out."""
        taken = {call.id for call in self._calls}
        used: set[str] = set()
        made = []
        for number, call in enumerate(self._calls):
            call_id = call.id
            if not call_id or call_id in used:
                ids = (f"call_{number}_{n}" for n in range(len(self._calls) + 1))
                call_id = next(each for each in ids if each not in taken | used)
            used.add(call_id)
            made.append(Call(id=call_id, name=call.name, arguments=call.text.strip() or "{}"))
        return made

    def opaque(self) -> dict[str, Any]:
        """Return the opaque fields of the calls that have some, by the number of the call."""
        return {str(number): call.opaque for number, call in enumerate(self._calls) if call.opaque}


def _function(part: Mapping[str, Any]) -> tuple[str, str]:
    """Return name and arguments of a part; the arguments as text, also where an object stands in place of its text."""
    function = object_of(part.get("function"))
    arguments = function.get("arguments")
    if arguments is None:
        arguments = ""
    elif not isinstance(arguments, str):
        arguments = msgspec.json.encode(arguments).decode()
    return text_of(function.get("name")), arguments


def _ends_object(text: str) -> bool:
    return text.rstrip().endswith("}")


def _object_in(text: str) -> Any:
    """Return the object that a text is as a whole; None if it is something else."""
    if not _ends_object(text):
        return None
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
