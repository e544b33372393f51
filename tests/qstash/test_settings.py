"""Settings of the stand-in: an error is one line that names the variable."""

import os
import subprocess
import sys

import pytest

from infra.qstash_local.settings import QStashLocalSettings
from infra.settings import Env, SettingsError

VALID = {
    "QSTASH_LOCAL_REDIS_URL": "redis://:secret@127.0.0.1",
    "QSTASH_TOKEN": "t" * 16,
    "QSTASH_CURRENT_SIGNING_KEY": "c" * 32,
    "QSTASH_NEXT_SIGNING_KEY": "n" * 32,
}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"QSTASH_LOCAL_REDIS_URL": ""}, "QSTASH_LOCAL_REDIS_URL is not set"),
        ({"QSTASH_TOKEN": "short"}, "QSTASH_TOKEN must have at least 16 characters"),
        ({"QSTASH_CURRENT_SIGNING_KEY": "c" * 31}, "QSTASH_CURRENT_SIGNING_KEY must have at least 32 characters"),
        ({"QSTASH_NEXT_SIGNING_KEY": "c" * 32}, "QSTASH_NEXT_SIGNING_KEY must differ"),
        ({"QSTASH_LOCAL_CONCURRENCY": "0"}, "QSTASH_LOCAL_CONCURRENCY must be between 1 and 1000"),
        ({"QSTASH_LOCAL_TIME_SCALE": "2"}, "QSTASH_LOCAL_TIME_SCALE must be between 0.0 and 1.0"),
    ],
)
def test_a_bad_setting_is_named(changes: dict[str, str], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        QStashLocalSettings.from_env(Env({**VALID, **changes}))


def test_secrets_are_not_in_the_repr() -> None:
    shown = repr(QStashLocalSettings.from_env(Env(VALID)))
    assert not any(secret in shown for secret in ("secret", "t" * 16, "c" * 32, "n" * 32))


def test_a_missing_setting_ends_the_process_with_one_line() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("QSTASH_")}
    ended = subprocess.run(
        [sys.executable, "-m", "infra.qstash_local"], env=environment, capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stderr) == (2, "QSTASH_LOCAL_REDIS_URL is not set\n")
