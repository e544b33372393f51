"""Environment and `/etc` of a program: what programs expect of a usual machine, and nothing of the worker's."""

import os
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from infra.contract.execution import ExecLimits

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
HOST_NAME = "sandbox"
USER = "user"
CACHE = "/tmp/.cache"  # noqa: S108
"""Folder for caches: a cache in the home directory would be stored as a result of the run."""

_OF_HOST = (
    "etc/alternatives",
    "etc/chromium.d",
    "etc/crypto-policies",
    "etc/dictionaries-common",
    "etc/fonts",
    "etc/groff",
    "etc/ImageMagick-*",
    "etc/java*",
    "etc/ld.so.cache",
    "etc/libreoffice",
    "etc/locale.alias",
    "etc/localtime",
    "etc/manpath.config",
    "etc/maven/logging",
    "etc/maven/m2.conf",
    "etc/mime.types",
    "etc/os-release",
    "etc/perl",
    "etc/php/*/cli",
    "etc/php/*/mods-available",
    "etc/pki/ca-trust",
    "etc/pki/java",
    "etc/pki/tls/certs",
    "etc/pki/tls/openssl.cnf",
    "etc/protocols",
    "etc/R",
    "etc/services",
    "etc/ssl/certs",
    "etc/ssl/openssl.cnf",
    "etc/texmf",
    "etc/timezone",
    "etc/xml",
    "var/cache/fontconfig",
    "var/lib/aspell",
    "var/lib/gems",
    "var/lib/ghc",
    "var/lib/texmf",
)
"""Patterns of what is mounted from the host's `/etc` and `/var`: configuration and data that packages install and that
hold no secrets, unlike the settings of maven (passwords of repositories) and the pools of php-fpm. Each mount makes the
start of a program slower, so what few programs need is missing."""

OFFLINE = {"npm_config_fetch_retries": "0", "PIP_RETRIES": "0"}
"""Variables of a program without a network: what needs one fails immediately, and not after a minute of retries."""


def environment(home: str, python: Path, limits: ExecLimits) -> dict[str, str]:
    """Return the program's complete environment. It holds no variable of the worker, because these hold secrets."""
    # Node takes the memory of the host for its own, and would exceed the limit before it collects any garbage.
    heap_mb = limits.memory_bytes * 3 // 4 // 1024**2
    return {
        "PATH": f"{python / 'bin'}:{SYSTEM_PATH}",
        "HOME": home,
        "USER": USER,
        "LOGNAME": USER,
        "SHELL": _shell(),
        "TERM": "dumb",
        "LANG": "C.UTF-8",
        "TMPDIR": "/tmp",  # noqa: S108
        "PYTHONPATH": home,
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "NODE_OPTIONS": f"--max-old-space-size={heap_mb}",
        "XDG_CACHE_HOME": CACHE,
        "GOMODCACHE": f"{CACHE}/go",
        "GRADLE_USER_HOME": f"{CACHE}/gradle",
        "MAVEN_OPTS": f"-Dmaven.repo.local={CACHE}/maven",
        "MPLCONFIGDIR": f"{CACHE}/matplotlib",
        "MYPY_CACHE_DIR": f"{CACHE}/mypy",
        "RUFF_CACHE_DIR": f"{CACHE}/ruff",
        "YARN_CACHE_FOLDER": f"{CACHE}/yarn",
        "npm_config_cache": f"{CACHE}/npm",
        "npm_config_update_notifier": "false",
    }


def proxy_environment(url: str) -> dict[str, str]:
    """Return the variables by which a program finds its proxy, in every spelling that programs look for."""
    names = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")
    own = "localhost,127.0.0.1,::1"
    return {**dict.fromkeys(names, url), "no_proxy": own, "NO_PROXY": own, "NODE_USE_ENV_PROXY": "1"}


def etc_files(uid: int, gid: int, home: str) -> dict[str, str]:
    """Return the files of `/etc` that are made for the program, by name."""
    users = {uid: f"{USER}:x:{uid}:{gid}:{USER}:{home}:{_shell()}"}
    groups = {gid: f"{USER}:x:{gid}:"}
    for number, name in ((0, "root"), (65534, "nobody")):
        users.setdefault(number, f"{name}:x:{number}:{number}:{name}:/nonexistent:/usr/sbin/nologin")
        groups.setdefault(number, f"{name}:x:{number}:")
    hosts = ["127.0.0.1 localhost", f"127.0.0.1 {HOST_NAME}"]
    if Path("/proc/net/if_inet6").exists():
        hosts.append("::1 localhost ip6-localhost ip6-loopback")
    sources = ("passwd", "group", "hosts", "services", "protocols", "networks", "rpc")
    return {
        "passwd": _lines(users.values()),
        "group": _lines(groups.values()),
        "hosts": _lines(hosts),
        "hostname": f"{HOST_NAME}\n",
        "nsswitch.conf": _lines(f"{source}: files" for source in sources),
    }


@cache
def parts_of_host() -> tuple[str, ...]:
    """Return the paths that are mounted from the host's `/etc` and `/var`. Looked up once: every program needs them."""
    found = {path for pattern in _OF_HOST for path in Path("/").glob(pattern)}
    return tuple(str(path) for path in sorted(found) if path.exists() and os.access(path, os.R_OK))


def _shell() -> str:
    return "/bin/bash" if Path("/bin/bash").exists() else "/bin/sh"


def _lines(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
