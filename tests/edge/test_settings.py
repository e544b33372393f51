"""Settings: the variables that are read, and the error messages for bad ones."""

from pathlib import Path

import pytest

from edge_api.settings import EdgeSettings
from infra.settings import Env, QStashAccess, SettingsError
from tests.edge.api_process import ENV

ADA = '{"user": "ada", "scopes": ["runs:read"], "sha256": "%s"}' % ("0" * 64)


def read(**changes: str) -> EdgeSettings:
    return EdgeSettings.from_env(Env({**ENV, **changes}))


def test_unset_variables_have_their_defaults() -> None:
    settings = read()
    assert settings.store.retention_s == 30 * 24 * 3600
    assert settings.store.keys.prefix == ""
    assert settings.api.log_mode == "stream"
    assert (settings.api.stream_ping_s, settings.api.stream_hold_s) == (15.0, 3600.0)
    assert (settings.api.max_body_bytes, settings.api.presign_expiry_s) == (1024 * 1024, 300)


def test_set_variables_are_read() -> None:
    settings = read(RETENTION_DAYS="7", REDIS_KEY_PREFIX="{sb}:", EDGE_STREAM_HOLD_S="90", EDGE_STREAM_PING_S="5")
    assert (settings.store.retention_s, settings.store.keys.prefix) == (7 * 24 * 3600, "{sb}:")
    assert (settings.api.stream_hold_s, settings.api.stream_ping_s) == (90.0, 5.0)
    polled = read(EDGE_LOG_MODE="longpoll", EDGE_LONGPOLL_WAIT_S="10").api
    assert (polled.log_mode, polled.longpoll_wait_s) == ("longpoll", 10.0)


def test_secrets_are_not_shown() -> None:
    shown = repr(read())
    assert ENV["SWISSBRAIN_API_KEYS"][20:40] not in shown
    assert "sha256=" not in shown


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ("nonsense", "must hold a JSON list"),
        ("{}", "must hold a JSON list"),
        ("[]", "holds no key"),
        ('[{"user": "ada"}]', "must hold a JSON list"),
        (f"[{ADA}]".replace('"ada"', '"ada\\n"'), "must hold a JSON list"),
        (f"[{ADA}]".replace("0" * 64, "0" * 64 + "\\n"), "must hold a JSON list"),
        (f"[{ADA.replace('ada', '../ada')}]", "must hold a JSON list"),
        (f"[{ADA.replace('runs:read', 'runs:reed')}]", "the unknown scope 'runs:reed'"),
        (f"[{ADA.replace('0' * 64, 'plain-token')}]", "must hold a JSON list"),
        (f"[{ADA}, {ADA.replace('ada', 'bob')}]", "the same key twice"),
    ],
)
def test_bad_api_keys_are_rejected(keys: str, reason: str) -> None:
    with pytest.raises(SettingsError, match=reason) as caught:
        read(SWISSBRAIN_API_KEYS=keys)
    assert str(caught.value).startswith("SWISSBRAIN_API_KEYS ")
    assert "plain-token" not in str(caught.value)


def test_api_keys_are_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.write_text(f"[{ADA}]")
    assert [key.user for key in read(SWISSBRAIN_API_KEYS="", SWISSBRAIN_API_KEYS_FILE=str(path)).api_keys] == ["ada"]
    with pytest.raises(SettingsError, match="both set"):
        read(SWISSBRAIN_API_KEYS_FILE=str(path))
    with pytest.raises(SettingsError, match="names no readable file"):
        read(SWISSBRAIN_API_KEYS="", SWISSBRAIN_API_KEYS_FILE=str(tmp_path / "none"))


def test_cors_and_stream_tokens_are_off_by_default() -> None:
    for settings in (read(), read(EDGE_CORS_ORIGINS=" ", EDGE_STREAM_TOKEN_KEY="")):
        assert (settings.api.cors_origins, settings.api.stream_token_keys) == ((), ())


@pytest.mark.parametrize(
    ("given", "origins"),
    [
        ("*", ["*"]),
        ("https://app.example.ch", ["https://app.example.ch"]),
        ("http://localhost:5173, http://127.0.0.1:1 ", ["http://localhost:5173", "http://127.0.0.1:1"]),
        ("http://[::1]:3000,https://xn--bcher-kva.example", ["http://[::1]:3000", "https://xn--bcher-kva.example"]),
        ("http://a:443,https://a:80", ["http://a:443", "https://a:80"]),
    ],
)
def test_allowed_origins_are_read(given: str, origins: list[str]) -> None:
    assert [*read(EDGE_CORS_ORIGINS=given).api.cors_origins] == origins


@pytest.mark.parametrize(
    "bad",
    [
        "app.example.ch",
        "https://app.example.ch/",
        "https://app.example.ch/page",
        "https://App.example.ch",
        "https://app.example.ch:443",
        "http://app.example.ch:80",
        "https://*.example.ch",
        "https://ada@app.example.ch",
        "https://bücher.example",
        "ftp://app.example.ch",
        "null",
        "https://a.example\nhttps://b.example",
        "*",
        "",
    ],
)
def test_origins_that_no_browser_sends_are_rejected(bad: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read(EDGE_CORS_ORIGINS=f"https://good.example,{bad}")
    assert str(caught.value).startswith("EDGE_CORS_ORIGINS ")
    assert str(caught.value).endswith(f"{bad!r} is not one")
    assert "\n" not in str(caught.value)


def test_stream_token_keys_are_read(tmp_path: Path) -> None:
    new, old = "n" * 32, "o" * 40
    assert read(EDGE_STREAM_TOKEN_KEY=new).api.stream_token_keys == (new,)
    settings = read(EDGE_STREAM_TOKEN_KEY=f"{new}, {old}")
    assert settings.api.stream_token_keys == (new, old)
    assert new not in repr(settings)
    path = tmp_path / "key"
    path.write_text(f"{new},{old}\n")
    assert read(EDGE_STREAM_TOKEN_KEY_FILE=str(path)).api.stream_token_keys == (new, old)
    with pytest.raises(SettingsError, match="both set"):
        read(EDGE_STREAM_TOKEN_KEY=new, EDGE_STREAM_TOKEN_KEY_FILE=str(path))
    with pytest.raises(SettingsError, match=r"^EDGE_STREAM_TOKEN_KEY_FILE names no readable file$"):
        read(EDGE_STREAM_TOKEN_KEY_FILE=str(tmp_path / "none"))
    path.write_text("\n")
    with pytest.raises(SettingsError, match=r"^EDGE_STREAM_TOKEN_KEY_FILE must hold keys of at least 32"):
        read(EDGE_STREAM_TOKEN_KEY_FILE=str(path))


@pytest.mark.parametrize(
    "bad", ["secret" * 5, f"{'k' * 32},", f"{'k' * 32},secret", "-----BEGIN PRIVATE KEY-----\nsecret"]
)
def test_bad_stream_token_keys_are_rejected(bad: str) -> None:
    with pytest.raises(SettingsError, match=r"^EDGE_STREAM_TOKEN_KEY must hold keys of at least 32") as caught:
        read(EDGE_STREAM_TOKEN_KEY=bad)
    assert "secret" not in str(caught.value)
    assert "kkk" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("https://s3.example:99999", "is not a URL"),
        ("https://s3.example:port", "is not a URL"),
        ("https://[::1", "is not a URL"),
        ("https://ada:password@s3.example", "must have no user"),
        ("https://s3.example?x=1", "must have no user, query"),
        ("https://s3.exa mple", "must have no user, query, fragment or white space"),
        ("https://s3.example/\u200b", "must have no user"),
        ("s3.example", "must be a URL that begins with http:// or https://"),
    ],
)
def test_a_bad_address_of_the_object_store_is_named_without_its_content(url: str, reason: str) -> None:
    with pytest.raises(SettingsError, match=reason) as caught:
        read(S3_ENDPOINT_URL=url)
    assert str(caught.value).startswith("S3_ENDPOINT_URL ")
    assert "password" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("EDGE_PUBLIC_URL", "https://ada:password@api.example"),
        ("EDGE_PUBLIC_URL", "https://api.example/?x=1"),
        ("EDGE_PUBLIC_URL", "https://api.example/#password"),
        ("QSTASH_URL", "https://ada:password@qstash.example"),
        ("QSTASH_TOKEN", "tøken"),
        ("QSTASH_TOKEN", "a\npassword"),
    ],
)
def test_an_access_to_qstash_with_which_no_call_works_is_named(name: str, value: str) -> None:
    good = {"QSTASH_TOKEN": "token", "EDGE_PUBLIC_URL": "https://api.example"}
    with pytest.raises(SettingsError) as caught:
        QStashAccess.for_publishing(Env({**good, name: value}))
    assert str(caught.value).startswith(f"{name} must ")
    assert "password" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("UPSTASH_REDIS_REST_URL", "https://default:password@redis.example"),
        ("UPSTASH_REDIS_REST_URL", "https://redis.example?_token=password"),
        ("UPSTASH_REDIS_REST_URL", "https://redis.example https://password"),
        ("UPSTASH_REDIS_REST_TOKEN", "tøken"),
        ("UPSTASH_REDIS_REST_TOKEN", "a\npassword"),
    ],
)
def test_an_access_to_redis_with_which_no_call_works_is_named(name: str, value: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read(**{name: value})
    assert str(caught.value).startswith(f"{name} must ")
    assert "password" not in str(caught.value)
