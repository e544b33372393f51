"""Filter of system calls: what it allows, on both processors and in the sandbox."""

import errno
import struct

import pytest

from infra.local_executor import seccomp, syscalls
from tests.local_executor.rig import Bench

ALLOW, KILL = 0x7FFF0000, 0x80000000
MACHINES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
NOT_LISTED = {
    "x86_64": {
        "shmget": 29,
        "semget": 64,
        "msgget": 68,
        "mq_open": 240,
        "keyctl": 250,
        "memfd_create": 319,
        "io_setup": 206,
    },
    "aarch64": {
        "shmget": 194,
        "semget": 190,
        "msgget": 186,
        "mq_open": 180,
        "keyctl": 219,
        "memfd_create": 279,
        "io_setup": 0,
    },
}
NOT_LISTED_ANYWHERE = {"clone3": 435, "io_uring_setup": 425, "memfd_secret": 447, "unknown": 600}


def refused(number: int) -> int:
    """Return the action that fails a call with this errno."""
    return 0x00050000 | number


def action(machine: str, number: int, *arguments: int, architecture: int | None = None) -> int:
    """Interpret the filter as the kernel does, and return its action for a call."""
    padded = [*arguments, *[0] * (6 - len(arguments))]
    data = struct.pack("=iIQ6Q", number, architecture or MACHINES[machine], 0, *padded)
    program = [*struct.iter_unpack("=HBBI", seccomp.program(machine))]
    at = loaded = 0
    while True:
        operation, if_true, if_false, operand = program[at]
        at += 1
        if operation == 0x06:
            return int(operand)
        if operation == 0x20:
            loaded = struct.unpack_from("=I", data, operand)[0]
        elif operation == 0x54:
            loaded &= operand
        else:
            holds = {0x15: loaded == operand, 0x35: loaded >= operand, 0x45: bool(loaded & operand)}[operation]
            at += if_true if holds else if_false


@pytest.mark.parametrize("machine", MACHINES)
def test_exactly_the_listed_calls_are_allowed(machine: str) -> None:
    allowed = syscalls.numbers(syscalls.ALLOWED, machine)
    privileged = syscalls.numbers(syscalls.PRIVILEGED, machine)
    assert len({*allowed.values()}) == len(allowed)
    assert not {*allowed.values()} & {*privileged.values()}
    by_argument = {"x86_64": {56, 135, 41, 53, 16}, "aarch64": {220, 92, 198, 199, 29}}[machine]
    for number in {*range(700)} - by_argument:
        expected = ALLOW if number in allowed.values() else refused(errno.ENOSYS)
        expected = refused(errno.EPERM) if number in privileged.values() else expected
        assert action(machine, number) == expected, number
    for name, number in {**NOT_LISTED[machine], **NOT_LISTED_ANYWHERE}.items():
        assert action(machine, number) == refused(errno.ENOSYS), name


def test_numbers_of_other_architectures_reach_nothing() -> None:
    for number in range(700):
        assert action("x86_64", number | 0x40000000) == refused(errno.ENOSYS)
        assert action("x86_64", number, architecture=0x40000003) == KILL
        assert action("aarch64", number, architecture=MACHINES["x86_64"]) == KILL


@pytest.mark.parametrize(("machine", "clone"), [("x86_64", 56), ("aarch64", 220)])
def test_processes_and_threads_can_be_made_but_no_namespaces(machine: str, clone: int) -> None:
    assert action(machine, clone, 0x11) == ALLOW
    assert action(machine, clone, 0x3D0F00) == ALLOW
    for flag in (0x20000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000):
        assert action(machine, clone, flag | 0x11) == refused(errno.EPERM)


@pytest.mark.parametrize(("machine", "socket", "pair"), [("x86_64", 41, 53), ("aarch64", 198, 199)])
def test_sockets_of_few_families_are_allowed(machine: str, socket: int, pair: int) -> None:
    for number in (socket, pair):
        allowed = {family for family in range(256) if action(machine, number, family, 2, 0) == ALLOW}
        assert allowed == {1, 2, 10, 16}
        assert action(machine, number, 40, 1, 0) == refused(errno.EAFNOSUPPORT)
        assert {protocol for protocol in range(40) if action(machine, number, 16, 3, protocol) == ALLOW} == {0}
        for family in (2, 10):
            types = {kind for kind in range(16) if action(machine, number, family, kind | 0x80800, 0) == ALLOW}
            assert types == {1, 2}
            protocols = {each for each in range(512) if action(machine, number, family, 2, each) == ALLOW}
            assert protocols == {0, 1, 6, 17, 58}


@pytest.mark.parametrize(("machine", "ioctl"), [("x86_64", 16), ("aarch64", 29)])
def test_a_request_cannot_make_the_kernel_load_a_module(machine: str, ioctl: int) -> None:
    assert {action(machine, ioctl, 3, request) for request in (0x5401, 0x5413, 0x541B, 0x8912)} == {ALLOW}
    for request in (0x5423, 0x8940, 0x8982, 0x89A0):
        assert action(machine, ioctl, 3, request) == refused(errno.EPERM)
        assert action(machine, ioctl, 3, 1 << 32 | request) == refused(errno.EPERM)


@pytest.mark.parametrize(("machine", "personality"), [("x86_64", 135), ("aarch64", 92)])
def test_a_personality_cannot_switch_protections_off(machine: str, personality: int) -> None:
    for harmless in (0, 8, 0x20000, 0x20008, 0xFFFFFFFF):
        assert action(machine, personality, harmless) == ALLOW
    for flag in (0x40000, 0x100000, 0x400000):
        assert action(machine, personality, flag) == refused(errno.EPERM)


async def test_a_program_can_make_sockets_of_few_families(bench: Bench) -> None:
    source = """
import errno, socket
made = []
for family in range(1, 64):
    try:
        socket.socket(family, socket.SOCK_DGRAM).close()
        made.append(family)
    except OSError as error:
        assert error.errno in (errno.EAFNOSUPPORT, errno.EPERM), (family, error)
for kind, protocol in ((1, 132), (5, 0), (5, 132), (6, 33), (1, 262), (1, 256), (2, 136), (3, 255), (10, 0)):
    try: socket.socket(socket.AF_INET, kind, protocol)
    except OSError as error: assert error.errno in (errno.EPROTONOSUPPORT, errno.ESOCKTNOSUPPORT), (kind, error)
    else: raise SystemExit((kind, protocol))
print(made, [family.name for family in socket.AddressFamily if family in made])
"""
    ran = await bench.run(source, "python")
    assert ran.code == 0, ran.err
    assert set(ran.out.split("]")[0].strip("[").split(", ")) <= {"1", "2", "10", "16"}


async def test_calls_that_need_privileges_fail_as_anywhere(bench: Bench) -> None:
    source = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
for name, arguments in {'mount': (b'x', b'/tmp', b'tmpfs', 0, None), 'unshare': (0x20000,), 'chroot': (b'/tmp',),
                        'setns': (0, 0), 'reboot': (0,), 'personality': (0x40000,)}.items():
    print(name, getattr(libc, name)(*arguments), os.strerror(ctypes.get_errno()))
"""
    ran = await bench.run(source, "python")
    assert ran.code == 0, ran.err
    assert all(line.endswith(" -1 Operation not permitted") for line in ran.out.splitlines()), ran.out


async def test_usual_programs_find_the_calls_that_they_need(bench: Bench) -> None:
    source = """
import concurrent.futures, mmap, multiprocessing, os, select, signal, socket, sqlite3, subprocess, tempfile, threading
with concurrent.futures.ProcessPoolExecutor(2) as pool: assert [*pool.map(abs, [-1, 2])] == [1, 2]
with multiprocessing.Pool(2) as pool: assert pool.map(abs, [-1]) == [1]
threads = [threading.Thread(target=os.getpid) for _ in range(4)]
[thread.start() for thread in threads], [thread.join() for thread in threads]
assert subprocess.run(['sh', '-c', 'echo x | cat'], capture_output=True).stdout == b'x\\n'
sqlite3.connect('data.db').execute('create table t (a)')
one, two = socket.socketpair(); one.send(b'x'); assert two.recv(1) == b'x'
server = socket.create_server(('127.0.0.1', 0)); socket.create_connection(server.getsockname()).close()
select.epoll().close(); signal.setitimer(signal.ITIMER_REAL, 9); os.sched_getaffinity(0); os.getrandom(4)
os.eventfd(0); os.sendfile; os.mkfifo('fifo'); os.posix_fallocate(os.open('f', os.O_CREAT | os.O_RDWR), 0, 10)
print('fine')
"""
    ran = await bench.run(source, "python")
    assert (ran.code, ran.out) == (0, "fine\n"), ran.err
