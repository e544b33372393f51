"""What each part is started with, against literals."""

import hashlib
import json
import signal
import sys
from pathlib import Path

from infra.devstack import processes as parts
from infra.devstack import s3_server
from infra.devstack.config import Site
from infra.devstack.credentials import Credentials
from infra.devstack.data_dir import Layout
from infra.devstack.port_numbers import Ports
from infra.gateway.acl import ACL_RULES

CREDENTIALS = Credentials(
    redis_password="redis-secret",
    rest_token="rest-secret",
    s3_access_key="s3-access",
    s3_secret_key="s3-secret",
    api_token="api-secret",
    stream_token_key="stream-secret",
)
PORTS = Ports(redis=1, gateway=2, api=3, s3=s3_server.Ports(11, 12, 13, 14, 15, 16, 17, 18))
SITE = Site(Layout(Path("/data")), PORTS, CREDENTIALS)
BASE = {"PATH": "/bin"}
S3 = {
    "S3_ENDPOINT_URL": "http://127.0.0.1:17",
    "S3_BUCKET": "swissbrain-workspaces",
    "S3_REGION": "us-east-1",
    "S3_ACCESS_KEY": "s3-access",
    "S3_SECRET_KEY": "s3-secret",
}


def test_redis() -> None:
    part = parts.redis(SITE, BASE, Path("/bin/valkey-server"))
    assert part.command == ("/bin/valkey-server", "./valkey.conf")
    assert part.folder == Path("/data/redis")
    assert parts.redis_config(SITE).splitlines() == [
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
    ]


def test_s3() -> None:
    part = parts.s3(SITE, {**BASE, "WEED_X": "x"}, Path("/bin/weed"))
    assert part.command == tuple(
        s3_server.command(Path("/data/s3"), PORTS.s3, Path("/data/s3.json"), binary="/bin/weed")
    )
    assert part.environment == {**BASE, **s3_server.ENVIRONMENT}
    assert part.stop_signal is signal.SIGKILL


def test_gateway() -> None:
    part = parts.gateway(SITE, BASE)
    assert part.command == (sys.executable, "-P", "-m", "infra.gateway")
    assert part.environment == {
        **BASE,
        "GATEWAY_REDIS_URL": "redis://gateway:redis-secret@127.0.0.1:1/0",
        "GATEWAY_TOKEN": "rest-secret",
        "GATEWAY_HOST": "127.0.0.1",
        "GATEWAY_PORT": "2",
    }


def test_api() -> None:
    part = parts.api(SITE, BASE)
    keys = json.loads(part.environment["SWISSBRAIN_API_KEYS"])
    assert part.command == (sys.executable, "-P", "-m", "edge_api")
    assert part.environment == {
        **BASE,
        **S3,
        "EDGE_CORS_ORIGINS": "*",
        "EDGE_HOST": "127.0.0.1",
        "EDGE_PORT": "3",
        "EDGE_STREAM_TOKEN_KEY": "stream-secret",
        "SWISSBRAIN_API_KEYS": part.environment["SWISSBRAIN_API_KEYS"],
        "UPSTASH_REDIS_REST_URL": "http://127.0.0.1:2",
        "UPSTASH_REDIS_REST_TOKEN": "rest-secret",
    }
    assert keys == [
        {
            "user": "dev",
            "scopes": ["runs:read", "runs:write"],
            "sha256": hashlib.sha256(b"api-secret").hexdigest(),
        }
    ]


def test_which_pages_may_call_can_be_said() -> None:
    for origins in ("http://localhost:5173", ""):
        part = parts.api(SITE, {**BASE, "EDGE_CORS_ORIGINS": origins})
        assert part.environment["EDGE_CORS_ORIGINS"] == origins


def test_worker() -> None:
    part = parts.worker(SITE, BASE, 2)
    assert part.name == "worker-2"
    assert part.command == (sys.executable, "-P", "-m", "worker")
    assert part.environment == {
        **BASE,
        **S3,
        "REDIS_URL": "redis://:redis-secret@127.0.0.1:1/0",
        "WORKER_NAME": "worker-2",
        "WORKER_ROOT": "/data/work/worker-2",
        "WORKER_GRACE_S": "5",
    }
    assert parts.worker(SITE, BASE, 1, unsafe=True).command[-1] == "--unsafe-no-sandbox"


def test_no_secret_stands_on_a_command_line_or_in_a_representation() -> None:
    made = [
        parts.redis(SITE, BASE, Path("valkey")),
        parts.s3(SITE, BASE, Path("weed")),
        parts.gateway(SITE, BASE),
        parts.api(SITE, BASE),
        parts.worker(SITE, BASE, 1),
    ]
    assert "secret" not in repr(made)


def test_what_is_inherited_cannot_point_a_part_elsewhere() -> None:
    inherited = {
        "PATH": "/bin",
        "AWS_PROFILE": "x",
        "SWISSBRAIN_API_KEYS_FILE": "x",
        "EDGE_STREAM_TOKEN_KEY_FILE": "x",
        "no_proxy": "a",
        "HTTP_PROXY": "p",
    }
    assert parts.base_environment(inherited) == {
        "PATH": "/bin",
        "HTTP_PROXY": "p",
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "a,127.0.0.1",
    }


def test_dev_env_names_every_address() -> None:
    assert SITE.variables == {
        "SWISSBRAIN_API_URL": "http://127.0.0.1:3",
        "SWISSBRAIN_TOKEN": "api-secret",
        "UPSTASH_REDIS_REST_URL": "http://127.0.0.1:2",
        "UPSTASH_REDIS_REST_TOKEN": "rest-secret",
        "REDIS_URL": "redis://:redis-secret@127.0.0.1:1/0",
        **S3,
    }
