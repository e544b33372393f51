"""Output of tools as text for models: readable, bounded, without hidden characters, and fenced."""

import json
import re
from collections.abc import Mapping
from typing import Any

from infra.contract.execution import ExecLimits
from worker.toolkit.execution import HEAD_BYTES, TAIL_BYTES

MAX_BYTES = 16 * 1024
"""Largest text of one call in a conversation, as UTF-8, without its fence."""
_MESSAGE_BYTES = 1024
_SPLIT_CHARACTER_BYTES = 32
_SHORT_CHARS = 200

_ESCAPE_SEQUENCE = r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)"
_HIDDEN = re.compile(
    _ESCAPE_SEQUENCE + "|"
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f"  # controls
    r"\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164"
    r"\ufe00-\ufe0d\ufeff\uffa0\ufff0-\ufffb"  # without width, without ink, or with another direction
    r"\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"  # tags and selectors, which can hide a text
    r"\ud800-\udfff]"
)
_LINE_END = re.compile("\r\n|[\r\u2028\u2029]")
_NOT_IN_NAME = re.compile(r"[^A-Za-z0-9_.-]")
_ALTERED = "[…]"


def visible(text: str) -> tuple[str, int]:
    """Return the text without control, bidirectional and zero-width characters, and the number of those removed.

    Escape sequences of terminals are removed as a whole. Line ends become `\\n`.
    """
    lines = _LINE_END.sub("\n", text)
    shown = _HIDDEN.sub("", lines)
    return shown, len(lines) - len(shown)


def named(text: str, max_chars: int = 80) -> str:
    """Return text of a model for use within a sentence: one line, visible, truncated."""
    shown = " ".join(visible(text[: 8 * max_chars])[0].split())
    return shown if len(shown) <= max_chars else f"{shown[: max_chars - 1]}…"


def fenced(marker: str, tool: str, text: str) -> str:
    """Return the output of a tool between tags of the run's marker, which the output cannot contain.

    After the end tag, notes say what was removed from the output or altered in it.
    """
    shown, removed = visible(text)
    shown, altered = re.subn(re.escape(marker), _ALTERED, shown, flags=re.IGNORECASE)
    notes = []
    if removed:
        notes.append(f"({removed} control or invisible characters of this output were removed.)")
    if altered:
        notes.append(f"(The output contained the name of this tag; it was replaced by {_ALTERED}.)")
    name = _NOT_IN_NAME.sub("_", tool)[:64]
    return "\n".join([f'<{marker} tool="{name}">', shown, f"</{marker}>", *notes])


def shortened(text: str, limit: int = MAX_BYTES, path: str = "") -> str:
    """Return the text with at most `limit` bytes of UTF-8: its head, its tail, and between them a note.

    The note says how many bytes are left out and, given the `path` of a file that has all of them, how to read them.
    """
    data = text.encode(errors="replace")
    if len(data) <= limit:
        return data.decode()
    how = _how_to_read(path) if path else ""
    # The number in the note is at most as long as the size of the text.
    room = max(0, limit - len(_left_out(len(data), how).encode()))
    head = data[: room // 2].decode(errors="ignore")
    tail = data[len(data) - (room - room // 2) :].decode(errors="ignore") if room else ""
    note = _left_out(len(data) - len(head.encode()) - len(tail.encode()), how)
    return f"{head}{note}{tail}".encode()[:limit].decode(errors="ignore")


def _how_to_read(path: str, what: str = "all") -> str:
    return f"; '{named(path, 300)}' has {what}; read it in parts with file_read (offset, max_bytes)"


def _left_out(size: int, how: str) -> str:
    return f"\n[… {size} bytes are left out{how} …]\n"


def result_text(tool: str, result: Mapping[str, Any], failure: tuple[str, str] | None) -> str:
    """Return a tool's result, or the part of it that a failed call has, as text of at most MAX_BYTES.

    `failure`: code and message.
    """
    parts = []
    if failure is not None:
        code, message = failure
        parts.append(shortened(f"failed ({code}): {message}", _MESSAGE_BYTES))
    if "stdout_tail" in result:
        parts += _program(result, failed=failure is not None)
    elif tool == "file_read" and "content" in result:
        parts.append(_content(result))
    elif tool == "file_list" and "files" in result:
        parts.append(_listing(result))
    elif result or failure is None:
        parts += _fields(result) or ["done"]
    # The text of a page is the only one that may be longer than the result has it.
    return shortened("\n".join(parts), path=str(result.get("path") or "") if "text" in result else "")


def _program(result: Mapping[str, Any], *, failed: bool) -> list[str]:
    exit_code = result.get("exit_code")
    parts = [] if failed and exit_code is None else [f"exit code {exit_code}"]
    for stream in ("stdout", "stderr"):
        head, tail = (str(result.get(f"{stream}_{part}", "")) for part in ("head", "tail"))
        kept = [str(path) for path in result.get("kept", ()) if str(path).endswith(f".{stream}")]
        parts.append(_stream(stream, head, tail, int(result.get(f"{stream}_bytes", 0)), kept[0] if kept else ""))
    return parts


def _stream(stream: str, head: str, tail: str, size: int, path: str) -> str:
    if not size:
        return f"{stream}: empty"
    # The executor keeps the beginning of a larger output, and so `tail` is the end of that beginning.
    lost = size - ExecLimits.output_bytes
    missing = min(size, ExecLimits.output_bytes) - HEAD_BYTES - TAIL_BYTES
    has = f"the first {ExecLimits.output_bytes} bytes" if lost > 0 else "all"
    note = _left_out(missing, _how_to_read(path, has) if path else "") if missing > 0 else ""
    # Bytes that are no text take more room than they had, as replacement characters.
    head = shortened(head, HEAD_BYTES + _SPLIT_CHARACTER_BYTES, path)
    tail = shortened(tail, TAIL_BYTES + _SPLIT_CHARACTER_BYTES, path)
    end = f"\n[… {lost} bytes after these were not kept; let the program write a file …]" if lost > 0 else ""
    return f"{stream} ({size} bytes):\n{head}{note}{tail}{end}"


def _content(result: Mapping[str, Any]) -> str:
    """Return the content of a file as far as there is room, and how to read on."""
    path, content = str(result.get("path", "")), str(result["content"])
    offset, size = int(result.get("offset", 0)), int(result.get("size_bytes", 0))
    if result.get("encoding") != "utf-8":
        beyond = " at least" if result.get("truncated") else ""
        return f"'{path}' is not text: it has{beyond} {offset + size} bytes. Read it with a program."
    data = content.encode(errors="replace")
    shown = data[: MAX_BYTES - 1024].decode(errors="ignore")
    end = offset + len(shown.encode())
    if end == offset + len(data) and not result.get("truncated"):
        return shown if data or not offset else f"'{path}' ends before byte {offset}."
    return f"{shown}\n[… the file goes on: read the next part with file_read, offset {end} …]"


def _listing(result: Mapping[str, Any]) -> str:
    files = result["files"]
    lines = [f"{file.get('size_bytes', '?'):>12}  {file.get('path', '?')}" for file in files]
    if result.get("count", 0) > len(lines):
        lines.append(f"[… {result['count']} files in all; list a folder to see the others …]")
    return "size in bytes, path:\n" + "\n".join(lines) if lines else "no files"


def _fields(result: Mapping[str, Any]) -> list[str]:
    """Return the values of a result as compact JSON, and each long text after it as it is."""
    long = {name: value for name, value in result.items() if isinstance(value, str) and len(value) > _SHORT_CHARS}
    short = {name: value for name, value in result.items() if name not in long}
    parts = [json.dumps(short, ensure_ascii=False, separators=(",", ":"), default=str)] if short else []
    return [*parts, *(f"{name}:\n{value}" for name, value in long.items())]
