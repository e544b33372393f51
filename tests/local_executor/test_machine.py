"""What a program finds of a usual machine: names, devices, configuration, signals, and its own script."""

import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.contract.files import FileChanges
from infra.local_executor import LocalExecutor, interpreters, machine
from infra.scratch_root import ScratchRoot
from tests.local_executor.rig import MB, Bench, Interpreter, PlainFiles

LANGUAGES: tuple[Interpreter, ...] = ("sh", "bash", "python", "node")
LONGEST = 200_000


def needs(program: str) -> None:
    if shutil.which(program, path=machine.SYSTEM_PATH) is None:
        pytest.skip(f"{program} is not installed here")


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(params=["sandbox", "unsafe"])
def any_bench(request: pytest.FixtureRequest, bench: Bench) -> Iterator[Bench]:
    """Bench with a sandbox, and one without."""
    if request.param == "sandbox":
        yield bench
        return
    root = bench.root.with_name("unsafe")
    unsafe = Bench(LocalExecutor(ScratchRoot(root), unsafe=True), root)
    yield unsafe
    unsafe.executor.close()


async def test_the_standard_streams_can_be_opened_by_name(bench: Bench) -> None:
    ran = await bench.run(
        "echo a > /dev/stdout; echo b > /dev/stderr; echo c | tee /dev/stderr > /dev/null; cat /dev/stdin /dev/fd/0"
    )
    assert (ran.code, ran.out, ran.err) == (0, "a\n", "b\nc\n")
    ran = await bench.run("open('/dev/stdout', 'w').write('x'); open('/proc/self/fd/2', 'w').write('y')", "python")
    assert (ran.out, ran.err) == ("x", "y")


async def test_the_host_has_names_that_lead_to_itself(bench: Bench) -> None:
    source = """
import socket
assert socket.gethostbyname('localhost') == socket.gethostbyname(socket.gethostname()) == '127.0.0.1'
with socket.create_server(('localhost', 0)) as server:
    socket.create_connection(('localhost', server.getsockname()[1])).close()
for family, *_, address in socket.getaddrinfo('localhost', 0, type=socket.SOCK_STREAM):
    socket.create_server(address, family=family).close()
assert socket.getservbyname('https') == 443
print(socket.gethostname())
"""
    ran = await bench.run(source, "python")
    assert (ran.code, ran.out) == (0, "sandbox\n"), ran.err


async def test_the_user_has_a_name_a_home_and_a_shell(bench: Bench) -> None:
    source = """
import getpass, grp, os, pathlib, pwd
entry = pwd.getpwuid(os.getuid())
assert entry.pw_name == getpass.getuser() == os.environ['USER'] == os.environ['LOGNAME'] == 'user'
assert entry.pw_dir == os.environ['HOME'] == str(pathlib.Path.home()) == os.path.expanduser('~user')
assert entry.pw_shell == os.environ['SHELL'] and os.access(entry.pw_shell, os.X_OK)
assert grp.getgrgid(os.getgid()).gr_name == 'user'
print(pwd.getpwuid(0).pw_name, sorted(open('/etc/passwd'))[-1].split(':')[0], len(pwd.getpwall()))
"""
    ran = await bench.run(source, "python")
    assert (ran.code, ran.out) == (0, "root user 3\n"), ran.err
    ran = await bench.run("whoami; id -un; id -gn; tput cols > /dev/null; echo $TERM; hostname -f")
    assert (ran.code, ran.out, ran.err) == (0, "user\n" * 3 + "dumb\nsandbox\n", "")


def test_users_of_the_host_with_the_same_number_do_not_collide() -> None:
    passwd = machine.etc_files(65534, 65534, "/workspace")["passwd"].splitlines()
    assert [line.split(":")[0] for line in passwd] == ["user", "root"]


@pytest.mark.parametrize(
    ("program", "command", "out"),
    [
        ("java", "java A.java", "hi\n"),
        ("fc-match", "fc-match sans > /dev/null && echo fonts", "fonts\n"),
        ("mvn", "mvn -o help:help 2>&1 | grep -o -m1 'offline mode'; ls -A", "offline mode\nA.java\n"),
        ("mvn", "ls /etc/maven", "logging\nm2.conf\n"),
        ("date", "test -e /usr/share/zoneinfo/Europe/Zurich && TZ=Europe/Zurich date -d @0 +%H || echo 01", "01\n"),
    ],
)
async def test_installed_programs_find_their_configuration(bench: Bench, program: str, command: str, out: str) -> None:
    needs(program)
    text = 'public class A { public static void main(String[] a) { System.out.println(\\"hi\\"); } }'
    ran = await bench.run(f'echo "{text}" > A.java; {command}')
    assert (ran.code, ran.out, ran.err) == (0, out, "")


async def test_node_knows_the_limit_of_memory(bench: Bench) -> None:
    needs("node")
    ran = await bench.run("console.log(require('v8').getHeapStatistics().heap_size_limit)", "node")
    assert 500 * MB < int(ran.out) < 1024 * MB


async def test_python_has_its_short_name(bench: Bench) -> None:
    ran = await bench.run("python -c 'import sys, sqlite3; print(sys.prefix)'")
    assert (ran.out, ran.err) == (f"{Path(sys.base_prefix).resolve()}\n", "")


async def test_usual_folders_for_temporary_files_can_be_written(bench: Bench) -> None:
    ran = await bench.run('for folder in /tmp /var/tmp /dev/shm "$TMPDIR"; do echo x > "$folder/x" && echo ok; done')
    assert (ran.out, ran.err) == ("ok\n" * 4, "")


async def test_lists_of_processes_show_commands_and_no_source(bench: Bench) -> None:
    ran = await bench.run("cat /proc/1/cmdline /proc/self/cmdline | tr '\\0' ' '")
    assert "/bwrap" in ran.out
    assert len(ran.out) < 600


async def test_installers_do_not_retry_without_a_network(bench: Bench) -> None:
    needs("npm")
    ran = await bench.run("npm install left-pad", timeout_s=30)
    assert "ENOTFOUND" in ran.err, ran


async def test_caches_are_not_left_in_the_workspace(bench: Bench) -> None:
    needs("npm")
    await bench.run('npm init -y > /dev/null; npm --version; echo x > "$XDG_CACHE_HOME.txt"')
    assert names_in(bench.files.directory) == ["package.json"]


SHELL = """
ls -A
cat "$(dirname "$0")/data.csv"
cd "$(dirname "$0")" && echo x > out.txt
pwd
"""
BESIDE: dict[Interpreter, str] = {
    "sh": SHELL,
    "bash": SHELL.replace("$0", "${BASH_SOURCE[0]}") + '[[ "$0" == "${BASH_SOURCE[0]}" ]] || echo imported',
    "python": """
import os, pathlib, sys
print(*os.listdir('.'))
here = pathlib.Path(__file__).parent
print((here / 'data.csv').read_text(), end='')
(here / 'out.txt').write_text('x\\n')
import helper
assert __name__ == '__main__' and sys.argv == [__file__] and sys.path[0] == str(here), (sys.argv, sys.path)
print(here)
""",
    "node": """#!/usr/bin/env node
const fs = require('fs'), path = require('path');
console.log(fs.readdirSync('.').filter((name) => !['lib.js', 'helper.py', 'node_modules'].includes(name)).join(' '));
process.stdout.write(fs.readFileSync(path.join(__dirname, 'data.csv'), 'utf8'));
fs.writeFileSync(path.join(__dirname, 'out.txt'), 'x\\n');
if (require('./lib.js') !== 42 || require('pkg') !== 43 || require.main !== module) throw new Error('no');
console.log(path.dirname(process.argv[1]));
""",
}


@pytest.mark.parametrize("language", LANGUAGES)
async def test_the_folder_of_a_script_is_the_workspace(any_bench: Bench, language: Interpreter) -> None:
    needs("node" if language == "node" else "sh")
    prepared = "echo a,b > data.csv"
    if language == "node":
        prepared += "; echo 'module.exports = 42' > lib.js; mkdir -p node_modules/pkg"
        prepared += "; echo 'module.exports = 43' > node_modules/pkg/index.js"
    await any_bench.run(prepared)
    if language == "python":
        (any_bench.files.directory / "helper.py").touch(0o644)
    ran = await any_bench.run(BESIDE[language], language)
    assert ran.code == 0, ran.err
    listed, content, folder = ran.out.splitlines()
    assert {*listed.split()} <= {"data.csv", "helper.py"}
    assert content == "a,b"
    assert folder == ("/workspace" if any_bench.root.name == "scratch" else str(any_bench.files.directory))
    assert (any_bench.files.directory / "out.txt").read_text() == "x\n"
    assert not list(any_bench.files.directory.glob(".program*"))


@pytest.mark.parametrize("language", LANGUAGES)
async def test_a_file_with_the_name_of_the_script_is_not_touched(bench: Bench, language: Interpreter) -> None:
    needs("node" if language == "node" else "sh")
    names = [".program", ".program.py", ".program.js"]
    await bench.run(f"for n in {' '.join(names)}; do echo mine > $n; done")
    ran = await bench.run(
        "console.log(1)" if language == "node" else "print(1)" if language == "python" else "echo 1", language
    )
    assert (ran.code, ran.out) == (0, "1\n"), ran.err
    assert names_in(bench.files.directory) == sorted(names)
    assert {(bench.files.directory / name).read_text() for name in names} == {"mine\n"}


@pytest.mark.parametrize("language", ["sh", "bash"])
async def test_the_longest_shell_script_is_read_to_its_end(bench: Bench, language: Interpreter) -> None:
    source = f"echo begun\n#{'ü' * (LONGEST - 30)}\necho end; exit 4"
    ran = await bench.run(source, language)
    assert (ran.code, ran.out) == (4, "begun\nend\n"), ran.err
    early = await bench.run(source.replace("begun", "begun; exit 5"), language)
    assert (early.code, early.out) == (5, "begun\n")


class ListingFiles(PlainFiles):
    """Files that note what a program has left when its changes are stored."""

    def __init__(self) -> None:
        super().__init__()
        self.left: list[str] = []

    async def store_changes(self, directory: Path) -> FileChanges:
        self.left = names_in(directory)
        return await super().store_changes(directory)


async def test_a_script_whose_interpreter_does_not_start_leaves_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infra.local_executor.sandbox.interpreter", lambda _: "/no/such/program")
    files = ListingFiles()
    ran = await bench.run("echo x", files=files)
    assert ran.code == 1
    assert "No such file" in ran.err
    assert files.left == []


async def test_errors_of_python_name_the_line(bench: Bench) -> None:
    ran = await bench.run("def f():\n    return 1 / 0\n\nf()", "python")
    assert "in f\n    return 1 / 0\n" in ran.err
    assert interpreters.MODULE not in ran.err
    assert "<string>" not in ran.err
    ran = await bench.run('"""About."""\nfrom __future__ import annotations\nimport inspect\ndef f(): return 7\n'
                          "print(__doc__, inspect.getsource(f), end='')", "python")  # fmt: skip
    assert ran.out == "About. def f(): return 7\n", ran.err


async def test_python_processes_and_node_threads_find_their_script(any_bench: Bench) -> None:
    source = """
import inspect, multiprocessing, pathlib, sys
here = pathlib.Path(__file__).with_name('data.txt').read_text().strip()
def double(x): return 2 * x, inspect.getsource(double)[:10], sys.argv[0] == __file__
if __name__ == '__main__':
    for method in ('spawn', 'forkserver'):
        with multiprocessing.get_context(method).Pool(1) as pool: print(here, pool.map(double, [4]))
"""
    await any_bench.run("echo beside > data.txt")
    ran = await any_bench.run(source, "python")
    assert (ran.code, ran.out) == (0, "beside [(8, 'def double', True)]\n" * 2), ran.err
    needs("node")
    source = """
const { Worker, isMainThread } = require('worker_threads'), { fork } = require('child_process');
if (!isMainThread) console.log('thread');
else if (process.send) console.log('fork');
else new Worker(__filename).on('exit', () => fork(__filename));
"""
    ran = await any_bench.run(source, "node")
    assert (ran.code, ran.out) == (0, "thread\nfork\n"), ran.err
    ran = await any_bench.run("import { sep } from 'path'; console.log(sep, import.meta.url.slice(0, 8));", "node")
    assert (ran.code, ran.out) == (0, "/ file:///\n"), ran.err


@pytest.mark.parametrize(
    "source",
    [
        "console.log(await Promise.resolve(7), typeof require)",
        "#!/usr/bin/env node\nconst a = [await 7]; console.log(...a, typeof require); export { a }; // end",
        "import.meta.url; console.log({ a: await 7 }.a, typeof require)",
    ],
)
async def test_await_in_any_place_makes_a_module_of_node(bench: Bench, source: str) -> None:
    needs("node")
    ran = await bench.run(source, "node")
    assert (ran.code, ran.out) == (0, "7 undefined\n"), ran.err


async def test_an_interrupted_python_program_has_the_usual_exit_code(any_bench: Bench) -> None:
    ran = await any_bench.run(
        "import os, signal; os.kill(os.getpid(), signal.SIGINT); import time; time.sleep(9)", "python"
    )
    assert ran.code == 130
    assert ran.err.endswith("\nKeyboardInterrupt\n")


async def test_a_module_of_node_whose_await_never_ends_fails(bench: Bench) -> None:
    needs("node")
    ran = await bench.run("import 'fs'; await new Promise(() => {});", "node")
    assert ran.code == 13
    assert "Detected unsettled top-level await" in ran.err
    ran = await bench.run("import 'fs'; setTimeout(process.exit, 50); await new Promise(() => {});", "node")
    assert (ran.code, ran.err) == (0, "")


INTERNAL = 0b11 << 31
"""Bits of the signals 32 and 33, which glibc reserves. Its `posix_spawn`, by which `make` starts programs, leaves them
ignored, and no program can change them."""
STATE = f"""
import signal, sys
fields = dict(line.split(':\\t') for line in open('/proc/self/status') if ':\\t' in line)
ignored = int(fields['SigIgn'], 16) & ~(1 << signal.SIGPIPE - 1) & ~(1 << signal.SIGXFSZ - 1) & ~{INTERNAL}
print(hex(ignored), hex(int(fields['SigBlk'], 16)))
"""


async def test_a_program_inherits_no_signal_state(any_bench: Bench) -> None:
    """Python ignores two signals itself, so the state is also read by a program that does not."""
    before = {number: signal.getsignal(number) for number in (signal.SIGUSR1, signal.SIGHUP)}
    for number in before:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2, signal.SIGTERM])
    try:
        assert (await any_bench.run(STATE, "python")).out == "0x0 0x0\n"
        state = (await any_bench.run("grep -E 'Sig(Ign|Blk)' /proc/self/status", "bash")).out
        piped = await any_bench.run("set -o pipefail; yes | head -1; echo $?", "bash")
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        for number, handler in before.items():
            signal.signal(number, handler)
    assert [int(line.split()[1], 16) & ~INTERNAL for line in state.splitlines()] == [0, 0]
    assert (piped.out, piped.err) == ("y\n141\n", "")
