"""S3 server of the development stack."""

import os
from contextlib import suppress
from pathlib import Path

from infra.contract.files import FileEntry
from infra.devstack import s3_server as weed
from infra.workspace import Workspaces
from tests.support.s3 import s3_server

LOOPBACK, LISTEN = "0100007F", "0A"


def listening(child_of: int) -> set[str]:
    """Return the addresses (hexadecimal, without port) on which the process's children listen."""
    sockets: set[str] = set()
    for child in Path(f"/proc/{child_of}/task/{child_of}/children").read_text().split():
        for descriptor in Path(f"/proc/{child}/fd").iterdir():
            with suppress(FileNotFoundError):  # closed in the meantime
                sockets.add(str(descriptor.readlink()))
    rows = [line.split() for table in ("tcp", "tcp6") for line in Path("/proc/net", table).read_text().splitlines()[1:]]
    return {row[1].rsplit(":", 1)[0] for row in rows if row[3] == LISTEN and f"socket:[{row[9]}]" in sockets}


async def test_stored_files_survive_a_kill_and_the_server_listens_on_loopback_only(tmp_path: Path) -> None:
    endpoints = set()
    entries: dict[str, FileEntry] = {}
    for start in range(2):
        with s3_server(tmp_path) as settings:
            endpoints.add(settings.endpoint_url)
            assert listening(os.getpid()) == {LOOPBACK}
            workspaces = Workspaces(settings)
            files = workspaces.run("u", "r", 1, entries)
            if start == 0:
                await workspaces.ensure_bucket()
                for n in range(50):
                    await files.write(f"{n}", os.urandom(1000 * n))
                entries = {path: entry for path, entry in files.take_uncommitted().items() if entry}
            else:
                assert len(await files.list()) == 50
                assert [len(await files.read(f"{n}")) for n in range(50)] == [1000 * n for n in range(50)]
            workspaces.close()
    assert len(endpoints) == 2


def test_the_configuration_is_closed_to_other_users(tmp_path: Path) -> None:
    config = tmp_path / "conf" / "s3.json"
    weed.write_config(config, "access", "secret")
    assert config.stat().st_mode & 0o777 == 0o600
    assert "secret" in config.read_text()


def test_the_environment_of_the_server_contains_no_other_identity() -> None:
    made = weed.environment({"AWS_ACCESS_KEY_ID": "x", "WEED_S3": "x", "PATH": "/bin"})
    assert made == {"PATH": "/bin", **weed.ENVIRONMENT}


def test_the_command_line_contains_no_secret(tmp_path: Path) -> None:
    ports = weed.S3Ports(1, 2, 3, 4, 5, 6, 7, 8, 9, 10_009)
    made = weed.command(tmp_path, ports, tmp_path / "s3.json", binary="weed")
    assert made[:3] == ["weed", "-logtostderr=true", "mini"]
    assert {"-ip.bind=127.0.0.1", "-master.telemetry=false", "-master.peers=none", "-disableHttp=true"} <= set(made)
    given = {flag.split("=")[0]: flag.split("=")[1] for flag in made if "port" in flag}
    assert sorted(given.values()) == ["0", "0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]
    assert "access" not in " ".join(made)
