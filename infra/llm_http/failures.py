"""Failures of one try, and the pause that an endpoint asks for."""

import re
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from infra import retry_after
from infra.contract.llm import Usage

MAX_AFTER_S = 24 * 3600.0
MAX_REASON_CHARS = 500

NOT_JSON = (msgspec.DecodeError, UnicodeError, RecursionError)
"""Errors of msgspec for text that is no JSON, is not UTF-8, or is nested too deeply."""

Blame = Literal["busy", "try", "model", "endpoint", "context", "refused", "cut"]
"""What a failure concerns. `busy`: too many requests. `try`: this try only, another may succeed. `model`: this model,
another may accept the request. `endpoint`: every request. `context`: the messages are too long. `refused`, `cut`: the
reply itself."""

_CONTEXT = re.compile(
    r"context[ _](?:length|window|size|limit)|contextwindow|maximum (?:context|prompt|model|sequence) |too many tokens"
    r"|(?:prompt|input) (?:is )?too long|input token count|model token limit|`inputs` tokens"
    r"|max_tokens must be at least 1",
    re.I,
)
_EXCEEDED = re.compile(r"exceed|too (?:long|many)|longer", re.I)
_NAMED_STATUS = (
    (re.compile(r"rate_?limit|too_many_requests|throttl", re.I), 429),
    (re.compile(r"overloaded|unavailable", re.I), 529),
    (re.compile(r"context_|invalid_request|bad_?request|content_filter|content_policy", re.I), 400),
    (re.compile(r"authentication|api_key|permission|quota|billing", re.I), 401),
)
"""Names of errors, and the status that an endpoint would have answered with if the answer had not begun."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069]+")


class TryFailed(Exception):
    """Failed try. `after_s`: pause that the endpoint asks for. `usage`: tokens it has reported for the failed try."""

    def __init__(self, reason: str, blame: Blame = "try", *, after_s: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.blame: Blame = blame
        self.after_s = after_s
        self.usage: Usage | None = None


def failed_answer(status: int, headers: Mapping[str, str], body: bytes) -> TryFailed:
    """Return the failure for an answer with an error status. The reason may contain secrets: see `clean`."""
    detail, code = _detail(body)
    after_s = retry_after_s(headers)
    blame = "busy" if status == 503 and after_s is not None else _blame(status, code, detail)
    setting = " (LLM_API_KEY)" if status == 401 else ""
    return TryFailed(f"HTTP {status}{setting}{f': {detail}' if detail else ''}", blame, after_s=after_s)


def failed_frame(error: Any) -> TryFailed:
    """Return the failure for an error object within an answer that began with the status 200."""
    detail, code = _detail(msgspec.json.encode({"error": error}))
    named = next((status for name, status in _NAMED_STATUS if name.search(code)), 500)
    status = int(code) if re.fullmatch(r"[45]\d\d", code) else named
    return TryFailed(f"the endpoint reports an error: {detail or 'without a message'}", _blame(status, code, detail))


def _blame(status: int, code: str, detail: str) -> Blame:
    if code == "content_filter" or code == "content_policy_violation":
        return "refused"
    if status == 429:
        return "endpoint" if code == "insufficient_quota" else "busy"
    about_context = bool(_CONTEXT.search(f"{code} {detail}"))
    # Some servers and gateways answer 500 to a prompt that is too long.
    if about_context and (status in {400, 413, 422} or (status == 500 and _EXCEEDED.search(detail))):
        return "context"
    if status in {408, 409, 425} or status >= 500:
        return "busy" if status == 529 else "try"
    # A missing or unsuitable model is one thing, wrong credentials or a redirect concern every model.
    return "model" if status in {400, 404, 413, 422} else "endpoint"


def _detail(body: bytes) -> tuple[str, str]:
    """Return message and code of an error, for each of the shapes that endpoints use; empty texts for none."""
    try:
        value = msgspec.json.decode(body)
    except NOT_JSON:
        return "", ""  # such as the page of a proxy
    error = value.get("error", value) if isinstance(value, dict) else None
    if isinstance(error, str):
        return error, ""
    if not isinstance(error, dict):
        return "", ""
    message = error.get("message") or error.get("detail") or ""
    code = next((str(error[key]) for key in ("code", "type") if isinstance(error.get(key), str | int)), "")
    return message if isinstance(message, str) else msgspec.json.encode(message).decode(), code


def clean(text: str, secret: str) -> str:
    """Return a text of the endpoint as one short line without the secret."""
    shown = text.replace(secret, "[secret]") if secret else text
    shown = _CONTROL.sub(" ", shown).strip()
    return shown if len(shown) <= MAX_REASON_CHARS else f"{shown[:MAX_REASON_CHARS]}…"


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Return the pause in seconds that `retry-after-ms` or `Retry-After` ask for; None if neither is valid."""
    milliseconds = retry_after.finite_number(headers.get("retry-after-ms", ""))
    seconds = retry_after.retry_after_s(headers) if milliseconds is None else milliseconds / 1000
    return None if seconds is None else min(seconds, MAX_AFTER_S)
