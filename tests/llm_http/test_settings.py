"""Settings of language models."""

import pytest

from infra.contract.llm import ModelChoice, ModelUnavailable, Price, Usage
from infra.llm_http.model import LlmHttp
from infra.llm_http.settings import LlmSettings
from infra.settings import Env, SettingsError
from tests.llm_http.conftest import request

KEY = "sk-the-secret-of-the-tests"
VALID = {"LLM_BASE_URL": "https://models.test:8443/v1/", "LLM_MODEL": "a", "LLM_API_KEY": KEY}


def test_without_an_endpoint_there_is_no_model() -> None:
    assert LlmSettings.from_env(Env({})) is None


def test_models_have_their_prices_and_order() -> None:
    prices = '{"b": {"currency": "CHF", "input": 1, "output": 2}}'
    made = LlmSettings.from_env(Env({**VALID, "LLM_FALLBACKS": "b, c", "LLM_PRICES": prices}))
    assert made is not None
    assert made.models == [
        ModelChoice(name="a"),
        ModelChoice(name="b", price=Price(currency="CHF", input=1, output=2)),
        ModelChoice(name="c"),
    ]
    assert (made.base_url, made.host, made.api_key) == ("https://models.test:8443/v1", "models.test:8443", KEY)
    assert KEY not in repr(made)


@pytest.mark.parametrize(
    "changes",
    [
        {"LLM_BASE_URL": ""},
        {"LLM_BASE_URL": "models.test"},
        {"LLM_BASE_URL": "https://user:pass@models.test"},
        {"LLM_BASE_URL": "https://models.test/v1?key=1"},
        {"LLM_BASE_URL": "https://models.test/v1#x"},
        {"LLM_BASE_URL": "https://models.test/v1/chat/completions"},
        {"LLM_BASE_URL": "https://models.test:99999"},
        {"LLM_BASE_URL": "https://:443"},
        {"LLM_BASE_URL": f"https://{'a' * 64}.test"},
        {"LLM_BASE_URL": "https://mod els.test"},
        {"LLM_MODEL": ""},
        {"LLM_API_KEY": f"{KEY}\n{KEY}"},
        {"LLM_API_KEY": f"{KEY}ä"},
        {"LLM_FALLBACKS": "b,a"},
        {"LLM_FALLBACKS": "b,c,d,e,f,g,h,i"},
        {"LLM_TOOL_MODE": "xml"},
        {"LLM_PRICES": "{"},
        {"LLM_PRICES": '{"a": {"currency": "EUR", "input": 1, "output": 1}}'},
        {"LLM_PRICES": '{"a": {"currency": "CHF", "input": -1, "output": 1}}'},
        {"LLM_PRICES": '{"a": {"currency": "CHF", "input": 1, "output": 1, "x": 1}}'},
        {
            "LLM_PRICES": '{"a": {"currency": "CHF", "input": 1, "output": 1},'
            ' "b": {"currency": "USD", "input": 1, "output": 1}}'
        },
        {"LLM_TIMEOUT_S": "0"},
        {"LLM_FIRST_TOKEN_S": "x"},
        {"LLM_IDLE_S": "1e9"},
        {"LLM_MAX_RETRIES": "11"},
    ],
)
def test_an_invalid_setting_is_named_without_the_key(changes: dict[str, str]) -> None:
    with pytest.raises(SettingsError) as caught:
        LlmSettings.from_env(Env({**VALID, **changes}))
    message = str(caught.value)
    assert "LLM_" in message
    assert "\n" not in message
    assert KEY not in message


@pytest.mark.parametrize(
    ("tokens", "cost"),
    [((0, 0, 0), 0), ((1, 0, 0), 1), ((10, 0, 0), 3), ((10, 0, 10), 1), ((0, 3, 0), 4), ((1_000_000, 0, 0), 300_000)],
)
def test_costs_are_rounded_up_to_a_millionth(tokens: tuple[int, int, int], cost: int) -> None:
    choice = ModelChoice(name="a", price=Price(currency="CHF", input=0.3, output=1.1, cached=0.1))
    given, written, cached = tokens
    assert choice.cost_micros(input_tokens=given, output_tokens=written, cached_tokens=cached) == cost


def test_usage_is_added_and_an_unknown_cost_stays_unknown() -> None:
    known = Usage(input=1, output=2, cached=1, reasoning=1, cost_micros=5)
    assert known + known == Usage(input=2, output=4, cached=2, reasoning=2, cost_micros=10)
    assert (known + Usage(cost_micros=None, estimated=True)).cost_micros is None


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"HTTPS_PROXY": "http://ada:secret@host:port"}, "HTTPS_PROXY"),
        ({"ALL_PROXY": "socks5://127.0.0.1:1"}, "ALL_PROXY"),
        ({"SSL_CERT_FILE": "/nowhere/secret"}, "SSL_CERT_FILE"),
    ],
)
def test_a_proxy_or_certificates_that_cannot_be_used_are_named(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], named: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=named) as caught:
        LlmHttp(LlmSettings(base_url="https://models.test/v1", models=()))
    assert "secret" not in str(caught.value)


async def test_only_the_proxy_of_the_endpoint_matters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "fd00::/8,[::1,localhost")
    monkeypatch.setenv("FTP_PROXY", "junk:x")
    monkeypatch.setenv("HTTP_PROXY", "127.0.0.1:1")
    model = LlmHttp(LlmSettings(base_url="http://models.test/v1", models=(), max_retries=0))
    with pytest.raises(ModelUnavailable, match="through HTTP_PROXY"):
        await model.ask(request())
    await model.close()
