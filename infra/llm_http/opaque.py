"""Fields that only the model understands that has sent them, such as signed reasoning."""

from collections.abc import Mapping
from typing import Any

import msgspec

from infra.contract.validation import is_deeper
from infra.llm_http.failures import TryFailed

REASONING = ("reasoning_content", "reasoning")
"""Fields of a message with the text of reasoning."""
_OTHERS = ("reasoning_details", "thinking_blocks", "extra_content", "provider_specific_fields")
OPAQUE = (*REASONING, *_OTHERS)
"""Fields of a message, or of a call, that are returned to the model they came from."""
_JOINED = frozenset(["text", "summary", "thinking", "data"])
"""Members of these fields whose parts are joined; of others the last value counts."""
_MAX_DEPTH = 64
"""Objects and arrays within each other in such a field. What msgspec reads in one place, it may not write in another
where the stack is deeper.
"""


def merge_opaque(into: dict[str, Any], source: Mapping[str, Any]) -> int:
    """Add the opaque fields of a message, a call or a part of them; return their size in bytes. Raises TryFailed."""
    size = 0
    for key in _OTHERS:
        value = source.get(key)
        if value is not None and value != "":
            if is_deeper(value, _MAX_DEPTH):
                raise TryFailed(f"the field {key} of the reply is nested too deeply")
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
