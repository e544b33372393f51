"""Reason of a program's failure, found in its error output."""

import re

_FRAME = re.compile(r'\s+at .|\s*File "|\s+from .|#\d+ ')
"""Line of a stack trace: of node and Java, Python, Ruby, PHP."""
_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\))")
"""Colour, movement of the cursor, or link, which programs also print where there is no terminal."""
_NO_REASON = re.compile(
    r"\s|\W*$"  # indented lines, lines of braces and carets
    r"|Node\.js v\d|\(Use `node --trace|-{3,} |[+-]\s"  # the last two: headings of stack traces, differences
    r"|#\d+ |Stack trace:|Execution halted|Calls: "
    r"|(.+: )?(note|hint): |compilation terminated|error: compilation failed|\d+ (errors?|warnings?)\b"
    r"|collect2: error: ld returned|error: (could not compile|aborting due to)|For more information about this error"
    r"|\d+ +\||\S+: too many errors|==\d+==ABORTING"
    r"|make(\[\d+\])?: (\*\*\* (.*Error \d+|Waiting for)|Leaving directory|Target .* not remade)"
    r"|npm (ERR!|error)( {2,}.*|\s*\S*$| (A complete log|To see a list|/).*)$"
    r"|npm (ERR!|error) \S+ (This is |In most|If you are|'proxy')"
    r"|╰|\[notice\]|exit status \d+$"
    r"|Please make sure you have the correct access|and the repository exists"
    r"|tar: (Exiting with failure|Error is not recoverable)|Execution of .* aborted due to|BEGIN failed--"
    r"|.+: line \d+: `.*'$"
    r"|(.+: line \d+: +\d+ )?(Aborted|Segmentation fault|Killed|Bus error|Floating point exception)\b"
    r"|\S+:\d+: \w*Warning: "
)
"""Lines that follow the reason in the output of common programs."""
_ERROR = re.compile(
    r'(Uncaught |Exception in thread "[^"]*" |PHP Fatal error:\s+)?'
    r"([A-Za-z_][\w.$]*)?(Error|Exception|Interrupt|Exit)\b.*"
)
_CARETS = re.compile(r"\s*\^[\^~]*$")
"""Line below a line of source text, which it marks."""
_HEADING = re.compile(r".*:$|terminate called .*")
"""Line whose reason follows, indented."""
_GROUP = re.compile(r"\s+\| ([\w.]*(Group|Error|Exception)\b.*)")
"""Message of a group of exceptions in Python, in a frame of lines."""
_SUMMARY = re.compile(r"SUMMARY: \w+Sanitizer: ")
_PANIC = re.compile(r"(panic|fatal error): .+")
"""First line of Go's output. Stack traces of all goroutines follow."""


def reason_in(stderr: str) -> str:
    """Return the line of the error output that most likely says why the program failed, or an empty text.

    For most programs it is the last line. Stack traces, notes and version numbers after it are passed over.
    """
    lines = [line.rstrip() for line in _ESCAPE.sub("", stderr).splitlines()]
    present = [number for number, line in enumerate(lines) if line]
    if not present:
        return ""
    for line in lines:
        if _SUMMARY.match(line) or (_PANIC.fullmatch(line) and "goroutine " in stderr):
            return line
    reasons = [number for number in present if not _is_passed_over(lines, number)]
    if not reasons:
        groups = filter(None, map(_GROUP.fullmatch, lines))
        return next((group[1] for group in groups), lines[present[-1]].strip())
    last = reasons[-1]
    # The message of an exception may have several lines, and the first one says most. Without a stack trace beside it,
    # a line like `Error: try again` may be anything that the program has logged.
    first, end = _paragraph(lines, last)
    if any(_FRAME.match(line) for line in lines[first:end]):
        for number in range(last, first - 1, -1):
            if _ERROR.fullmatch(lines[number]):
                return lines[number]
    indented = [line.strip() for line in lines[last + 1 : last + 3] if line.startswith(" ")]
    return f"{lines[last]} {indented[0]}" if indented and _HEADING.fullmatch(lines[last]) else lines[last].strip()


def _is_passed_over(lines: list[str], number: int) -> bool:
    below = lines[number + 1] if number + 1 < len(lines) else ""
    return bool(_NO_REASON.match(lines[number]) or _CARETS.fullmatch(below))


def _paragraph(lines: list[str], number: int) -> tuple[int, int]:
    """Return the first line and the end of the block around a line, which empty lines bound."""
    first = end = number
    while first > 0 and lines[first - 1]:
        first -= 1
    while end < len(lines) and lines[end]:
        end += 1
    return first, end
