"""Programs in the sandbox with a network: real clients reach the hosts of their call, and nothing else is reached."""

import asyncio
import importlib.util
import json
import shutil
import socket
import subprocess
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.address_guard import AddressGuard
from infra.contract.errors import ExecutorUnavailable
from infra.egress.local import LocalEgress
from infra.egress.settings import NetworkSettings
from infra.local_executor import LocalExecutor, machine, sandbox
from infra.scratch_root import ScratchRoot
from tests.local_executor.rig import RUN_ID, Bench
from tests.support.files_server import files_server
from tests.support.processes import open_fds
from tests.support.waiting import until
from tests.support.web_site import Names, Site

NAME = "files.test"
NEEDS_CLIENTS = pytest.mark.skipif(not (shutil.which("curl") and shutil.which("git")), reason="needs curl and git")


@pytest.fixture(scope="module")
def files_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Port of a web server with a text, a package index and a git repository."""
    folder = tmp_path_factory.mktemp("files")
    (folder / "hello.txt").write_text("hello from outside\n")
    index = folder / "simple" / "demo"
    index.mkdir(parents=True)
    wheel = "demo-1.0-py3-none-any.whl"
    with zipfile.ZipFile(index / wheel, "w") as archive:
        archive.writestr("demo-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n")
        archive.writestr("demo-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr("demo-1.0.dist-info/RECORD", "")
    (index / "index.html").write_text(f'<a href="{wheel}">{wheel}</a>')
    if shutil.which("git"):
        commands = "git init -q . && git add -A && git -c user.name=x -c user.email=x@x commit -qm x"
        subprocess.run(["sh", "-c", f"{commands} && git update-server-info"], cwd=folder, check=True)
    with files_server(folder) as port:
        yield port


@pytest.fixture
def bench(tmp_path: Path, site: Site, files_port: int) -> Iterator[Bench]:
    """Bench of a worker whose operator allows everything that is local."""
    names = Names()
    hosts = [(name, port) for name in (NAME, "site.test") for port in (files_port, site.port)]
    egress = LocalEgress(NetworkSettings(), lambda: AddressGuard(hosts, names))
    before = open_fds()
    executor = LocalExecutor(ScratchRoot(tmp_path / "scratch"), network=egress)
    made = Bench(executor, tmp_path / "scratch")
    yield made
    assert not made.alive()
    executor.close()
    assert {target for target in open_fds().values() if "socket:" in target} <= {*before.values()}
    shutil.rmtree(tmp_path, ignore_errors=True)


CLIENTS = """
set -e
url=http://HOST
curl -sS $url/hello.txt
curl -sS -p $url/hello.txt
git clone -q $url/.git cloned && cat cloned/hello.txt
python3 -m pip --disable-pip-version-check download -q --no-deps --trusted-host files.test -i $url/simple -d got demo
ls got
python3 -c "import urllib.request; print(urllib.request.urlopen('$url/hello.txt').read().decode(), end='')"
curl -sS -o /dev/null http://elsewhere.test/ -w '%{http_code}\\n'
curl -sS https://elsewhere.test/ || echo "curl: $?"
"""


@NEEDS_CLIENTS
async def test_curl_git_pip_and_python_reach_the_hosts_of_their_call(bench: Bench, files_port: int) -> None:
    pip = importlib.util.find_spec("pip")
    assert pip
    assert pip.submodule_search_locations
    workspace = bench.root / RUN_ID / "workspace"
    shutil.copytree(pip.submodule_search_locations[0], workspace / "pip")
    workspace.chmod(0o700)
    workspace.parent.chmod(0o700)
    ran = await bench.run(CLIENTS.replace("HOST", f"{NAME}:{files_port}"), network=[f"{NAME}:{files_port}"])
    assert ran.code == 0, ran.err
    hello = "hello from outside\n"
    assert ran.out == f"{hello * 3}demo-1.0-py3-none-any.whl\n{hello}403\ncurl: 56\n"
    assert "CONNECT tunnel failed, response 403" in ran.err
    use = ran.execution.network
    assert use
    assert use.refused == dict.fromkeys(("elsewhere.test:80", "elsewhere.test:443"), "not in `network` of the call")
    assert use.traffic.keys() == {f"{NAME}:{files_port}"}
    assert use.traffic[f"{NAME}:{files_port}"].received > 5 * len(hello)


NODE = """
const http = require('http');
const [major, minor] = process.versions.node.split('.').map(Number);
if (major >= 24 || (major === 22 && minor >= 21)) {
  fetch('URL').then(answer => answer.text()).then(text => process.stdout.write(text));
} else {
  const proxy = new ADDRESS(process.env.http_proxy);
  http.get({ host: proxy.hostname, port: proxy.port, path: 'URL' }, answer => answer.pipe(process.stdout));
}
"""


async def test_node_reaches_the_hosts_of_its_call(bench: Bench, files_port: int) -> None:
    if shutil.which("node", path=machine.SYSTEM_PATH) is None:
        pytest.skip("node is not installed")
    source = NODE.replace("URL", f"http://{NAME}:{files_port}/hello.txt").replace("ADDRESS", "URL")
    ran = await bench.run(source, "node", network=[f"{NAME}:{files_port}"])
    assert ran.out == "hello from outside\n", ran.err


ELSEWHERE = """
import json, os, socket
reached = []
for family, kind, address in json.loads('ADDRESSES'):
    try:
        with socket.socket(getattr(socket, family), getattr(socket, kind)) as s:
            s.settimeout(5)
            s.connect(tuple(address) if isinstance(address, list) else address)
            s.send(b'x')
            reached.append(address)
    except OSError:
        pass
for name in ('files.test', 'example.org'):
    try: reached.append(socket.getaddrinfo(name, 80))
    except OSError: pass
for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, option, 1)
        try: s.bind(('127.0.0.1', 3128)); s.listen(); reached.append('the port of the proxy')
        except OSError: pass
print(reached)
print(len([name for name in os.listdir('/proc') if name.isdigit()]))
print(sorted(os.readlink(f'/proc/self/fd/{fd}').split(':')[0] for fd in os.listdir('/proc/self/fd')[:-1]))
"""


async def test_nothing_else_is_reached_and_nothing_more_runs_inside(bench: Bench, files_port: int) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"\0{bench.marker}")
        listening.listen()
        addresses = [
            ("AF_INET", "SOCK_STREAM", ["127.0.0.1", files_port]),
            ("AF_INET", "SOCK_STREAM", ["1.1.1.1", 443]),
            ("AF_INET", "SOCK_STREAM", ["169.254.169.254", 80]),
            ("AF_INET", "SOCK_DGRAM", ["1.1.1.1", 53]),
            ("AF_INET6", "SOCK_STREAM", ["2606:4700:4700::1111", 443]),
            ("AF_UNIX", "SOCK_STREAM", f"\0{bench.marker}"),
        ]
        source = ELSEWHERE.replace("ADDRESSES", json.dumps(addresses).replace("\\", "\\\\"))
        ran = await bench.run(source, "python", network=[f"{NAME}:{files_port}"])
        alone = await bench.run(source, "python", call="step-1")
    assert ran.out.splitlines()[0] == "[]", ran.out + ran.err
    # Not a process and not a descriptor more than without a network, so nothing that a program could kill or use.
    assert ran.out.splitlines()[1:] == alone.out.splitlines()[1:]


HOLD = """
import os, socket, sys, time
s = socket.create_connection(('127.0.0.1', 3128))
s.sendall(b'CONNECT site.test:PORT HTTP/1.1\\r\\nHost: x\\r\\n\\r\\nGET / HTTP/1.1\\r\\n\\r\\n')
print(s.recv(100).decode().splitlines()[0], flush=True)
WAIT
"""


async def test_a_connection_ends_with_its_call(bench: Bench, site: Site) -> None:
    ended = threading.Event()

    def hold(wire: Any) -> None:
        wire.silence()
        ended.set()

    site.serve("/", hold)
    network = [f"site.test:{site.port}"]
    hold_it = HOLD.replace("PORT", str(site.port))
    # A daemon that keeps the connection dies with the program, too.
    left = hold_it.replace("WAIT", "if os.fork(): os._exit(0)\nos.setsid(); time.sleep(1000)")
    ran = await bench.run(left, "python", network=network)
    assert (ran.code, ran.out) == (0, "HTTP/1.1 200 Connection established\n")
    await until(lambda: asyncio.sleep(0, ended.is_set()), "the connection to the site has ended")
    ended.clear()
    ran = await bench.run(hold_it.replace("WAIT", "time.sleep(1000)"), "python", network=network, timeout_s=1)
    assert ran.execution.timed_out
    await until(lambda: asyncio.sleep(0, ended.is_set()), "the connection to the site has ended")


@NEEDS_CLIENTS
async def test_calls_at_the_same_time_have_their_own_networks(bench: Bench, site: Site, files_port: int) -> None:
    curl = "curl -sS -o /dev/null -w '%{http_code} '"
    source = f"for port in {site.port} {files_port}; do {curl} http://site.test:$port/; done"
    both = [
        bench.run(source, run_id=f"run-{number}", network=[f"site.test:{port}"])
        for number, port in enumerate((site.port, files_port))
    ]
    first, second = await asyncio.gather(*both)
    alone = await bench.run("curl -sS -x http://127.0.0.1:3128 http://site.test/; echo $?; env | grep -ic proxy")
    assert (first.out, second.out) == ("404 403 ", "403 200 ")
    assert alone.out == "7\n0\n"
    assert alone.execution.network is None


async def test_a_cancelled_program_leaves_no_socket(bench: Bench, site: Site) -> None:
    printed = asyncio.Event()
    source = HOLD.replace("PORT", str(site.port)).replace("WAIT", "time.sleep(1000)")
    site.serve("/", lambda wire: wire.silence())
    running = asyncio.ensure_future(
        bench.run(source, "python", network=[f"site.test:{site.port}"], on_line=lambda *_: printed.set())
    )
    async with asyncio.timeout(60):
        await printed.wait()
    running.cancel()
    await asyncio.wait({running})
    assert running.cancelled()


async def test_a_sandbox_that_cannot_be_built_leaves_no_socket(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in ("/bin/false", "/nowhere"):
        monkeypatch.setattr(sandbox, "find_bwrap", lambda path=path: Path(path))
        with pytest.raises(ExecutorUnavailable):
            await bench.run("true", network=["site.test:80"])


async def test_a_worker_without_a_network_for_programs_says_so(tmp_path: Path) -> None:
    executor = LocalExecutor(ScratchRoot(tmp_path / "scratch"))
    with pytest.raises(ExecutorUnavailable, match="needs a network"):
        await Bench(executor, tmp_path / "scratch").run("true", network=["site.test:80"])
    executor.close()
