"""Regular expressions of a schema: what none may have that a worker matches in linear time."""

import re

_TOKEN = re.compile(
    r"(?P<reference>\\[1-9k])|(?P<look>\(\?<?[=!])|(?P<class>\[\^?\]?(?:[^\]\\]|\\.)*\])|(?P<escape>\\.)|(?P<slash>\\)"
    r"|(?P<bracket>\[)|(?P<begin>\(\??)|(?P<end>\))|(?P<repeat>[*+?])|(?P<other>.)",
    re.DOTALL,
)
_FAULTS = {
    "reference": r"it refers to a group ('\1', '\k'), which takes too long to match",
    "look": "it looks ahead or behind ('(?=', '(?!', '(?<=', '(?<!'), which takes too long to match",
    "slash": "it ends with a backslash",
    "bracket": "a '[' has no ']'",
}


def pattern_fault(pattern: str) -> str:
    """Return why a regular expression cannot be used; empty if nothing is found. Whoever uses it may find more."""
    if re.match(r"\(\?[a-z]*x", pattern):  # white space and comments, which this function does not read
        return ""
    depth = 0
    begins = True  # nothing stands here that could be repeated
    for token in _TOKEN.finditer(pattern):
        kind = token.lastgroup or ""
        if kind in _FAULTS:
            return _FAULTS[kind]
        if kind == "repeat" and begins:
            return f"nothing stands before the '{token[0]}'"
        depth += (kind == "begin") - (kind == "end")
        if depth < 0:
            return "a ')' has no '('"
        begins = kind == "begin" or token[0] == "|"
    return "a '(' has no ')'" if depth else ""
