"""Parses requests of publishers: path and headers."""

import hashlib
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from starlette.requests import Request

from infra.contract.errors import InvalidInput
from infra.qstash_local.messages import OutboundCall

MAX_RETRIES = 20
MAX_TIMEOUT_S = 900.0
MAX_DELAY_S = 90 * 24 * 3600.0
MAX_URL_CHARS = 2048
MAX_FORWARDED = 50
METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE"})

_FORWARD, _CALLBACK, _FAILURE_CALLBACK = "upstash-forward-", "upstash-callback-", "upstash-failure-callback-"
_PREFIX = "upstash-"
_KNOWN = frozenset(
    f"{_PREFIX}{name}"
    for name in (
        "method",
        "delay",
        "not-before",
        "retries",
        "timeout",
        "callback",
        "failure-callback",
        "deduplication-id",
        "content-based-deduplication",
        "cron",
        "schedule-id",
        "label",
        "flow-control-key",
        "flow-control-value",
        "caller-ip",
        "telemetry-sdk",
        "telemetry-platform",
        "telemetry-runtime",
    )
)
# Set by the stand-in, or by the connection to the destination.
_OWN_HEADERS = frozenset({"connection", "content-length", "host", "te", "trailer", "transfer-encoding", "upgrade"})
_PARALLELISM = re.compile(r"parallelism=([0-9]{1,6})")
_ID = re.compile(r"[A-Za-z0-9._:-]{1,200}")
_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")
_UNIT_S = (86400, 3600, 60, 1)
_VISIBLE = re.compile(r"[!-~]+")


@dataclass(frozen=True)
class Publication:
    """Request to publish. `duplicates`: publications with the same text are one message; None: each is one."""

    call: OutboundCall
    not_before_ms: int
    duplicates: str | None


def publication(request: Request, path: str, body: bytes) -> Publication:
    """Return what `POST /v2/publish/{url}` asks for. Raises InvalidInput."""
    headers = _upstash_headers(request)
    call = parse_call(request, path, body)
    duplicates = headers.get("upstash-deduplication-id")
    if duplicates is None and headers.get("upstash-content-based-deduplication", "").lower() == "true":
        content = repr((call.method, call.url, sorted(call.headers.items()), call.body)).encode()
        duplicates = f"content:{hashlib.sha256(content).hexdigest()}"
    not_before_s = _number(headers, "upstash-not-before", 0, 10**11)
    return Publication(call, not_before_s * 1000, duplicates)


def parse_call(request: Request, path: str, body: bytes) -> OutboundCall:
    """Return the call to the destination that follows `path` in the URL of the request. Raises InvalidInput."""
    headers = _upstash_headers(request)
    method = headers.get("upstash-method", "POST").upper()
    if method not in METHODS:
        raise InvalidInput(f"must be one of {', '.join(sorted(METHODS))}", "Upstash-Method")
    forwarded = _forwarded(request, _FORWARD)
    if content_type := request.headers.get("content-type"):
        forwarded.setdefault("content-type", content_type)
    return OutboundCall(
        url=_destination(request, path),
        body=body,
        method=method,
        headers=forwarded,
        callback_headers=_forwarded(request, _CALLBACK),
        failure_callback_headers=_forwarded(request, _FAILURE_CALLBACK),
        retries=_number(headers, "upstash-retries", 3, MAX_RETRIES),
        timeout_s=_duration(headers, "upstash-timeout", OutboundCall.__struct_defaults__[6], MAX_TIMEOUT_S),
        delay_s=_duration(headers, "upstash-delay", 0.0, MAX_DELAY_S),
        callback=_optional_url(headers, "upstash-callback"),
        failure_callback=_optional_url(headers, "upstash-failure-callback"),
        label=headers.get("upstash-label"),
        **_flow(headers),
    )


def new_id(prefix: str, *parts: object) -> str:
    """Return an id: derived from the parts, or random without any."""
    if not parts:
        return f"{prefix}_{secrets.token_hex(16)}"
    return f"{prefix}_{hashlib.sha256(repr(parts).encode()).hexdigest()[:32]}"


def schedule_id(request: Request) -> str:
    """Return the id that a new schedule is to have. Raises InvalidInput."""
    wanted = request.headers.get("upstash-schedule-id")
    if wanted is None:
        return new_id("scd")
    if not _ID.fullmatch(wanted):
        raise InvalidInput("must be 1 to 200 letters, digits and '._:-'", "Upstash-CronSchedule-Id")
    return wanted


def _upstash_headers(request: Request) -> Mapping[str, str]:
    """Return the headers of QStash. Raises InvalidInput for one that the stand-in does not know."""
    # A feature that is missing here must not be ignored silently: the message would be delivered in another way.
    headers = {name: value for name, value in request.headers.items() if name.startswith(_PREFIX)}
    prefixes = (_FORWARD, _CALLBACK, _FAILURE_CALLBACK)
    for name in headers:
        if name not in _KNOWN and not name.startswith(prefixes):
            raise InvalidInput("this server does not support the header", name)
    return headers


def _forwarded(request: Request, prefix: str) -> dict[str, str]:
    names = [name for name in request.headers if name.startswith(prefix)]
    if len(names) > MAX_FORWARDED:
        raise InvalidInput(f"at most {MAX_FORWARDED} headers can be forwarded", prefix.removesuffix("-"))
    found = {name.removeprefix(prefix): request.headers[name] for name in names}
    return {name: value for name, value in found.items() if name and not _is_reserved(name)}


def _is_reserved(name: str) -> bool:
    return name in _OWN_HEADERS or name.startswith(_PREFIX)


def _flow(headers: Mapping[str, str]) -> dict[str, Any]:
    """Return the fields for the calls of a key that are made at a time, if there is a key."""
    key, value = headers.get("upstash-flow-control-key"), headers.get("upstash-flow-control-value", "")
    if key is None and not value:
        return {}
    if key is None or not _ID.fullmatch(key):
        raise InvalidInput("must be 1 to 200 letters, digits and '._:-'", "Upstash-Flow-Control-Key")
    found = _PARALLELISM.fullmatch(value)
    if not found or not int(found[1]):
        raise InvalidInput("must be parallelism=NUMBER; a rate is not supported", "Upstash-Flow-Control-Value")
    return {"flow_key": key, "parallelism": int(found[1])}


def _destination(request: Request, path: str) -> str:
    # As it was sent: the signature names the exact URL, so it must not be decoded and encoded again.
    raw = bytes(request.scope["raw_path"]).decode("latin-1")
    query = bytes(request.scope["query_string"]).decode("latin-1")
    url = raw[raw.index(path) + len(path) :] + (f"?{query}" if query else "")
    return _checked_url(url, "destination")


def _optional_url(headers: Mapping[str, str], name: str) -> str | None:
    return _checked_url(headers[name], name) if name in headers else None


def _checked_url(url: str, field: str) -> str:
    try:
        parts = urlsplit(url)
        has_host = bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        has_host = False
    if len(url) > MAX_URL_CHARS or not has_host or not _VISIBLE.fullmatch(url) or parts.scheme not in {"http", "https"}:
        raise InvalidInput(
            f"must be a URL of http or https with a host, of at most {MAX_URL_CHARS} characters; "
            f"{url[:100]!r} is not (URL groups and queues are not supported)",
            field,
        )
    if parts.username is not None or parts.fragment:
        raise InvalidInput("must be a URL without credentials and without '#'", field)
    return url


def _number(headers: Mapping[str, str], name: str, default: int, high: int) -> int:
    text = headers.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit()) or len(text) > 12 or int(text) > high:
        raise InvalidInput(f"must be a number from 0 to {high}", name)
    return int(text)


def _duration(headers: Mapping[str, str], name: str, default: float, high: float) -> float:
    """Return a time such as `90s`, `1d2h` or `30`, in seconds."""
    text = headers.get(name)
    if text is None:
        return default
    found = _DURATION.fullmatch(f"{text}s" if text.isascii() and text.isdigit() else text)
    seconds = _sum_s(found.groups()) if text and found and len(text) <= 40 else -1
    if not 0 <= seconds <= high:
        raise InvalidInput(f"must be a time such as '90s' or '1h30m', at most {high:.0f} s", name)
    return float(seconds)


def _sum_s(parts: Iterable[str | None]) -> int:
    return sum(int(part or 0) * unit for part, unit in zip(parts, _UNIT_S, strict=True))
