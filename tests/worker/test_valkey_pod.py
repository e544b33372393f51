"""Valkey of a cluster: who may do what, and runs that continue after a restore from a backup."""

import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis

from infra.contract.states import Status
from infra.settings import RedisTcpSettings, S3Settings
from infra.valkey_backup.__main__ import main
from infra.workspace import Workspaces
from tests.worker.autoscaler import COUNT
from tests.worker.rig import Rig
from tests.worker.valkey_pod import COUNTING_PASSWORD, PASSWORD, valkey_pod


def client(settings: RedisTcpSettings, user: str | None, password: str | None) -> "redis.Redis":
    port = urlsplit(settings.url).port
    return redis.Redis(port=port or 0, username=user, password=password, decode_responses=True)


def test_the_user_for_autoscaling_can_count_and_nothing_else(tmp_path: Path) -> None:
    with valkey_pod(tmp_path) as settings:
        with client(settings, None, None) as nobody, pytest.raises(redis.AuthenticationError):
            nobody.ping()
        with client(settings, "autoscaling", COUNTING_PASSWORD) as counting:
            assert counting.eval(COUNT, 1, "jobs:pending") == 0
            refused = [
                ("GET", "jobs:pending"),
                ("LLEN", "run:x"),
                ("EVAL", COUNT, 1, "run:x"),
                ("EVAL", "return redis.call('del', KEYS[1])", 1, "jobs:pending"),
                ("EVAL", "return redis.call('llen', 'run:x')", 0),
                ("SUBSCRIBE", "agent:control"),
                ("KEYS", "*"),
                ("CONFIG", "GET", "*"),
                ("FLUSHALL",),
            ]
            for command in refused:
                with pytest.raises(redis.ResponseError, match="permission"):
                    counting.execute_command(*command)


def test_a_password_that_would_change_the_configuration_is_refused(tmp_path: Path) -> None:
    with valkey_pod(tmp_path):
        pass
    environment = {"VALKEY_PASSWORD": "x\nuser evil on nopass", "AUTOSCALING_PASSWORD": "y", "VALKEY_MAXMEMORY": "1mb"}
    done = subprocess.run(["sh", tmp_path / "config" / "start.sh"], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)


async def test_runs_of_a_backup_continue_after_a_restore(
    tmp_path: Path,
    s3: S3Settings,
    workspaces: Workspaces,
    object_store: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with valkey_pod(tmp_path) as settings:
        rig = Rig(settings)
        queued = await rig.submit("x")
        monkeypatch.setenv("REDIS_URL", settings.url)
        assert main(["save", "--keep", "2"]) == 0
        later = await rig.submit("y")
        await rig.close()
    assert main(["restore", str(tmp_path / "data")]) == 0

    with valkey_pod(tmp_path) as settings:
        rig = Rig(settings)
        rig.worker()
        assert (await rig.ended(queued)).status is Status.SUCCEEDED
        assert await rig.redis.command("EXISTS", f"run:{later}") == 0
        await rig.close()
    # What was written after the restore is kept over a restart: the restored files are a complete append-only file.
    with valkey_pod(tmp_path) as settings:
        rig = Rig(settings)
        assert (await rig.store.get(queued)).status is Status.SUCCEEDED
        await rig.close()
    assert list((tmp_path / "data").glob("before-restore-*/appendonlydir"))
    assert capsys.readouterr().out.startswith("saved ")


def test_old_backups_are_deleted_and_a_damaged_one_is_not_restored(
    tmp_path: Path,
    s3: S3Settings,
    object_store: None,
    workspaces: Workspaces,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from infra.workspace.client import build_client

    with valkey_pod(tmp_path) as settings:
        monkeypatch.setenv("REDIS_URL", settings.url)
        for _ in range(3):
            assert main(["save", "--keep", "2"]) == 0
        assert main(["list"]) == 0
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line.endswith(" bytes")]
    assert len(names) == 2
    assert names == sorted(names, reverse=True)

    store = build_client(s3)
    store.put_object(
        Bucket=s3.bucket, Key=f"backups/valkey/{names[0]}.rdb", Body=b"REDIS0011 cut", Metadata={"sha256": "0"}
    )
    before = sorted(path.name for path in (tmp_path / "data").rglob("*"))
    assert main(["restore", str(tmp_path / "data")]) == 1
    assert main(["restore", str(tmp_path / "data"), "--name", "../users"]) == 1
    assert sorted(path.name for path in (tmp_path / "data").rglob("*")) == before
    assert main(["restore", str(tmp_path / "data"), "--name", names[1]]) == 0
    assert capsys.readouterr().err.splitlines() == [
        f"valkey_backup: backup {names[0]} is damaged: its SHA-256 is not the one that was stored with it",
        "valkey_backup: there is no backup named '../users'",
    ]


def test_a_wrong_setting_and_a_server_that_refuses_are_one_line(
    tmp_path: Path,
    s3: S3Settings,
    object_store: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("REDIS_URL", "unix:///run/redis.sock")
    assert main(["save"]) == 2
    assert main(["restore", str(tmp_path / "missing")]) == 2
    with valkey_pod(tmp_path) as settings:
        monkeypatch.setenv("REDIS_URL", settings.url.replace("password-of-the-tests", "wrong"))
        assert main(["save"]) == 1
        monkeypatch.setenv("REDIS_URL", settings.url.replace("default:password-of-the-tests@", ""))
        assert main(["save"]) == 1
    assert main(["save"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["valkey_backup"] * 5
    assert not any(PASSWORD in line or ":wrong" in line for line in lines)
    with pytest.raises(SystemExit) as refused:
        main(["save", "--keep", "0"])
    assert refused.value.code == 2
    assert "must be between 1 and 1000" in capsys.readouterr().err
    assert sys.modules["infra.valkey_backup.__main__"]
