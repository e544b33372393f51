"""Reason of a program's failure, found in its exit code and its error output."""

import re
import signal

_FRAME = re.compile(r'\s+at .|\s*File "|\s+from .|#\d+ ')
"""Line of a stack trace: of node and Java, Python, Ruby, PHP."""
_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\))")
"""Colour, movement of the cursor, or link, which programs also print where there is no terminal."""
_NO_REASON = re.compile(
    r"\s|\W*$"  # indented lines, lines of braces and carets
    r"|Node\.js v\d|Bun v\d|\(Use `node --trace|[+-]\s"  # the last one: differences
    r"|#\d+ |[Ss]tack ?trace(back)?:|Execution halted|Calls: |CallStack \(|Raised (at|by) |in expression starting at "
    r"|(Current thread|Thread) 0x|Extension modules: |Error: (Could not create the Java|A fatal exception has)"
    r"|(.+: )?(note|hint): |compilation terminated|error: compilation failed|\d+ (errors?|warnings?)\b"
    r"|collect2: error: ld returned|error: (could not compile|aborting due to)|For more information about this error"
    r"|\d+ +\||\S+: too many errors|==\d+==ABORTING"
    r"|make(\[\d+\])?: (\*\*\* (.*Error \d+|Waiting for)|Leaving directory|Target .* not remade)"
    r"|npm (ERR!|error)( {2,}.*|\s*\S*$| (A complete log|To see a list|/).*)$"
    r"|npm (ERR!|error) \S+ (This is |In most|If you are|'proxy')"
    r"|╰|\[notice\]|exit status \d+$|rsync error: |scp: Connection closed"
    r"|FAILED \(|Ran \d+ tests? |Ran all test suites|(Snapshots|Time):  |BUILD FAILED"
    r"|\* (Try|Get)|> (Run with|Get more)"
    r"|Aborting$|Please (commit your|make sure you have the correct access|move or remove them|specify which branch)"
    r"|Please supply the message|If you wish to set tracking|See git-"
    r"|and the repository exists|Stopping at filesystem boundary|The most similar command"
    r"|tar: (Exiting with failure|Error is not recoverable)|Execution of .* aborted due to|BEGIN failed--"
    r"|.+: line \d+: `.*'$"
    r"|(.+: line \d+: +\d+ )?(Aborted|Segmentation fault|Killed|Bus error|Floating point exception)\b"
    r"|\S+:\d+: \w*Warning: "
)
"""Lines that follow the reason in the output of common programs."""
_ADVICE = re.compile(
    r"(\S+: |CMake Error: |npm (ERR!|error) )?([Tt]ry|[Rr]un|[Ss]ee|[Uu]se|[Ss]pecify|More info|For more)\b"
    r".*(-h\b|help\b|for more|details|information)"
)
"""Line that tells where the options of a program are described."""
_USAGE = re.compile(r"(\S+: )?usage:", re.IGNORECASE)
"""First line of a description of options."""
_MISUSE = re.compile(r"\b(bad|expected|illegal|invalid|missing|required|unexpected|unknown|unrecogni[sz]ed)\b")
"""Words of an error that the description of options follows."""
_NPM_USE = re.compile(r"npm (?:ERR!|error) code EUSAGE\n(?:npm \S+\n)*(npm \S+ .+)")
"""Wrong use of npm, before two pages of help."""
_REPORTED = re.compile(r"(\S+: )?([\w.]*[Ee]rror|ERROR|fatal)\b")
"""Line that reports an error, also below a description of options, as of Python's `argparse`."""
_LISTED_FRAME = re.compile(r"\s*\d+: (0x|.*:\d+:\d+\)?$)|-{3,} ")
"""Line, or heading, of the stack traces that node prints when it crashes."""
_ERROR = re.compile(
    r'(Uncaught |Exception in thread "[^"]*" |PHP Fatal error:\s+)?'
    r"([A-Za-z_][\w.$]*)?(Error|Exception|Interrupt|Exit)\b.*"
)
_EXECUTING = re.compile(r"\s+(while executing|invoked from within)$")
"""Line above a command in a stack trace of Tcl."""
_CARETS = re.compile(r"\s*\^[\^~]*$")
"""Line below a line of source text, which it marks."""
_HEADING = re.compile(r".*:$|terminate called .*")
"""Line whose reason follows, indented."""
_GROUP = re.compile(r"\s+\| ([\w.]*(Group|Error|Exception)\b.*)")
"""Message of a group of exceptions in Python, in a frame of lines."""
_SUMMARY = re.compile(r"SUMMARY: \w+Sanitizer: ")
_PANIC = re.compile(r"(panic|fatal error): .+")
"""First line of Go's output. Stack traces of all goroutines follow."""
_CAUSE = re.compile(r"\s*(?:\[cause\]|Caused by): (.+?)(?: \{)?$")
"""Cause of an exception, below it and its stack trace, in node, Java and others. The last one is the first cause."""
_CRASHES = {signal.SIGILL, signal.SIGTRAP, signal.SIGBUS, signal.SIGFPE, signal.SIGSEGV, signal.SIGSYS}
"""Signals after which a program cannot print a reason: the last line of its error output is an unrelated one."""
_ENDS = {signal.SIGABRT, signal.SIGKILL, signal.SIGTERM, signal.SIGXCPU, signal.SIGXFSZ}
"""Signals that are the reason if the program has printed none. The numbers of others are common as plain exit codes."""
_FATAL = 128
"""Exit code of git after a line `fatal: ...`, below which it explains at length what to do."""


def description(exit_code: int | None, stderr: str) -> str:
    """Return the exit code of a failed program, and the reason of the failure as far as it is known."""
    parts = [f"exit code {exit_code}", reason_in(stderr, exit_code)]
    for number in _CRASHES | _ENDS:
        text = signal.strsignal(number) or ""
        if exit_code == 128 + number and not (parts[-1] and number in _ENDS) and text not in parts[-1]:
            parts.insert(1, text)
    return ": ".join(filter(None, parts))


def reason_in(stderr: str, exit_code: int | None = None) -> str:
    """Return the line of the error output that most likely says why the program failed, or an empty text.

    For most programs it is the last line. Stack traces, notes and version numbers after it are passed over.
    """
    lines = [line.rstrip() for line in _ESCAPE.sub("", stderr).splitlines() if not _LISTED_FRAME.match(line)]
    lines = _without_usage(lines)
    present = [number for number, line in enumerate(lines) if line]
    if not present:
        return ""
    for line in lines:
        if _SUMMARY.match(line) or (_PANIC.fullmatch(line) and "goroutine " in stderr):
            return line
    if (wrong_use := _NPM_USE.search("\n".join(lines))) and lines[present[-1]].startswith("npm "):
        return wrong_use[1]
    reasons = [number for number in present if not _is_passed_over(lines, number)]
    if not reasons:
        groups = filter(None, map(_GROUP.fullmatch, lines))
        return next((group[1] for group in groups), lines[present[-1]].strip())
    last = reasons[-1]
    if exit_code == _FATAL:
        last = next((number for number in reversed(reasons) if lines[number].startswith("fatal: ")), last)
    # The message of an exception may have several lines, and the first one says most. Without a stack trace beside it,
    # a line like `Error: try again` may be anything that the program has logged.
    first, end = _paragraph(lines, last)
    if any(_FRAME.match(line) for line in lines[first:end]):
        last = next((number for number in range(last, first - 1, -1) if _ERROR.fullmatch(lines[number])), last)
    above = lines[max(filter(last.__gt__, present), default=0)]
    if last and above.endswith(":") and _ERROR.fullmatch(above):  # node's comparisons
        return f"{above} {lines[last]}"
    return f"{lines[last].strip()}{_details(lines[last], lines[last + 1 :])}"


def _details(reason: str, following: list[str]) -> str:
    """Return what the lines that follow the reason add to it."""
    if causes := [*filter(None, map(_CAUSE.fullmatch, following))]:
        return f" (cause: {causes[-1][1]})"
    indented = [line.strip() for line in following[:2] if line[:1].isspace()]
    return f" {indented[0]}" if indented and _HEADING.fullmatch(reason) else ""


def _without_usage(lines: list[str]) -> list[str]:
    """Return the lines before a description of options, if an error is above it and none below it."""
    for number, line in enumerate(lines):
        above = lines[max(0, number - 4) : number]
        if _USAGE.match(line) and any(map(_MISUSE.search, above)) and not any(map(_REPORTED.match, lines[number:])):
            return lines[:number]
    return lines


def _is_passed_over(lines: list[str], number: int) -> bool:
    line, above = lines[number], lines[number - 1] if number else ""
    below = lines[number + 1] if number + 1 < len(lines) else ""
    is_source = _EXECUTING.match(above) or _CARETS.fullmatch(below)
    return bool(is_source or _NO_REASON.match(line) or _ADVICE.match(line))


def _paragraph(lines: list[str], number: int) -> tuple[int, int]:
    """Return the first line and the end of the block around a line, which empty lines bound."""
    first = end = number
    while first > 0 and lines[first - 1]:
        first -= 1
    while end < len(lines) and lines[end]:
        end += 1
    return first, end
