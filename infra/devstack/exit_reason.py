"""Reason for which a process of the stack ended, found in its log.

The processes write four kinds of lines: JSON lines of `infra.logging`, plain lines and tracebacks of Python, lines of
Valkey (`pid:role date # text`), and lines of the S3 server (`F1129 time file] text`). Lines of ordinary operation say
nothing about the end of a process, so they are never taken for its reason.
"""

import re

import msgspec

_VALKEY = re.compile(r"\d+:[A-Z] \d+ \w+ \d+ [\d:.]+ (?P<mark>[-.*#]) (?P<text>.*)")
_GLOG = re.compile(r"(?P<level>[IWEF])\d{4} [\d:.]+ +\S+:\d+\]? (?P<text>.*)")
_GO_PANIC = re.compile(r"(panic|fatal error): .+")
_TRACEBACK = re.compile(r"(?P<margin>[ |+]*)(Exception Group )?Traceback \(most recent call last\):")
_EXCEPTION = re.compile(r"[A-Za-z_][\w.]*(: .*)?")
_PYTHON_FATAL = "Fatal Python error: "
_INDENTED = (" ", "\t", "╔", "║", "╚")
"""Beginnings of lines that continue others, and of the frame around the name of the S3 server."""
_FAILURES = frozenset({"error", "critical"})


def exit_reason(log: str) -> str | None:
    """Return the line that says why the process ended, or None if no line does. `log`: its text since the start."""
    lines = [line for line in log.splitlines() if line.strip()]
    if any(line.startswith("goroutine ") for line in lines):
        for line in lines:
            if _GO_PANIC.match(line):
                return line
    if fatal := [line for line in lines if line.startswith(_PYTHON_FATAL)]:
        return fatal[-1]
    for number in reversed(range(len(lines))):
        if _TRACEBACK.match(lines[number]):
            return _exception(lines[number:])
        if reason := _of_valkey(lines[: number + 1]) or _reason(lines[number], is_last=number == len(lines) - 1):
            # The last line of a traceback looks like a plain line; the traceback before it has the exception itself.
            traceback = next((at for at in reversed(range(number)) if _TRACEBACK.match(lines[at])), None)
            return reason if traceback is None else _exception(lines[traceback:]) or reason
    return None


def _reason(line: str, *, is_last: bool) -> str | None:
    """Return the text of a line that reports a failure, or None for a line of ordinary operation."""
    if line.startswith("{"):
        return _of_json(line)
    if _VALKEY.match(line):
        return None
    if glog := _GLOG.match(line):
        # The S3 server reports a taken port as an error. In other places errors are part of its operation.
        return glog["text"] if glog["level"] == "F" or (glog["level"] == "E" and is_last) else None
    return None if line.startswith(_INDENTED) else line


def _of_valkey(lines: list[str]) -> str | None:
    """Return the first of the errors of Valkey that end the lines: the others follow from it.

    Below a title, such as `*** FATAL AOF MANIFEST FILE ERROR ***`, the last one has the reason.
    """
    first = last = None
    for line in reversed(lines):
        if line.startswith("*** FATAL "):
            return last
        found = _VALKEY.match(line)
        # A warning is about the host's settings, at each start.
        if found is None or found["mark"] != "#" or found["text"].startswith("WARNING"):
            break
        first = found["text"]
        last = last or first
    return first


def _of_json(line: str) -> str | None:
    try:
        fields = msgspec.json.decode(line, type=dict[str, object])
    except msgspec.MsgspecError:
        return None
    if fields.get("level") not in _FAILURES:
        return None
    detail = str(fields.get("error") or fields.get("reason") or "").strip().rpartition("\n")[2].strip()
    return f"{fields.get('action')}: {detail}" if detail else str(fields.get("action"))


def _exception(traceback: list[str]) -> str | None:
    """Return the first line of the exception at the end of a traceback; its text can have more lines, and notes."""
    found = _TRACEBACK.match(traceback[0])
    margin = found["margin"].replace("+", "|") if found else ""
    for line in traceback[1:]:
        if line.startswith(margin) and _EXCEPTION.fullmatch(text := line.removeprefix(margin)):
            return text
    return None
