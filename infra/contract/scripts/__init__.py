"""The Lua scripts, one file an atomic step; the loader puts the table of states and `lib.lua` before each."""

import hashlib
from dataclasses import dataclass
from importlib.resources import files

from infra.contract.states import NEXT, TERMINAL


@dataclass(frozen=True)
class Script:
    """A script ready to send: its name for people, its text, and the SHA-1 digest by which Redis knows it."""

    name: str
    text: str
    sha1: str


def load(name: str) -> Script:
    """The script `name`, with the shared functions and the rendered table of transitions before it."""
    folder = files(__package__)
    library = folder.joinpath("lib.lua").read_text()
    body = folder.joinpath(f"{name}.lua").read_text()
    text = "\n".join((_states(), library, body))
    return Script(name, text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


def _states() -> str:
    """The table NEXT and the set TERMINAL as Lua source."""
    rows = ", ".join(
        f"{state} = {{ {', '.join(f'{target} = true' for target in sorted(targets))} }}"
        for state, targets in NEXT.items()
    )
    ends = ", ".join(f"{state} = true" for state in sorted(TERMINAL))
    return f"local NEXT = {{ {rows} }}\nlocal TERMINAL = {{ {ends} }}"
