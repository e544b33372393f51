"""Settings: what is read, and the line that says what is wrong."""

from pathlib import Path

import pytest

from edge_api.settings import EdgeSettings
from infra.settings import Env, SettingsError
from tests.edge.test_process import ENV

ADA = '{"user": "ada", "scopes": ["runs:read"], "sha256": "%s"}' % ("0" * 64)


def read(**changes: str) -> EdgeSettings:
    return EdgeSettings.from_env(Env({**ENV, **changes}))


def test_the_defaults() -> None:
    settings = read()
    assert settings.store.retention_s == 30 * 24 * 3600
    assert settings.store.keys.prefix == ""
    assert settings.api.log_mode == "stream"
    assert (settings.api.stream_ping_s, settings.api.stream_hold_s) == (15.0, 3600.0)
    assert (settings.api.max_body_bytes, settings.api.presign_expiry_s) == (1024 * 1024, 300)


def test_what_is_set_is_read() -> None:
    settings = read(RETENTION_DAYS="7", REDIS_KEY_PREFIX="{sb}:", EDGE_STREAM_HOLD_S="90", EDGE_STREAM_PING_S="5")
    assert (settings.store.retention_s, settings.store.keys.prefix) == (7 * 24 * 3600, "{sb}:")
    assert (settings.api.stream_hold_s, settings.api.stream_ping_s) == (90.0, 5.0)


def test_secrets_are_not_shown() -> None:
    shown = repr(read())
    assert ENV["SWISSBRAIN_API_KEYS"][20:40] not in shown
    assert "sha256" not in shown


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ("nonsense", "must hold a JSON list"),
        ("{}", "must hold a JSON list"),
        ("[]", "holds no key"),
        ('[{"user": "ada"}]', "must hold a JSON list"),
        (f"[{ADA.replace('ada', '../ada')}]", "must hold a JSON list"),
        (f"[{ADA.replace('runs:read', 'runs:reed')}]", "the unknown scope 'runs:reed'"),
        (f"[{ADA.replace('0' * 64, 'plain-token')}]", "must hold a JSON list"),
        (f"[{ADA}, {ADA.replace('ada', 'bob')}]", "the same key twice"),
    ],
)
def test_bad_api_keys(keys: str, reason: str) -> None:
    with pytest.raises(SettingsError, match=reason) as caught:
        read(SWISSBRAIN_API_KEYS=keys)
    assert str(caught.value).startswith("SWISSBRAIN_API_KEYS ")
    assert "plain-token" not in str(caught.value)


def test_api_keys_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.write_text(f"[{ADA}]")
    assert [key.user for key in read(SWISSBRAIN_API_KEYS="", SWISSBRAIN_API_KEYS_FILE=str(path)).api_keys] == ["ada"]
    with pytest.raises(SettingsError, match="both set"):
        read(SWISSBRAIN_API_KEYS_FILE=str(path))
    with pytest.raises(SettingsError, match="names no readable file"):
        read(SWISSBRAIN_API_KEYS="", SWISSBRAIN_API_KEYS_FILE=str(tmp_path / "none"))
