"""Filter of system calls, for what the namespaces and limits of the sandbox do not stop.

Refused are:
- User namespaces. They make a program root inside, which opens large parts of the kernel to it, and lets it mount file
  systems of any size.
- Anonymous memory files and System V shared memory. They belong to no process, so no limit counts them.
- System calls that no tool needs and that had kernel vulnerabilities in the past.
"""

import errno
import platform
import struct

from infra.contract.errors import ExecutorUnavailable

CLONE_NEWUSER = 0x10000000

_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_BY_FLAGS = {"x86_64": {"clone": 56, "unshare": 272}, "aarch64": {"clone": 220, "unshare": 97}}
_REFUSED = {
    "x86_64": {
        "add_key": 248,
        "bpf": 321,
        "keyctl": 250,
        "memfd_create": 319,
        "perf_event_open": 298,
        "request_key": 249,
        "shmget": 29,
        "userfaultfd": 323,
    },
    "aarch64": {
        "add_key": 217,
        "bpf": 280,
        "keyctl": 219,
        "memfd_create": 279,
        "perf_event_open": 241,
        "request_key": 218,
        "shmget": 194,
        "userfaultfd": 282,
    },
}
_REFUSED_EVERYWHERE = {"clone3": 435, "io_uring_setup": 425, "memfd_secret": 447}
"""clone3 takes its flags in memory, which a filter cannot read. libc falls back to clone."""
_X32 = 0x40000000
"""Bit of x32 system call numbers. They would reach the same calls under numbers that are not listed here."""

_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _JUMP_ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER_AT, _ARCHITECTURE_AT, _FIRST_ARGUMENT_AT = 0, 4, 16
_ALLOW, _KILL_PROCESS, _ERROR = 0x7FFF0000, 0x80000000, 0x00050000


def program(machine: str | None = None) -> bytes:
    """Return the filter as a BPF program. Raises ExecutorUnavailable for a processor without a table of calls."""
    machine = machine or platform.machine()
    if machine not in _ARCHITECTURES:
        raise ExecutorUnavailable(f"programs can be isolated on {' and '.join(_ARCHITECTURES)} only, not on {machine}")
    refused = sorted([*_REFUSED[machine].values(), *_REFUSED_EVERYWHERE.values()])
    lines = [
        (_LOAD, 0, 0, _ARCHITECTURE_AT),
        (_JUMP_EQUAL, 1, 0, _ARCHITECTURES[machine]),
        (_RETURN, 0, 0, _KILL_PROCESS),  # calls of another architecture have other numbers
        (_LOAD, 0, 0, _NUMBER_AT),
    ]
    if machine == "x86_64":
        lines += [(_JUMP_AT_LEAST, 0, 1, _X32), (_RETURN, 0, 0, _ERROR | errno.ENOSYS)]
    # ENOSYS, as of a kernel without the call: libraries then use a fallback.
    for number in refused:
        lines += [(_JUMP_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ERROR | errno.ENOSYS)]
    for number in _BY_FLAGS[machine].values():
        lines += [
            (_JUMP_EQUAL, 0, 4, number),
            (_LOAD, 0, 0, _FIRST_ARGUMENT_AT),
            (_JUMP_ANY_BIT, 0, 1, CLONE_NEWUSER),
            (_RETURN, 0, 0, _ERROR | errno.EPERM),
            (_RETURN, 0, 0, _ALLOW),
        ]
    lines.append((_RETURN, 0, 0, _ALLOW))
    return b"".join(struct.pack("=HBBI", *line) for line in lines)
