"""Requests with which runs wait in tests."""

import time

from infra.contract.requests import GivenAnswer, OnExpiry, OpenRequest

YES = GivenAnswer(approve=True)


def in_ms(seconds: float) -> int:
    """Return the time `seconds` from now, in ms since the epoch."""
    return int((time.time() + seconds) * 1000)


def question(
    name: str = "q", text: str = "Which one?", *, expires_s: float = 3600, on_expiry: OnExpiry = "fail"
) -> OpenRequest:
    return OpenRequest(
        id=name, kind="question", question=text, expires_ms=in_ms(expires_s), on_expiry=on_expiry, choices=["a", "b"]
    )


def approval(name: str = "a", *, expires_s: float = 3600, on_expiry: OnExpiry = "fail") -> OpenRequest:
    return OpenRequest(
        id=name,
        kind="approval",
        question="May I delete everything?",
        expires_ms=in_ms(expires_s),
        on_expiry=on_expiry,
        tool="shell",
        args={"command": "rm -rf /", "empty": [], "ratio": 0.1},
    )


def answers(*names: str, text: str = "yes") -> dict[str, GivenAnswer]:
    return {name: GivenAnswer(input=text) for name in names}
