"""Kinds of runs: their plans, and the status in which each must end."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from tests.chaos.worker import EFFECT, HANG, LEASE_S

Step = dict[str, Any]

CHAIN_FILE = "chain.txt"
CHAIN = 5
LINES = 300
BEGUN = "begun"
"""First line of the programs that run in a cluster: the log of a pod shows that its program was started."""


@dataclass(frozen=True)
class Kind:
    """Kind of runs.

    `status`: status in which they must end. `finished`: number of steps that succeed, if not all. `cancel_s`: maximum
    time from creation to cancel. `delay_s`: maximum `delay_s` of the request. `retries`: number of failures that are
    each followed by a retry. `fork`: whether each run is forked into another one. `prompt`, in place of a plan, with
    further `options` of the request; `finished` is then the number of steps of the model's plan. `asks`: whether
    the run asks people.
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
    prompt: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    asks: bool = False


def effect(number: int = 0, seconds: float = 0) -> Step:
    """Build a step that records each execution in the effects file, then sleeps for `seconds`."""
    return {"tool": "message", "args": {"text": f"{EFFECT} {number} {seconds}"}}


def hang(seconds: float) -> Step:
    """Build a step whose first execution blocks its worker's whole process for `seconds`."""
    return {"tool": "message", "args": {"text": f"{HANG} {seconds}"}}


def shell(command: str) -> Step:
    """Build a step that executes a command in the sandbox."""
    return {"tool": "shell", "args": {"command": command}}


def is_effect(step: Step) -> bool:
    """Return whether the step records its executions."""
    return step["tool"] == "message" and str(step["args"]["text"]).startswith(EFFECT)


def link(number: int) -> Step:
    """Build a step that appends a line to CHAIN_FILE in the workspace."""
    return shell(f"echo {number} >> {CHAIN_FILE}")


def is_link(step: Step) -> bool:
    """Return whether the step writes CHAIN_FILE."""
    return step["tool"] == "shell" and CHAIN_FILE in str(step["args"]["command"])


FAILING_ONCE = shell("test -e seen || { touch seen; exit 3; }")
"""Step that fails once: the retry finds the file that the failed execution stored in the workspace."""

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


def chooser(random: Random, kinds: Sequence[Kind]) -> Callable[[], Kind]:
    """Return a function that picks a kind at random, by weight."""
    weights = [kind.weight for kind in kinds]
    return lambda: random.choices(kinds, weights)[0]
