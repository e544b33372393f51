"""Commands that no token may run, and commands that the read-only token may not run."""

from __future__ import annotations

import socket
from typing import IO, Any

import httpx
import pytest

from infra.gateway.errors import CommandRejected
from infra.gateway.policy import ReadOnlyPolicy, check
from infra.gateway.pool import Pool
from infra.gateway.settings import GatewaySettings
from tests.gateway.support import Valkey

BLOCKING = ["BLPOP l 0", "brpop l 0", "BLMOVE a b LEFT LEFT 0", "BRPOPLPUSH a b 0", "BZPOPMIN z 0", "BZPOPMAX z 0",
            "BLMPOP 0 1 l LEFT", "BZMPOP 0 1 z MIN", "WAIT 1 0", "WAITAOF 1 0 0"]  # fmt: skip
READS = ["XREAD BLOCK 0 STREAMS s $", "xread count 1 block 0 streams s $", "XREADGROUP GROUP g c BLOCK 0 STREAMS s >",
         "XREADGROUP COUNT 1 NOACK GROUP g c BLOCK 0 STREAMS s >", "XREAD NEWOPTION BLOCK 0 STREAMS s $",
         "XREAD " + "COUNT 1 " * 40 + "BLOCK 0 STREAMS s $"]  # fmt: skip
STATE = ["SUBSCRIBE c", "PSUBSCRIBE c", "SSUBSCRIBE c", "UNSUBSCRIBE", "MULTI", "EXEC", "DISCARD", "WATCH k", "UNWATCH",
         "SELECT 1", "AUTH x", "HELLO 3", "MONITOR", "QUIT", "RESET", "CLIENT REPLY OFF", "CLIENT", "CLIENT KILL x",
         "SCRIPT DEBUG YES", "READONLY"]  # fmt: skip
SERVER = ["SHUTDOWN NOSAVE", "DEBUG SLEEP 1", "CONFIG SET maxmemory 1", "config get requirepass", "REPLICAOF a 1",
          "SLAVEOF a 1", "MODULE LOAD x", "ACL LIST", "SAVE", "BGSAVE", "MIGRATE a 1 k 0 1", "SWAPDB 0 1", "SYNC",
          "FAILOVER", "CLUSTER RESET", "REPLCONF x", "PSYNC ? -1"]  # fmt: skip


@pytest.mark.parametrize("line", BLOCKING + READS + STATE + SERVER)
def test_commands_that_no_token_may_run_are_rejected(http: httpx.Client, line: str) -> None:
    response = http.post("/", json=line.split())
    assert response.status_code == 400
    name = line.split(maxsplit=1)[0].upper()
    assert response.json()["error"].startswith(f"ERR Command is not available: '{name}': ")


def test_the_policy_rejects_all_commands_that_redis_flags_as_blocking_or_admin(valkey: Valkey) -> None:
    """Fails for a Valkey with a new command of this kind, until the command is added to the policy."""
    with valkey.client() as client:
        rows = client.command()
    checked = 0
    for name, row in rows.items():
        if name in ("xread", "xreadgroup") or not {"blocking", "admin"} & {str(flag) for flag in row["flags"]}:
            continue
        with pytest.raises(CommandRejected):
            check([name.encode()])
        checked += 1
    assert checked > 20


@pytest.mark.parametrize(
    "line",
    ["XREAD COUNT 1 STREAMS BLOCK 0", "XREADGROUP GROUP BLOCK BLOCK STREAMS s >",
     "XREADGROUP GROUP g c STREAMS BLOCK >", "GET BLPOP", "CLIENT SETINFO LIB-NAME x",
     "SCRIPT EXISTS x", "FLUSHALL", "INFO", "XREAD", "EVAL return 0"],
)  # fmt: skip
def test_commands_that_resemble_rejected_ones_are_served(line: str) -> None:
    check(line.encode().split())


def test_the_read_only_token_may_read(readonly: httpx.Client, valkey: Valkey) -> None:
    with valkey.client() as client:
        client.set("k", "v")
        client.xadd("s", {"a": "b"})
    for path in ["/ping", "/get/k", "/mget/k/k", "/ttl/k", "/dbsize", "/xrange/s/-/+", "/xinfo/stream/s", "/xlen/s",
                 "/object/encoding/k", "/memory/usage/k", "/zrange/z/0/-1", "/type/k", "/exists/k"]:  # fmt: skip
        assert readonly.get(path).status_code == 200, path


@pytest.mark.parametrize(
    "line",
    ["SET k v", "DEL k", "GETEX k", "GETDEL k", "INCR k", "EVAL x 0", "EVALSHA x 0", "FCALL f 0", "PUBLISH c m",
     "KEYS *", "SCAN 0", "RANDOMKEY", "CLUSTERSCAN 0", "LOLWUT", "EVAL_RO x 0", "EVALSHA_RO x 0", "FCALL_RO f 0",
     "FLUSHALL", "SORT k", "SORT_RO k", "LCS a b", "GEORADIUS k 0 0 1 m", "BITFIELD k", "XINFO", "XGROUP CREATE s g $",
     "SCRIPT LOAD x", "XREADGROUP GROUP g c STREAMS s >", "NOSUCH k", "INFO", "GET|x k", "SUBSCRIBE c"],
)  # fmt: skip
def test_the_read_only_token_may_not_write(readonly: httpx.Client, line: str) -> None:
    response = readonly.post("/", json=line.split())
    assert response.status_code == 400
    name = line.split(maxsplit=1)[0].lower()
    if name == "subscribe":
        assert response.json()["error"].startswith("ERR Command is not available")
    else:
        expected = f"NOPERM this user has no permissions to run the '{name}' command or its subcommand"
        assert response.json() == {"error": expected}


@pytest.mark.parametrize(
    ("allowed", "rejected", "reason"),
    [(["SUNION", *["s"] * 127], ["SUNION", *["s"] * 128], "more than 128 words"),
     (["ZUNION", 126, *["z"] * 126], ["zdiff", 127, *["z"] * 127], "more than 128 words"),
     (["PFCOUNT", *["p"] * 9999], ["PFCOUNT", *["p"] * 10_000], "more than 10000 words"),
     (["MGET", *["k"] * 9999], ["MGET", *["k"] * 10_000], "more than 10000 words"),
     (["GEOPOS", "g", *["m"] * 9998], ["HMGET", "h", *["f"] * 10_000], "more than 10000 words"),
     (["SRANDMEMBER", "s", -1000], ["SRANDMEMBER", "s", -1001], "a count below -1000"),
     (["ZRANDMEMBER", "z", 1_000_000], ["ZRANDMEMBER", "z", -(1 << 62)], "a count below -1000"),
     (["HSCAN", "k" * 129, 0, "MATCH", "*" * 128], ["SSCAN", "s", 0, "MATCH", "*" * 129],
      "a pattern of more than 128 bytes")],
)  # fmt: skip
def test_a_read_of_the_read_only_token_is_bounded(
    http: httpx.Client, readonly: httpx.Client, allowed: list[object], rejected: list[object], reason: str
) -> None:
    """A single command could keep Redis busy for minutes, and nobody else would be served."""
    assert readonly.post("/", json=allowed).status_code == 200
    response = readonly.post("/", json=rejected)
    assert response.status_code == 400
    name = str(rejected[0]).lower()
    expected = f"NOPERM the read-only token may not run '{name}' with {reason}"
    assert response.json() == {"error": expected}
    assert readonly.post("/pipeline", json=[rejected]).json() == [{"error": expected}]
    assert http.post("/", json=rejected).status_code == 200


def rows_of_commands(valkey: Valkey) -> list[tuple[str, set[str], set[str], list[set[str]]]]:
    """Return the name, flags, categories and flags of the key specifications of every command and subcommand."""
    with socket.create_connection(("127.0.0.1", valkey.port)) as sock, sock.makefile("rb") as stream:
        sock.sendall(b"COMMAND\r\n")
        table = read_reply(stream)
    found = []
    for row in [*table, *(subcommand for command in table for subcommand in command[9])]:
        specs = [set(dict(zip(spec[::2], spec[1::2], strict=True))["flags"]) for spec in row[8]]
        found.append((row[0], set(row[2]), set(row[6]), specs))
    return found


def read_reply(stream: IO[bytes]) -> Any:
    line = stream.readline().decode().rstrip("\r\n")
    if line[0] == "*":
        return [read_reply(stream) for _ in range(int(line[1:]))]
    if line[0] == "$":
        return stream.read(int(line[1:]) + 2)[:-2].decode()
    return line[1:]


async def test_of_the_read_only_commands_the_token_may_run_those_that_read_named_keys(valkey: Valkey) -> None:
    """Takes all commands from COMMAND, so that a new Valkey cannot bring one that passes by its name."""
    settings = GatewaySettings(redis_url=valkey.url, token="t")
    pool = Pool(settings.target(), settings, size=1)
    policy = ReadOnlyPolicy(pool)
    allowed: set[str] = set()
    rows = rows_of_commands(valkey)
    for name, flags, categories, specs in rows:
        reads_keys = bool(specs) and all("not_key" not in spec for spec in specs)
        expected = ("readonly" in flags and reads_keys and "@scripting" not in categories) or name in ("ping", "dbsize")
        expected = expected and name not in ("lcs", "sort_ro")
        try:
            await policy.check(name.encode().split(b"|"))
        except CommandRejected:
            assert not expected, name
        else:
            assert expected, name
            assert not {"write", "admin", "blocking"} & flags or name == "xread", name
            allowed.add(name)
    await pool.close()
    assert {"get", "xrange", "object|encoding", "dump", "pfcount", "zunion"} <= allowed
    assert len(allowed) > 80
    assert len(rows) > 390


def test_the_read_only_token_may_read_in_batches_but_not_write(readonly: httpx.Client, valkey: Valkey) -> None:
    batch = [["GET", "k"], ["SET", "k", "x"], ["EXISTS", "k"]]
    replies = readonly.post("/pipeline", json=batch).json()
    assert [list(reply) for reply in replies] == [["result"], ["error"], ["result"]]
    assert replies[1]["error"].startswith("NOPERM ")
    response = readonly.post("/multi-exec", json=batch)
    assert response.status_code == 400
    assert "NOPERM" in response.json()["error"]
    assert readonly.post("/multi-exec", json=[["GET", "k"]]).json() == [{"result": None}]
    assert readonly.get("/set/k/v", headers={"Upstash-Response-Format": "resp2"}).content.startswith(b"-NOPERM ")


@pytest.mark.parametrize("path", ["/subscribe/c", "/psubscribe/c", "/monitor"])
def test_event_streams_need_the_standard_token(readonly: httpx.Client, path: str) -> None:
    response = readonly.post(path)
    assert response.status_code == 400
    assert response.json()["error"].startswith(f"NOPERM this user has no permissions to run the '{path.split('/')[1]}'")
