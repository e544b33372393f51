"""Network of programs in pods: through the proxy of the cluster, with the token that real clients send."""

import asyncio
import shutil
import socket
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from infra.address_guard import AddressGuard
from infra.contract.execution import Command, LinePart
from infra.egress.server import EgressServer
from infra.egress.settings import EgressSettings
from infra.egress.tokens import EgressTokens
from infra.k8s_executor.pod_call import PodCalls
from infra.workspace import S3RunFiles
from tests.executors.pods import Pods
from tests.support.files_server import files_server
from tests.support.web_site import NAME, Names

KEY = "k" * 32
SOURCE = """
curl -sS http://HOST/hello.txt
curl -sS -p http://HOST/hello.txt
git ls-remote http://HOST/.git | cut -f 2
python3 -c "import urllib.request; print(urllib.request.urlopen('http://HOST/hello.txt').read().decode(), end='')"
curl -sS -o /dev/null -w '%{http_code}\\n' http://elsewhere.test/
http_proxy=http://run:forged@${http_proxy#*@} curl -sS -o /dev/null -w '%{http_code}\\n' http://HOST/hello.txt
"""


@asynccontextmanager
async def proxy(host: str, port: int) -> AsyncIterator[int]:
    """Serve the proxy of a cluster, which may reach a host on loopback; yield its port."""
    stopped = asyncio.Event()
    server = EgressServer(EgressSettings(KEY), 100, partial(AddressGuard, [(host, port)], Names()))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = asyncio.ensure_future(server.serve(listener, stopped))
        yield listener.getsockname()[1]
        stopped.set()
        await serving


@pytest.mark.skipif(not (shutil.which("curl") and shutil.which("git")), reason="needs curl and git")
async def test_clients_in_a_pod_reach_the_hosts_of_their_call(pods: Pods, files: S3RunFiles, tmp_path: Path) -> None:
    content = tmp_path / "content"
    content.mkdir()
    (content / "hello.txt").write_text("hello\n")
    commands = "git init -q -b main . && git add -A && git -c user.name=x -c user.email=x@x commit -qm x"
    words = ["sh", "-c", f"{commands} && git update-server-info"]
    await asyncio.to_thread(subprocess.run, words, cwd=content, check=True)
    lines: list[str] = []

    async def add(_: str, part: LinePart) -> bool:
        lines.append(part.text)
        return True

    with files_server(content) as port:
        async with proxy(NAME, port) as proxy_port, pods.pod() as pod:
            network = (f"{NAME}:{port}",)
            given = Command("run-1", "step-0", "sh", SOURCE.replace("HOST", network[0]), 60, network=network)
            url = EgressTokens(KEY).proxy_url(f"127.0.0.1:{proxy_port}", given, int(time.time()) + 600)
            calls = PodCalls(pod.control(), files, pod.gone)
            offer = await calls.offer(given, url)
            ended = await calls.follow(await calls.start(offer), given, add, tmp_path)
            assert url not in pod.log.read_text()
    assert ended.exit_code == 0, ended.stderr.read_text()
    assert lines == ["hello", "hello", "HEAD", "refs/heads/main", "hello", "403", "407"]
    # The proxy of a cluster knows what the program did, the worker does not.
    assert ended.network is None


async def test_a_program_without_a_network_has_no_proxy(pods: Pods, files: S3RunFiles, tmp_path: Path) -> None:
    given = Command("run-1", "step-0", "sh", "env | grep -ic proxy", 60)

    async def add(_stream: str, _part: LinePart) -> bool:
        return True

    async with pods.pod() as pod:
        calls = PodCalls(pod.control(), files, pod.gone)
        ended = await calls.follow(await calls.start(await calls.offer(given)), given, add, tmp_path)
    assert ended.stdout.read_text() == "0\n"
