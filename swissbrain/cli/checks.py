"""Checks of an installation, one line each: a mark, what is checked, how long it took, what was found."""

import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from importlib.metadata import version

import httpx
import msgspec
import typer

from swissbrain import Client
from swissbrain.access import Access
from swissbrain.cli.explanations import explain
from swissbrain.cli.terminal import plain
from swissbrain.decoding import from_json
from swissbrain.environment import open_client
from swissbrain.errors import ClientError
from swissbrain.messages import connection_error, raise_for_redirect

MAX_SKEW_S = 30.0
"""Largest difference of two clocks. Signatures and leases bear more, but nothing good makes clocks differ by more."""
TIMEOUT_S = 15.0
SCOPES = ("runs:read", "runs:write")


class CheckFailed(Exception):
    """Failure of a check. The message is one line that says what is wrong, and what helps."""


class Checklist:
    """Checks that were made so far, printed as they end."""

    def __init__(self) -> None:
        self.failed: list[str] = []

    def check(self, name: str, work: Callable[[], str]) -> bool:
        """Make a check, which returns what it found. Return False if it raised CheckFailed or ClientError."""
        began = time.monotonic()
        try:
            mark, found = "✓", work()
        except CheckFailed as exc:
            mark, found = "✗", str(exc)
        except ClientError as exc:
            mark, found = "✗", explain(exc)
        if mark == "✗":
            self.failed.append(name)
        _print(mark, name, f"{time.monotonic() - began:5.2f} s", found)
        return mark == "✓"

    def skip(self, name: str, reason: str) -> None:
        """Say that a check is not made."""
        _print("–", name, "", f"not checked: {reason}")


class _State(msgspec.Struct):
    status: str
    version: str = "of an older release"


class _Problem(msgspec.Struct):
    title: str
    detail: str = ""


def check_api(checks: Checklist, access: Access, client: Client, *, same_release: bool = False) -> bool:
    """Check that the API can be reached, is ready, has the right time and knows the token; return False if not.

    `same_release`: the API must be of the release of this command.
    """
    with open_client(httpx.URL(access.url), timeout=TIMEOUT_S, base_url=access.url) as http:
        return (
            checks.check("API", lambda: _release(http, access.url, same_release=same_release))
            and checks.check("API ready", lambda: _ready(http))
            and checks.check("clock", lambda: _clock(http))
            and checks.check("token", lambda: _token(client))
        )


def check_workers(client: Client) -> str:
    """Return how many workers are alive. Raises CheckFailed if there is none."""
    depths = client.queue()
    if depths.workers == 0:
        raise CheckFailed(
            f"no worker has asked for work within five minutes; {depths.ready} runs are ready. Is swissbrain-worker "
            "running, and is its Redis (REDIS_URL, REDIS_KEY_PREFIX) that of the API?"
        )
    return f"{depths.workers} alive; {depths.ready} runs ready, {depths.running} running, {depths.dead} dead letters"


def clock_difference(date: str | None, now_s: float) -> float:
    """Return by how many seconds the clock of an answer, in its header Date, is ahead of this one's.

    Raises CheckFailed without a date, or if the difference is too large.
    """
    try:
        seconds = parsedate_to_datetime(date or "").timestamp() - now_s
    except ValueError:
        raise CheckFailed("the answer has no header Date") from None
    if abs(seconds) > MAX_SKEW_S:
        where = "ahead of" if seconds > 0 else "behind"
        raise CheckFailed(f"the other clock is {abs(seconds):.0f} s {where} this one; synchronise both (NTP)")
    return seconds


def release_of(access: Access) -> str:
    """Return the release that an API says it is. Raises CheckFailed."""
    with open_client(httpx.URL(access.url), timeout=TIMEOUT_S, base_url=access.url) as http:
        return _state(http, "/health").version


def check_clock(access: Access) -> str:
    """Return how far the clock of an API is from this one. Raises CheckFailed if that is too much."""
    with open_client(httpx.URL(access.url), timeout=TIMEOUT_S, base_url=access.url) as http:
        return _clock(http)


def _release(http: httpx.Client, url: str, *, same_release: bool) -> str:
    state = _state(http, "/health")
    own = version("swissbrain")
    if same_release and state.version != own:
        raise CheckFailed(f"{url} is {state.version}, this command {own}; deploy the API again, or install its release")
    return f"{url}, release {state.version}, this command {own}"


def _ready(http: httpx.Client) -> str:
    _state(http, "/ready")
    return "reaches its Redis, which accepts changes"


def _clock(http: httpx.Client) -> str:
    date = _get(http, "/health").headers.get("date")
    # The header has whole seconds.
    return f"differs by {abs(clock_difference(date, time.time())):.0f} s"


def _token(client: Client) -> str:
    who = client.whoami()
    missing = [scope for scope in SCOPES if scope not in who.scopes]
    if missing:
        lacking = " and ".join(missing)
        raise CheckFailed(f"the token of '{who.user}' lacks the scope {lacking}; see 'swissbrain key new'")
    return f"of '{who.user}', may {', '.join(who.scopes)}"


def _state(http: httpx.Client, path: str) -> _State:
    response = _get(http, path)
    try:
        if response.is_error:
            problem = from_json(response.content, _Problem)
            raise CheckFailed(f"GET {path} answers {response.status_code}: {problem.detail or problem.title}")
        state = from_json(response.content, _State)
    except msgspec.DecodeError:
        raise CheckFailed(
            f"GET {path} answers {response.status_code}, but not as this API does; is it the address of the API?"
        ) from None
    return state


def _get(http: httpx.Client, path: str) -> httpx.Response:
    url = str(http.base_url).rstrip("/")
    try:
        response = http.get(path)
        raise_for_redirect(response, url)
    except httpx.RequestError as exc:
        raise CheckFailed(str(connection_error(url, exc))) from None
    except ClientError as exc:
        raise CheckFailed(str(exc)) from None
    return response


def _print(mark: str, name: str, took: str, found: str) -> None:
    typer.echo(f"{mark} {name:<16} {took:>8}  {' '.join(plain(found).split())}")
