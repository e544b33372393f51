"""Specifications of the stack's processes, compared with literals."""

import hashlib
import json
import signal
import sys
from pathlib import Path

from infra.devstack import processes, s3_server
from infra.devstack.config import StackConfig
from infra.devstack.credentials import Credentials
from infra.devstack.data_dir import DataDir
from infra.devstack.port_numbers import Ports
from infra.gateway.acl import ACL_RULES

CREDENTIALS = Credentials(
    redis_password="redis-secret",
    rest_token="rest-secret",
    s3_access_key="s3-access",
    s3_secret_key="s3-secret",
    api_token="api-secret",
    stream_token_key="stream-secret",
    webhook_key="webhook-secret",
    qstash_token="qstash-secret",
    qstash_current_signing_key="current-secret",
    qstash_next_signing_key="next-secret",
)
PORTS = Ports(redis=1, gateway=2, api=3, s3=s3_server.S3Ports(*range(11, 21)), qstash=4)
CONFIG = StackConfig(DataDir(Path("/data")), PORTS, CREDENTIALS)
BASE = {"PATH": "/bin"}
S3 = {
    "S3_ENDPOINT_URL": "http://127.0.0.1:17",
    "S3_BUCKET": "swissbrain-workspaces",
    "S3_REGION": "us-east-1",
    "S3_ACCESS_KEY": "s3-access",
    "S3_SECRET_KEY": "s3-secret",
}
QSTASH = {
    "QSTASH_TOKEN": "qstash-secret",
    "QSTASH_CURRENT_SIGNING_KEY": "current-secret",
    "QSTASH_NEXT_SIGNING_KEY": "next-secret",
}


def test_the_specification_of_redis() -> None:
    spec = processes.redis(CONFIG, BASE, Path("/bin/valkey-server"))
    assert spec.command == ("/bin/valkey-server", "./valkey.conf")
    assert spec.folder == Path("/data/redis")
    assert processes.redis_config(CONFIG).splitlines() == [
        "bind 127.0.0.1",
        "port 1",
        "requirepass redis-secret",
        f"user gateway on >redis-secret {ACL_RULES}",
        "dir ./",
        "appendonly yes",
        "appendfsync everysec",
        'save ""',
        "maxmemory 1gb",
        "maxmemory-policy noeviction",
        "client-output-buffer-limit normal 128mb 0 0",
        "maxmemory-clients 256mb",
    ]


def test_the_specification_of_the_s3_server() -> None:
    spec = processes.s3(CONFIG, {**BASE, "WEED_X": "x"}, Path("/bin/weed"))
    assert spec.command == tuple(
        s3_server.command(Path("/data/s3"), PORTS.s3, Path("/data/s3.json"), binary="/bin/weed")
    )
    assert spec.environment == {**BASE, **s3_server.ENVIRONMENT}
    assert spec.stop_signal is signal.SIGKILL


def test_the_specification_of_the_gateway() -> None:
    spec = processes.gateway(CONFIG, BASE)
    assert spec.command == (sys.executable, "-P", "-m", "infra.gateway")
    assert spec.environment == {
        **BASE,
        "GATEWAY_REDIS_URL": "redis://gateway:redis-secret@127.0.0.1:1/0",
        "GATEWAY_TOKEN": "rest-secret",
        "GATEWAY_HOST": "127.0.0.1",
        "GATEWAY_PORT": "2",
    }


def test_the_specification_of_the_stand_in_of_qstash() -> None:
    spec = processes.qstash(CONFIG, BASE)
    assert spec.command == (sys.executable, "-P", "-m", "infra.qstash_local")
    assert spec.environment == {
        **BASE,
        **QSTASH,
        "QSTASH_LOCAL_REDIS_URL": "redis://:redis-secret@127.0.0.1:1/0",
        "QSTASH_LOCAL_HOST": "127.0.0.1",
        "QSTASH_LOCAL_PORT": "4",
    }


def test_the_specification_of_the_api() -> None:
    spec = processes.api(CONFIG, BASE)
    keys = json.loads(spec.environment["SWISSBRAIN_API_KEYS"])
    assert spec.command == (sys.executable, "-P", "-m", "edge_api")
    assert spec.environment == {
        **BASE,
        **S3,
        **QSTASH,
        "EDGE_CORS_ORIGINS": "*",
        "EDGE_HOST": "127.0.0.1",
        "EDGE_PORT": "3",
        "EDGE_PUBLIC_URL": "http://127.0.0.1:3",
        "EDGE_STREAM_TOKEN_KEY": "stream-secret",
        "EDGE_WEBHOOK_KEY": "webhook-secret",
        "QSTASH_URL": "http://127.0.0.1:4",
        "SWISSBRAIN_API_KEYS": spec.environment["SWISSBRAIN_API_KEYS"],
        "UPSTASH_REDIS_REST_URL": "http://127.0.0.1:2",
        "UPSTASH_REDIS_REST_TOKEN": "rest-secret",
    }
    assert keys == [
        {
            "user": "dev",
            "scopes": ["runs:read", "runs:write", "runs:approve"],
            "sha256": hashlib.sha256(b"api-secret").hexdigest(),
        }
    ]


def test_the_cors_origins_of_the_api_and_of_the_s3_server_can_be_set() -> None:
    for origins in ("http://localhost:5173", ""):
        spec = processes.api(CONFIG, {**BASE, "EDGE_CORS_ORIGINS": origins})
        assert spec.environment["EDGE_CORS_ORIGINS"] == origins
        s3 = processes.s3(CONFIG, {**BASE, "EDGE_CORS_ORIGINS": origins}, Path("/bin/weed"))
        assert f"-s3.allowedOrigins={origins}" in s3.command


def test_the_specification_of_a_worker() -> None:
    spec = processes.worker(CONFIG, BASE, 2)
    assert spec.name == "worker-2"
    assert spec.command == (sys.executable, "-P", "-m", "worker")
    assert spec.environment == {
        **BASE,
        **S3,
        "EDGE_PUBLIC_URL": "http://127.0.0.1:3",
        "QSTASH_TOKEN": "qstash-secret",
        "QSTASH_URL": "http://127.0.0.1:4",
        "REDIS_URL": "redis://:redis-secret@127.0.0.1:1/0",
        "WORKER_NAME": "worker-2",
        "WORKER_ROOT": "/data/work/worker-2",
        "WORKER_GRACE_S": "5",
        "WORKER_LOG_WINDOW_MS": "10",
    }
    assert processes.worker(CONFIG, BASE, 1, unsafe=True).command[-1] == "--unsafe-no-sandbox"


def test_secrets_are_neither_on_a_command_line_nor_in_a_repr() -> None:
    made = [
        processes.redis(CONFIG, BASE, Path("valkey")),
        processes.s3(CONFIG, BASE, Path("weed")),
        processes.gateway(CONFIG, BASE),
        processes.qstash(CONFIG, BASE),
        processes.api(CONFIG, BASE),
        processes.worker(CONFIG, BASE, 1),
    ]
    assert "secret" not in repr(made)


def test_inherited_variables_cannot_redirect_a_process() -> None:
    inherited = {
        "PATH": "/bin",
        "AWS_PROFILE": "x",
        "SWISSBRAIN_API_KEYS_FILE": "x",
        "EDGE_STREAM_TOKEN_KEY_FILE": "x",
        "EDGE_WEBHOOK_KEY_FILE": "x",
        "no_proxy": "a",
        "HTTP_PROXY": "p",
    }
    assert processes.base_environment(inherited) == {
        "PATH": "/bin",
        "HTTP_PROXY": "p",
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "a,127.0.0.1",
    }


def test_dev_env_contains_every_address() -> None:
    assert CONFIG.variables == {
        "SWISSBRAIN_API_URL": "http://127.0.0.1:3",
        "SWISSBRAIN_TOKEN": "api-secret",
        "UPSTASH_REDIS_REST_URL": "http://127.0.0.1:2",
        "UPSTASH_REDIS_REST_TOKEN": "rest-secret",
        "REDIS_URL": "redis://:redis-secret@127.0.0.1:1/0",
        "EDGE_PUBLIC_URL": "http://127.0.0.1:3",
        "QSTASH_URL": "http://127.0.0.1:4",
        "QSTASH_TOKEN": "qstash-secret",
        "QSTASH_CURRENT_SIGNING_KEY": "current-secret",
        "QSTASH_NEXT_SIGNING_KEY": "next-secret",
        **S3,
    }
