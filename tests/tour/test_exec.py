"""The command `exec`: a program of a run behaves as if it ran here."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.files_server import files_server
from tests.support.redis import free_port
from tests.support.terminal import on_terminal
from tests.support.waiting import wait_until
from tests.tour.commands import ALONE, swissbrain
from tests.tour.test_dev import dev

SWISSBRAIN = [sys.executable, "-m", "swissbrain"]


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of what the web server below has."""
    made = tmp_path_factory.mktemp("site")
    (made / "hello.txt").write_text("hello\n")
    return made


@pytest.fixture(scope="module")
def site(content: Path) -> Iterator[str]:
    """Host and port of a web server on this machine, which the operator allows to programs."""
    with files_server(content) as port:
        yield f"127.0.0.1:{port}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, site: str) -> Iterator[Path]:
    made = tmp_path_factory.mktemp("exec")
    with dev(made, free_port(), {"TOOLS_NETWORK_PRIVATE_HOSTS": site}):
        yield made


def execute(folder: Path, *words: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*SWISSBRAIN, "exec", *words], cwd=folder, env=ALONE, capture_output=True, timeout=100, check=False
    )


OUTPUTS = {
    "no line end": b"a\nb",
    "empty": b"",
    "windows": b"a\r\nb\r\n" * 2000,
    "binary": bytes(range(256)) * 40,
    "bar": b"\r10%\r50%\r100%\n",
    "escapes": b"\x1b[31mred\x1b[0m\n",
    "more than the log takes": b"".join(b"%d\n" % number for number in range(60_000)),
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_a_pipe_gets_every_byte_on_its_stream(folder: Path, name: str) -> None:
    (folder / "out.bin").write_bytes(OUTPUTS[name])
    result = execute(folder, "--file", "out.bin", "--", "sh", "-c", "cat out.bin; printf 'to stderr' >&2; exit 7")
    assert (result.returncode, result.stdout, result.stderr) == (7, OUTPUTS[name], b"to stderr")


@pytest.mark.parametrize(
    ("words", "code", "out"),
    [
        (["--", "true"], 0, b""),
        (["false"], 1, b""),
        (["--", "printf", "%s|", "a b", "$HOME", "*", "'", '"', "é", ""], 0, "a b|$HOME|*|'|\"|é||".encode()),
        (["printf", "%s", "--json"], 0, b"--json"),
        (["--", "sh", "-c", "kill -9 $$"], 137, b""),
        (["--python", "--", "-c", "import sys; print(sys.argv[1:])", "x"], 0, b"['x']\n"),
        (["--python", "--", "p.py", "a b", "-v"], 3, b"['a b', '-v'] p.py\n"),
    ],
)
def test_words_and_exit_codes_arrive(folder: Path, words: list[str], code: int, out: bytes) -> None:
    (folder / "p.py").write_text("import sys\nprint(sys.argv[1:], __file__.split('/')[-1])\nsys.exit(3)\n")
    result = execute(folder, *words)
    assert (result.returncode, result.stdout) == (code, out), result.stderr


def test_files_and_folders_are_sent_and_found(folder: Path) -> None:
    (folder / "in" / "deep").mkdir(parents=True)
    (folder / "in" / "deep" / "ü 1.txt").write_bytes(b"x" * 2_600_000)
    (folder / "in" / "empty").write_bytes(b"")
    result = execute(
        folder, "--file", "in", "--file", "in/empty=other/name", "--", "find", ".", "-type", "f", "-size", "+0"
    )
    assert (result.returncode, result.stdout) == (0, "./in/deep/ü 1.txt\n".encode()), result.stderr
    found = execute(folder, "--file", "in/", "--", "sh", "-c", "ls; wc -c < 'deep/ü 1.txt'")
    assert found.stdout.split() == [b"deep", b"empty", b"2600000"]


def test_a_timeout_is_named_and_has_its_own_exit_code(folder: Path) -> None:
    result = execute(folder, "--timeout", "1s", "--", "sleep", "60")
    assert (result.returncode, result.stdout) == (124, b"")
    assert result.stderr.startswith(b"swissbrain: run run_")
    # Which of the two ends the program first depends on the machine.
    assert b"timeout" in result.stderr or b"when the time of its step was over" in result.stderr
    assert execute(folder, "--timeout", "2h", "--", "true").returncode == 2


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_cancels_the_run(folder: Path, number: signal.Signals, code: int) -> None:
    with subprocess.Popen(
        [*SWISSBRAIN, "exec", "--", "sh", "-c", "echo begun; sleep 60"],
        cwd=folder,
        env=ALONE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == b"begun\n"
        process.send_signal(number)
        assert process.wait(timeout=30) == code
    run_id, status = swissbrain(folder, "runs", "--limit", "1").stdout.splitlines()[1].split()[:2]
    assert (run_id[:4], status) == ("run_", "cancelled")


def test_a_receiver_that_leaves_ends_the_run(folder: Path) -> None:
    command = " ".join([*SWISSBRAIN, "exec", "--", "sh", "-c", "'while :; do echo y; sleep 0.1; done'"])
    done = subprocess.run(
        ["bash", "-c", f"{command} | head -n 1"], cwd=folder, env=ALONE, capture_output=True, timeout=60
    )
    assert (done.stdout, done.stderr) == (b"y\n", b"")

    def is_cancelled() -> bool:
        return swissbrain(folder, "runs", "--limit", "1").stdout.splitlines()[1].split()[1] == "cancelled"

    wait_until(is_cancelled, "the run is cancelled")


WAITS = """
import os, sys, time, urllib.request
print("one", flush=True)
print("two", flush=True)
os.environ["no_proxy"] = os.environ["NO_PROXY"] = ""
while True:
    try:
        urllib.request.urlopen(sys.argv[1]).close()
        break
    except OSError:
        time.sleep(0.1)
print("three")
"""


def test_output_is_live_on_a_pipe_and_on_a_terminal(folder: Path, site: str, content: Path) -> None:
    (folder / "waits.py").write_text(WAITS)
    command = [*SWISSBRAIN, "exec", "--network", site, "--python", "--", "waits.py", f"http://{site}/go"]
    with subprocess.Popen(command, cwd=folder, env=ALONE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert (process.stdout.readline(), process.stdout.readline()) == (b"one\n", b"two\n")
        (content / "go").touch()  # before that, the program does not end
        assert process.stdout.read() == b"three\n"
    shown = on_terminal(
        [*SWISSBRAIN, "exec", "--", "printf", "10%%\\r20%%\\ndone"], cwd=folder, env=dict(os.environ | ALONE)
    )
    assert shown.text.replace("\r", "").endswith("20%\ndone")


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_a_program_reaches_the_hosts_of_its_network_within_what_the_operator_allows(folder: Path, site: str) -> None:
    fetch = f"curl -sS --noproxy '' http://{site}/hello.txt"
    assert execute(folder, "--network", site, "--", "sh", "-c", fetch).stdout == b"hello\n"
    refused = execute(folder, "--network", "example.org:443", "--", "true")
    assert refused.returncode == 125
    assert (
        f"'example.org:443' is not within TOOLS_NETWORK_ALLOW of this worker, which allows {site}".encode()
        in refused.stderr
    )
    shown = swissbrain(folder, "run", "--network", site, "--shell", f"{fetch}; curl -sS https://a.test/", "--follow")
    assert f"network: {site} (" in shown.stdout
    reason = "not reached: a.test:443 (not in `network` of the call)"
    assert f"exit code 56: curl: (56) CONNECT tunnel failed, response 403; {reason}" in shown.stdout
