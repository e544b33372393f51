"""The filter of system calls: what the other walls of the sandbox do not stop.

A user namespace makes a program root inside it, with all that the kernel lets such a root reach, and file systems of
any size among it; memory in nameless files and in segments of System V belongs to no process, so no limit counts it.
The rest are doors that no tool needs and that kernels have had holes behind.
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
"""clone3 has its flags in memory, where a filter cannot look; libraries then use clone."""
_X32 = 0x40000000

_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _JUMP_ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER_AT, _ARCHITECTURE_AT, _FIRST_ARGUMENT_AT = 0, 4, 16
_ALLOW, _KILL_PROCESS, _ERROR = 0x7FFF0000, 0x80000000, 0x00050000


def program(machine: str | None = None) -> bytes:
    """The filter as the kernel takes it. Raises ExecutorUnavailable for a processor whose calls are not known here."""
    machine = machine or platform.machine()
    if machine not in _ARCHITECTURES:
        raise ExecutorUnavailable(f"programs can be isolated on {' and '.join(_ARCHITECTURES)} only, not on {machine}")
    refused = sorted([*_REFUSED[machine].values(), *_REFUSED_EVERYWHERE.values()])
    lines = [
        (_LOAD, 0, 0, _ARCHITECTURE_AT),
        (_JUMP_EQUAL, 1, 0, _ARCHITECTURES[machine]),
        (_RETURN, 0, 0, _KILL_PROCESS),
        (_LOAD, 0, 0, _NUMBER_AT),
    ]
    if machine == "x86_64":
        lines += [(_JUMP_AT_LEAST, 0, 1, _X32), (_RETURN, 0, 0, _ERROR | errno.ENOSYS)]
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
