"""Filter of system calls: allows what syscalls.py lists, for what the namespaces and limits of the sandbox do not stop.

A call that is not listed fails as on a kernel without it (ENOSYS), so that libraries use a fallback, or as for any
unprivileged program (EPERM). Five calls depend on their arguments:
- `clone` makes processes and threads, but no namespaces. A user namespace would make a program root inside, which opens
  large parts of the kernel to it, and lets it mount file systems of any size.
- `socket` and `socketpair` make sockets of the families below. Network namespaces do not isolate every family: AF_VSOCK
  reaches the hypervisor and the host's listeners. Of AF_INET and AF_INET6 they make TCP, UDP and ICMP, as the kernel
  would load its modules for SCTP, DCCP and others at the wish of any program.
- `ioctl` makes no request at which the kernel loads modules for anybody: line disciplines of terminals, bridges, VLANs.
- `personality` selects one of the harmless ones.
"""

import errno
import platform
import struct
from collections.abc import Iterable
from functools import cache
from typing import TypeAlias

from infra.contract.errors import ExecutorUnavailable
from infra.local_executor.syscalls import ALLOWED, PRIVILEGED, numbers

NAMESPACES = 0x7E020000
"""Flags of `clone` that make a namespace. clone3 takes its flags in memory, which a filter cannot read: it is not
listed, and libc falls back to clone."""
AF_NETLINK = 16
AF_UNIX = 1
INTERNET = {"AF_INET": 2, "AF_INET6": 10}
SOCK_STREAM, SOCK_DGRAM = 1, 2
SOCKET_TYPE = 0xF
"""Bits of the type of a socket that are no flags."""
PROTOCOLS = {"default": 0, "IPPROTO_ICMP": 1, "IPPROTO_TCP": 6, "IPPROTO_UDP": 17, "IPPROTO_ICMPV6": 58}
NETLINK_ROUTE = 0
"""Protocol of AF_NETLINK that lists network interfaces; libc uses it to resolve names. Others reach further parts of
the kernel."""
PERSONALITIES = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)
"""Linux, 32-bit Linux, both with the `uname` of Linux 2.6, and the query. Container engines allow the same."""

MODULE_REQUESTS = {
    "TIOCSETD": 0x5423,
    "SIOCGIFBR": 0x8940,
    "SIOCSIFBR": 0x8941,
    "SIOCGIFVLAN": 0x8982,
    "SIOCSIFVLAN": 0x8983,
    "SIOCBRADDBR": 0x89A0,
    "SIOCBRDELBR": 0x89A1,
}
"""Requests of `ioctl` that make the kernel load a module, whatever rights the program has."""

Line: TypeAlias = tuple[int, int, int, int]
"""Instruction of the filter: operation, lines to skip if true, lines to skip if false, operand."""

_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_CLONE = {"x86_64": 56, "aarch64": 220}
_IOCTL = {"x86_64": 16, "aarch64": 29}
_PERSONALITY = {"x86_64": 135, "aarch64": 92}
_SOCKET = {"x86_64": 41, "aarch64": 198}
_SOCKETPAIR = {"x86_64": 53, "aarch64": 199}
_X32 = 0x40000000
"""Bit of x32 system call numbers. They would reach the same calls under numbers that are not listed."""

_LOAD, _AND, _JUMP_EQUAL, _JUMP_AT_LEAST, _JUMP_ANY_BIT, _RETURN = 0x20, 0x54, 0x15, 0x35, 0x45, 0x06
_NUMBER_AT, _ARCHITECTURE_AT, _FIRST_ARGUMENT_AT, _SECOND_ARGUMENT_AT, _THIRD_ARGUMENT_AT = 0, 4, 16, 24, 32
_ALLOW, _KILL_PROCESS, _ERROR = 0x7FFF0000, 0x80000000, 0x00050000


@cache
def program(machine: str | None = None) -> bytes:
    """Return the filter as a BPF program. Raises ExecutorUnavailable for a processor without a table of calls."""
    machine = machine or platform.machine()
    if machine not in _ARCHITECTURES:
        raise ExecutorUnavailable(f"programs can be isolated on {' and '.join(_ARCHITECTURES)} only, not on {machine}")
    lines: list[Line] = [
        (_LOAD, 0, 0, _ARCHITECTURE_AT),
        (_JUMP_EQUAL, 1, 0, _ARCHITECTURES[machine]),
        (_RETURN, 0, 0, _KILL_PROCESS),  # calls of another architecture have other numbers
        (_LOAD, 0, 0, _NUMBER_AT),
    ]
    if machine == "x86_64":
        lines += [(_JUMP_AT_LEAST, 0, 1, _X32), _fail(errno.ENOSYS)]
    lines += _if_number(_CLONE[machine], [*_no_bit(NAMESPACES), _fail(errno.EPERM)])
    lines += _if_number(_PERSONALITY[machine], [*_one_of(PERSONALITIES), _fail(errno.EPERM)])
    lines += _if_number(_IOCTL[machine], _requests())
    for number in (_SOCKET[machine], _SOCKETPAIR[machine]):
        lines += _if_number(number, _sockets())
    for number in numbers(PRIVILEGED, machine).values():
        lines += [(_JUMP_EQUAL, 0, 1, number), _fail(errno.EPERM)]
    for first, last in _ranges(numbers(ALLOWED, machine).values()):
        lines += [(_JUMP_AT_LEAST, 0, 2, first), (_JUMP_AT_LEAST, 1, 0, last + 1), (_RETURN, 0, 0, _ALLOW)]
    lines.append(_fail(errno.ENOSYS))
    return b"".join(struct.pack("=HBBI", *line) for line in lines)


def _fail(number: int) -> Line:
    return (_RETURN, 0, 0, _ERROR | number)


def _if_number(number: int, lines: list[Line]) -> list[Line]:
    """Return the lines of a call's own check. They load its first argument, and must end with a return."""
    checked = [(_LOAD, 0, 0, _FIRST_ARGUMENT_AT), *lines]
    return [(_JUMP_EQUAL, 0, len(checked), number), *checked]


def _no_bit(mask: int) -> list[Line]:
    return [(_JUMP_ANY_BIT, 1, 0, mask), (_RETURN, 0, 0, _ALLOW)]


def _one_of(values: Iterable[int]) -> list[Line]:
    return [line for value in values for line in ((_JUMP_EQUAL, 0, 1, value), (_RETURN, 0, 0, _ALLOW))]


def _requests() -> list[Line]:
    refused = [line for value in MODULE_REQUESTS.values() for line in ((_JUMP_EQUAL, 0, 1, value), _fail(errno.EPERM))]
    return [(_LOAD, 0, 0, _SECOND_ARGUMENT_AT), *refused, (_RETURN, 0, 0, _ALLOW)]


def _sockets() -> list[Line]:
    netlink = [(_LOAD, 0, 0, _THIRD_ARGUMENT_AT), *_one_of((NETLINK_ROUTE,)), _fail(errno.EPROTONOSUPPORT)]
    internet = [
        (_LOAD, 0, 0, _SECOND_ARGUMENT_AT),
        (_AND, 0, 0, SOCKET_TYPE),
        (_JUMP_EQUAL, 2, 0, SOCK_STREAM),
        (_JUMP_EQUAL, 1, 0, SOCK_DGRAM),
        _fail(errno.ESOCKTNOSUPPORT),
        (_LOAD, 0, 0, _THIRD_ARGUMENT_AT),
        *_one_of(PROTOCOLS.values()),
        _fail(errno.EPROTONOSUPPORT),
    ]
    return [
        *_one_of((AF_UNIX,)),
        (_JUMP_EQUAL, 0, len(netlink), AF_NETLINK),
        *netlink,
        *[(_JUMP_EQUAL, len(INTERNET) - at, 0, family) for at, family in enumerate(INTERNET.values())],
        _fail(errno.EAFNOSUPPORT),
        *internet,
    ]


def _ranges(values: Iterable[int]) -> list[tuple[int, int]]:
    """Return first and last number of each run of successive numbers."""
    ranges: list[tuple[int, int]] = []
    for value in sorted(values):
        if ranges and ranges[-1][1] == value - 1:
            ranges[-1] = (ranges[-1][0], value)
        else:
            ranges.append((value, value))
    return ranges
