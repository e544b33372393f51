"""What runs do, in the words of the API, and how they may end."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from tests.chaos.site import LEASE_S
from tests.chaos.worker import EFFECT, HANG

Step = dict[str, Any]

CHAIN_FILE = "chain.txt"
CHAIN = 5
LINES = 300


@dataclass(frozen=True)
class Kind:
    """A kind of runs. `status` is how they must end, `finished` how many of their steps then have a result.

    `cancel_s` is how long after their creation, at most, they are cancelled; `delay_s` how much later they may begin;
    `retries` how often they fail and are retried before that; `fork`: another run begins with their first steps.
    """

    name: str
    plan: list[Step]
    weight: int
    status: str = "succeeded"
    finished: int | None = None
    cancel_s: float = 0.0
    delay_s: float = 0.0
    retries: int = 0
    fork: bool = False


def effect(number: int = 0, seconds: float = 0) -> Step:
    """A step whose executions are counted, and that takes so long after that."""
    return {"tool": "message", "args": {"text": f"{EFFECT} {number} {seconds}"}}


def hang(seconds: float) -> Step:
    """A step that lets its worker stand still, once."""
    return {"tool": "message", "args": {"text": f"{HANG} {seconds}"}}


def shell(command: str) -> Step:
    """A program in the sandbox."""
    return {"tool": "shell", "args": {"command": command}}


def is_effect(step: Step) -> bool:
    """Whether the executions of the step are counted."""
    return step["tool"] == "message" and str(step["args"]["text"]).startswith(EFFECT)


def link(number: int) -> Step:
    """A step that adds a line to a file of the workspace."""
    return shell(f"echo {number} >> {CHAIN_FILE}")


def is_link(step: Step) -> bool:
    """Whether it is such a step."""
    return step["tool"] == "shell" and CHAIN_FILE in str(step["args"]["command"])


FAILING_ONCE = shell("test -e seen || { touch seen; exit 3; }")
"""What a failed step has left in the workspace is there when it is retried."""

KINDS = (
    Kind("one step", [{"tool": "message", "args": {"text": "noop"}}], weight=30),
    Kind("five effects", [effect(number, 0.15) for number in range(5)], weight=16),
    Kind("slow effects", [effect(number, 0.4) for number in range(16)], weight=8),
    Kind("chatty", [shell(f"seq -f 'line %g' {LINES}"), effect()], weight=8),
    Kind("long", [effect(0), shell(f"sleep {3 * LEASE_S + 1:g}"), effect(1)], weight=7),
    Kind("failing", [effect(0), shell("echo sorry >&2; exit 3"), effect(1)], weight=8, status="failed", finished=1),
    Kind("file chain", [link(number) for number in range(CHAIN)], weight=9),
    Kind("cancelled", [effect(0), shell("sleep 600"), effect(1)], weight=8, status="cancelled", cancel_s=5.0),
    Kind("retried", [effect(0), FAILING_ONCE, effect(1)], weight=8, retries=1),
    Kind("forked", [step for number in range(3) for step in (link(number), effect(number, 0.1))], weight=8, fork=True),
    Kind("delayed", [effect(0), effect(1)], weight=8, delay_s=4.0),
)


def chooser(random: Random) -> Callable[[], Kind]:
    """Picks kinds by their weights."""
    weights = [kind.weight for kind in KINDS]
    return lambda: random.choices(KINDS, weights)[0]
