"""Settings of the language models, read from environment variables at the start of a worker."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast, get_args
from urllib.parse import urlsplit

import msgspec

from infra.contract.llm import ModelChoice, Price
from infra.llm_http.body import ToolMode
from infra.settings import Env, SettingsError

_OTHERS = ("LLM_API_KEY", "LLM_MODEL", "LLM_FALLBACKS", "LLM_PRICES")
MAX_MODELS = 8


@dataclass(frozen=True)
class LlmSettings:
    """Endpoint, and its models: first the preferred one, then those to ask after it has failed.

    Times of one try, in seconds: `connect_s` to connect, `first_token_s` until a stream begins, `idle_s` without a byte
    of it, `timeout_s` altogether. `max_retries`: repeated tries for each model. `max_pause_s`: longest pause before a
    try; an endpoint that asks for more is busy. `backoff_s`: first pause where the endpoint asks for none.
    """

    base_url: str
    models: Sequence[ModelChoice]
    api_key: str = field(default="", repr=False)
    tool_mode: ToolMode = "native"
    timeout_s: float = 600.0
    first_token_s: float = 180.0
    idle_s: float = 60.0
    max_retries: int = 3
    connect_s: float = 10.0
    max_pause_s: float = 30.0
    backoff_s: float = 0.5

    @property
    def host(self) -> str:
        """Host and port of the endpoint."""
        return urlsplit(self.base_url).netloc

    @classmethod
    def from_env(cls, env: Env) -> "LlmSettings | None":
        """Read `LLM_BASE_URL LLM_API_KEY LLM_MODEL LLM_FALLBACKS LLM_PRICES LLM_TOOL_MODE LLM_MAX_RETRIES` and
        `LLM_TIMEOUT_S LLM_FIRST_TOKEN_S LLM_IDLE_S`. Returns None if there is no endpoint."""
        values = {
            "timeout_s": env.number("LLM_TIMEOUT_S", cls.timeout_s, low=0.1, high=3600.0),
            "first_token_s": env.number("LLM_FIRST_TOKEN_S", cls.first_token_s, low=0.1, high=3600.0),
            "idle_s": env.number("LLM_IDLE_S", cls.idle_s, low=0.1, high=3600.0),
        }
        retries = env.integer("LLM_MAX_RETRIES", cls.max_retries, low=0, high=10)
        mode = env.text("LLM_TOOL_MODE", cls.tool_mode)
        if mode not in get_args(ToolMode):
            raise SettingsError(f"LLM_TOOL_MODE must be {' or '.join(get_args(ToolMode))}, not '{mode}'")
        others = {name: env.optional(name) for name in _OTHERS}
        if env.optional("LLM_BASE_URL") is None:
            if given := [name for name, value in others.items() if value]:
                raise SettingsError(f"{given[0]} is set, but LLM_BASE_URL is not")
            return None
        return cls(
            base_url=_base_url(env),
            models=_models(env.text("LLM_MODEL"), others["LLM_FALLBACKS"] or "", others["LLM_PRICES"]),
            api_key=_api_key(others["LLM_API_KEY"] or ""),
            tool_mode=cast("ToolMode", mode),
            max_retries=retries,
            **values,
        )


def _base_url(env: Env) -> str:
    url = env.url("LLM_BASE_URL", "https", "http")
    parts = urlsplit(url)
    if parts.username is not None or parts.query or parts.fragment:
        raise SettingsError(
            "LLM_BASE_URL must have no credentials, query or fragment; the key belongs into LLM_API_KEY"
        )
    if not url.isascii() or any(char.isspace() for char in url) or not _has_valid_host(url):
        raise SettingsError("LLM_BASE_URL is not a URL")
    if parts.path.endswith("/chat/completions"):
        raise SettingsError("LLM_BASE_URL must end before /chat/completions, which is appended")
    return url


def _has_valid_host(url: str) -> bool:
    try:
        parts = urlsplit(url)
        resolvable = bool((parts.hostname or "").encode("idna"))  # fails for a label that no resolver takes
        usable = resolvable and parts.port != 0
    except ValueError:
        return False
    else:
        return usable


def _api_key(key: str) -> str:
    # Other characters would fail at each request, in an error of the HTTP library that shows the key.
    if not all("!" <= char <= "~" for char in key):
        raise SettingsError("LLM_API_KEY must consist of visible ASCII characters")
    return key


def _models(model: str, fallbacks: str, prices_text: str | None) -> Sequence[ModelChoice]:
    names = [model, *(name for part in fallbacks.split(",") if (name := part.strip()))]
    if len(set(names)) < len(names):
        raise SettingsError("LLM_FALLBACKS names a model twice, or LLM_MODEL again")
    if len(names) > MAX_MODELS:
        raise SettingsError(f"LLM_FALLBACKS may name at most {MAX_MODELS - 1} models")
    prices = _prices(prices_text)
    return [ModelChoice(name=name, price=prices.get(name)) for name in names]


def _prices(text: str | None) -> dict[str, Price]:
    if text is None:
        return {}
    try:
        prices = msgspec.json.decode(text, type=dict[str, Price])
    except (msgspec.DecodeError, RecursionError) as exc:
        example = '{"MODEL": {"currency": "CHF", "input": 0.5, "output": 1.5}}'
        raise SettingsError(f"LLM_PRICES must be JSON such as {example}: {exc}") from None
    if len({price.currency for price in prices.values()}) > 1:
        raise SettingsError("LLM_PRICES must have one currency, so that costs can be added")
    return prices
