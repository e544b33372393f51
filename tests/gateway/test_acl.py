"""ACL rules that the documentation recommends: scripts are held to the policy, and everything that is served works."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from infra.contract import redis_store
from infra.gateway.acl import ACL_RULES, CLIENT_LIMITS
from infra.gateway.errors import CommandRejected
from infra.gateway.policy import check
from tests.gateway.support import Served, Subscriber, Valkey, serve
from tests.support.waiting import wait_until

SCRIPTS = Path(redis_store.__file__).parent / "scripts"
ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs" / "gateway.md"
CONFIGURATIONS = [
    DOCS,
    *(ROOT / name for name in ("k8s/components/valkey/valkey.yaml", "k8s/helm/swissbrain/templates/valkey.yaml")),
    ROOT / "deploy" / "vm" / "valkey.conf",
]
USER = f"user gateway on >secret {ACL_RULES}"


@pytest.fixture(scope="module")
def guarded_valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    folder = tmp_path_factory.mktemp("acl")
    (folder / "users.acl").write_text(f"{USER}\nuser default on nopass ~* &* +@all\n")
    valkey = Valkey(folder, "--aclfile", str(folder / "users.acl")).start()
    yield valkey
    valkey.kill()


@pytest.fixture(scope="module")
def guarded(guarded_valkey: Valkey) -> Iterator[Served]:
    with serve(f"redis://gateway:secret@127.0.0.1:{guarded_valkey.port}") as served:
        yield served


@pytest.fixture
def guarded_http(guarded: Served) -> Iterator[httpx.Client]:
    with guarded.client() as client:
        yield client


def test_the_documentation_recommends_these_rules() -> None:
    assert ACL_RULES in " ".join(DOCS.read_text().split())


@pytest.mark.parametrize("path", CONFIGURATIONS, ids=lambda path: path.name)
def test_every_valkey_of_this_repository_bounds_what_it_holds_for_clients(path: Path) -> None:
    lines = [line.strip() for line in path.read_text().splitlines()]
    assert set(CLIENT_LIMITS) <= set(lines)


def test_one_request_cannot_ask_redis_for_more_memory_than_the_limits(tmp_path: Path) -> None:
    options = [f"--{line}".split() for line in CLIENT_LIMITS]
    valkey = Valkey(tmp_path, *(word for option in options for word in option)).start()
    try:
        with serve(valkey.url) as served, served.client() as http, valkey.client() as client:
            value = "x" * 9_000_000
            http.post("/set/big", content=value)
            transaction = http.post("/multi-exec", json=[["GETRANGE", "big", "0", "-1"]] * 100)
            script = http.post("/", json=["EVAL", f"return {{{'ARGV[1],' * 100}}}", 0, value])
            for response in (transaction, script):
                assert response.status_code == 503
                assert "connection to Redis lost before the answer" in response.text
            assert http.get("/strlen/big").json() == {"result": 9_000_000}
            assert client.info("memory")["used_memory_peak"] < 300_000_000
    finally:
        valkey.kill()


def script(http: httpx.Client, *command: str) -> dict[str, Any]:
    body: dict[str, Any] = http.post("/", json=["EVAL", "return redis.call(unpack(ARGV))", 0, *command]).json()
    return body


@pytest.mark.parametrize(
    "line",
    ["SWAPDB 0 1", "MIGRATE 127.0.0.1 1 k 0 1", "SLOWLOG GET", "RESTORE-ASKING k 0 x", "CLUSTER RESET", "ACL LIST",
     "CONFIG GET requirepass", "DEBUG SLEEP 1", "REPLICAOF a 1", "SHUTDOWN NOSAVE", "BGSAVE", "LATENCY RESET",
     "CLIENT KILL TYPE normal", "MODULE LIST", "FAILOVER", "PFDEBUG GETREG k"],
)  # fmt: skip
def test_a_script_cannot_run_what_the_gateway_does_not_serve(guarded_http: httpx.Client, line: str) -> None:
    guarded_http.get("/set/k/v")
    reply = script(guarded_http, *line.split())
    assert "ACL" in reply["error"] or "not allowed from script" in reply["error"], reply
    assert guarded_http.get("/get/k").json() == {"result": "v"}


def test_the_rules_allow_every_command_that_is_served(guarded_valkey: Valkey) -> None:
    """Fails for a Valkey with a new dangerous command, until the policy or the rules name it."""
    with guarded_valkey.client(decode_responses=True) as client:
        rows = client.command()
        refused = []
        for name in [*rows, *(str(sub) for row in rows.values() for sub in row.get("subcommands", []) if sub)]:
            words = name.split("|")
            try:
                check([word.encode() for word in words])
            except CommandRejected:
                continue
            if "no permissions" in _dry_run(client, *words):
                refused.append(name)
    assert refused == []
    assert len(rows) > 240


def test_the_rules_allow_every_command_of_our_own_scripts(guarded_valkey: Valkey) -> None:
    called = {
        name
        for path in SCRIPTS.glob("*.lua")
        for name in re.findall(r"redis\.p?call\(\s*['\"](\w+)['\"]", path.read_text())
    }
    assert len(called) > 15
    with guarded_valkey.client(decode_responses=True) as client:
        for name in called:
            assert "no permissions" not in _dry_run(client, name), name


def _dry_run(client: Any, *words: str) -> str:
    """Return what Redis says about a command of the gateway's user."""
    try:
        return str(client.execute_command("ACL DRYRUN", "gateway", *words, *["1"] * 8))
    except redis.ResponseError as exc:
        return str(exc)


def test_the_gateway_works_with_these_rules(guarded: Served, guarded_http: httpx.Client) -> None:
    assert guarded_http.get("/_health").status_code == 200
    for line in ("SET k v", "XADD s * a b", "XREAD COUNT 1 STREAMS s 0", "SORT none", "INFO server", "KEYS *", "SCAN 0",
                 "SCRIPT LOAD x=1", "SCRIPT FLUSH", "CLIENT SETINFO LIB-NAME x", "COMMAND COUNT", "LASTSAVE",
                 "PUBSUB CHANNELS", "FUNCTION LIST", "OBJECT ENCODING k", "FLUSHDB", "FLUSHALL"):  # fmt: skip
        response = guarded_http.post("/", json=line.split(" "))
        assert response.status_code == 200, (line, response.text)
    assert guarded_http.post("/multi-exec", json=[["INCR", "n"], ["GET", "n"]]).json()[1] == {"result": "1"}
    with Subscriber(guarded, "/subscribe/c") as subscriber, Subscriber(guarded, "/monitor") as monitor:
        subscriber.expect(["subscribe,c,1"])
        wait_until(lambda: monitor.events, "the monitor has started")
        guarded_http.get("/publish/c/hello")
        subscriber.expect(["subscribe,c,1", "message,c,hello"])
    with guarded.client("readonly-token") as readonly:
        assert readonly.get("/get/n").json() == {"result": "1"}
