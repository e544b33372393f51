"""Reason of a program's failure, found in its error output."""

import re

_FRAME = re.compile(r'\s+at .|\s*File "|\s+from .|#\d+ ')
"""Line of a stack trace: of node and Java, Python, Ruby, PHP."""
_NO_REASON = re.compile(
    r"\s|\W*$"  # indented lines, lines of braces and carets
    r"|Node\.js v\d|\(Use `node --trace"
    r"|#\d+ |Stack trace:"
    r"|note: |compilation terminated"
    r"|make(\[\d+\])?: (\*\*\* .*Error \d+|Leaving directory)"
    r"|npm (ERR!|error)\s*($|A complete log|/)"
    r"|exit status \d+$"
)
"""Lines that follow the reason in the output of common programs."""
_ERROR = re.compile(
    r'(Uncaught |Exception in thread "[^"]*" |PHP Fatal error:\s+)?'
    r"([A-Za-z_][\w.$]*)?(Error|Exception|Interrupt|Exit)\b.*"
)
_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\))")
"""Colour, movement of the cursor, or link, which programs also print where there is no terminal."""
_PANIC = re.compile(r"(panic|fatal error): .+")
"""First line of Go's output. Stack traces of all goroutines follow."""


def reason_in(stderr: str) -> str:
    """Return the line of the error output that most likely says why the program failed, or an empty text.

    For most programs it is the last line. Stack traces, notes and version numbers after it are passed over.
    """
    stderr = _ESCAPE.sub("", stderr)
    lines = [line.rstrip() for line in stderr.splitlines()]
    present = [number for number, line in enumerate(lines) if line]
    if not present:
        return ""
    for line in lines:
        if _PANIC.fullmatch(line) and "goroutine " in stderr:
            return line
    reasons = [number for number in present if not _NO_REASON.match(lines[number])]
    last = reasons[-1] if reasons else present[-1]
    # The message of an exception may have several lines, and the first one says most. Without a stack trace beside it,
    # a line like `Error: try again` may be anything that the program has logged.
    first, end = _paragraph(lines, last)
    if any(_FRAME.match(line) for line in lines[first:end]):
        for number in range(last, first - 1, -1):
            if _ERROR.fullmatch(lines[number]):
                return lines[number]
    return lines[last].strip()


def _paragraph(lines: list[str], number: int) -> tuple[int, int]:
    """Return the first line and the end of the block around a line, which empty lines bound."""
    first = end = number
    while first > 0 and lines[first - 1]:
        first -= 1
    while end < len(lines) and lines[end]:
        end += 1
    return first, end
