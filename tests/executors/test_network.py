"""Network of programs in pods: through the proxy of the cluster, with the token that real clients send."""

import asyncio
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from infra.contract.execution import Command, LinePart
from infra.egress.tokens import EgressTokens
from infra.k8s_executor.pod_call import prepare
from infra.workspace import S3RunFiles
from tests.executors.pods import FollowedCalls, LonePodSession, Pods
from tests.support.egress import EGRESS_KEY, egress_proxy
from tests.support.files_server import files_server
from tests.support.web_site import NAME

SOURCE = """
curl -sS http://HOST/hello.txt
curl -sS -p http://HOST/hello.txt
git ls-remote http://HOST/.git | cut -f 2
python3 -c "import urllib.request; print(urllib.request.urlopen('http://HOST/hello.txt').read().decode(), end='')"
curl -sS -o /dev/null -w '%{http_code}\\n' http://elsewhere.test/
http_proxy=http://run:forged@${http_proxy#*@} curl -sS -o /dev/null -w '%{http_code}\\n' http://HOST/hello.txt
"""


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
        async with egress_proxy(NAME, port) as proxy_port, pods.pod() as pod:
            network = (f"{NAME}:{port}",)
            given = Command("run-1", "step-0", "sh", SOURCE.replace("HOST", network[0]), 60, network=network)
            url = EgressTokens(EGRESS_KEY).proxy_url(f"127.0.0.1:{proxy_port}", given, int(time.time()) + 600)
            calls = FollowedCalls(pod.control(), files, pod.gone)
            loan = await calls.start(await prepare(given, files, url))
            ended = await calls.follow(loan, given, add, tmp_path)
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
        calls = FollowedCalls(pod.control(), files, pod.gone)
        ended = await calls.follow(await calls.start(await prepare(given, files)), given, add, tmp_path)
    assert ended.stdout.read_text() == "0\n"


SESSION = """
import http.client, os, sys, urllib.error, urllib.request
from urllib.parse import urlsplit
proxy = urlsplit(os.environ['http_proxy'])
def get(url, **more):
    try:
        return urllib.request.urlopen(url, **more).read().decode()
    except urllib.error.HTTPError as error:
        return error.code
def tunnel(host):
    connection = http.client.HTTPConnection(proxy.hostname, proxy.port)
    name, _, port = host.partition(':')
    connection.set_tunnel(name, int(port))
    try:
        connection.request('GET', '/hello.txt')
        return connection.getresponse().read().decode()
    except OSError as error:
        return str(error)
def pair(host):
    connection = http.client.HTTPConnection(proxy.hostname, proxy.port)
    answers = []
    for _ in range(2):
        connection.request('GET', f'http://{host}/hello.txt', headers={'Proxy-Authorization': 'Basic x'})
        answer = connection.getresponse()
        answers.append((answer.status, answer.read().decode(), answer.getheader('connection')))
    return answers
while size := sys.stdin.buffer.read(4):
    reply = str(eval(sys.stdin.buffer.read(int.from_bytes(size, 'big')).decode())).encode()
    os.write(1, len(reply).to_bytes(4, 'big') + reply)
"""


async def test_a_session_in_a_pod_reaches_its_hosts_without_knowing_the_token(pods: Pods, tmp_path: Path) -> None:
    (tmp_path / "content").mkdir()
    (tmp_path / "content" / "hello.txt").write_text("hello")
    with files_server(tmp_path / "content") as port:
        async with egress_proxy(NAME, port) as proxy_port:
            host = f"{NAME}:{port}"
            given = Command("run-1", "session", "python", SESSION, 60, network=(host,))
            url = EgressTokens(EGRESS_KEY).proxy_url(f"127.0.0.1:{proxy_port}", given, int(time.time()) + 600)
            session = LonePodSession(pods, 10_000)
            await session.begin(given, url)

            async def ask(text: str) -> str:
                return (await session.ask(text.encode(), 30)).decode()

            try:
                assert await ask(f"get('http://{host}/hello.txt')") == "hello"
                assert await ask("get('http://elsewhere.test/')") == "403"
                assert await ask(f"tunnel('{host}')") == "hello"
                assert "403" in await ask("tunnel('elsewhere.test:443')")
                # One request for each connection: clients are told so, and open another one.
                assert await ask(f"pair('{host}')") == str([(200, "hello", "close")] * 2)
                assert "@" not in await ask("os.environ['http_proxy'] + os.environ['https_proxy']")
                assert "run:" not in await ask("[open(f'/proc/{p}/environ').read() for p in (os.getpid(),)]")
            finally:
                await session.close()
            assert url not in session.log


async def test_a_relay_without_a_proxy_behind_it_says_so(pods: Pods) -> None:
    given = Command("run-1", "session", "python", SESSION, 60, network=("web.test:80",))
    session = LonePodSession(pods, 10_000)
    await session.begin(given, "http://run:token@127.0.0.1:9")
    try:
        assert await session.ask(b"get('http://web.test/')", 30) == b"502"
    finally:
        await session.close()
