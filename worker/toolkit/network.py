"""Network of programs: what a call is granted, and what it did, in words."""

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import UnsetType

from infra.address_guard import InvalidHost
from infra.contract.events import Log
from infra.contract.execution import NetworkUse
from infra.egress.settings import ALLOW, NetworkSettings
from worker.toolkit.base import ToolFailed

ARGUMENT = "network"
MAX_NAMED = 5
"""Hosts that a message names."""


def granted(entries: Sequence[str] | UnsetType, settings: NetworkSettings) -> tuple[str, ...]:
    """Return the entries of an argument `network` in their one spelling, sorted.

    Raises ToolFailed with the code `network_not_allowed` if one is not within the policy of the operator.
    """
    found = set()
    for entry in entries or ():
        try:
            permitted = settings.permitted(entry)
        except InvalidHost as exc:
            raise ToolFailed("invalid_input", f"`network`: '{entry}' cannot be used: {exc}") from None
        if permitted is None:
            allowed = named(settings.entries) or "nothing"
            message = f"`network`: '{entry}' is not within {ALLOW} of this worker, which allows {allowed}"
            raise ToolFailed("network_not_allowed", message)
        found.add(permitted)
    return tuple(sorted(found))


def note_of(settings: NetworkSettings) -> Mapping[str, str]:
    """Return the sentence for models about the argument `network`; an empty one if nothing is allowed."""
    if not settings.allows_any:
        return {ARGUMENT: ""}
    return {ARGUMENT: f"The operator allows {', '.join(settings.entries)[:1000]}."}


def has_no_network(args: Mapping[str, Any]) -> bool:
    """Return whether a call has no network, so that repeating it after a crash does no harm."""
    return not args.get(ARGUMENT)


def use_note(use: NetworkUse) -> Log:
    """Return the note in the log of the run about what a program did with its network."""
    traffic = sorted(use.traffic.items(), key=lambda item: -sum(item[1]))
    reached = [f"{host} ({sent} bytes sent, {received} received)" for host, (sent, received) in traffic]
    parts = [f"network: {named(reached)}" if reached else "network: nothing was reached"]
    text = "; ".join([*parts, refused_text(use)] if use.refused else parts)
    return Log(level="warning" if use.refused else "info", message=text)


def refused_text(use: NetworkUse) -> str:
    """Return which hosts a program did not reach, and why."""
    return "not reached: " + named([f"{host} ({reason})" for host, reason in use.refused.items()])


def named(items: Sequence[str]) -> str:
    """Return the first items as text, and the number of the others."""
    rest = len(items) - MAX_NAMED
    return ", ".join(items[:MAX_NAMED]) + (f" and {rest} more" if rest > 0 else "")
