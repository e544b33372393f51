"""What runs do, in the words of the API."""

from typing import Any

from tests.chaos.worker import EFFECT

Step = dict[str, Any]


def effect(number: int = 0) -> Step:
    """A step whose executions are counted."""
    return {"tool": "message", "args": {"text": f"{EFFECT} {number}"}}


def shell(command: str) -> Step:
    """A program in the sandbox."""
    return {"tool": "shell", "args": {"command": command}}


def effects(count: int) -> list[Step]:
    """So many counted steps."""
    return [effect(number) for number in range(count)]
