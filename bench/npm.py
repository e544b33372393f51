"""Packages of npm that are measured, installed into build/peers-npm with the versions of bench/peers."""

import asyncio
import json
import shutil
from asyncio.subprocess import PIPE, STDOUT
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "bench" / "peers"
FOLDER = ROOT / "build" / "peers-npm"
FILES = ("package.json", "package-lock.json", "bullmq.mjs", "restate.mjs", "step.mjs")
TIMEOUT_S = 600
LINE_CHARS = 300


class Unavailable(Exception):
    """The packages cannot be used on this machine. The message is one line for users."""


def versions() -> dict[str, str]:
    """Return the pinned version of each package."""
    found: dict[str, str] = json.loads((SOURCE / "package.json").read_text())["dependencies"]
    return found


async def install() -> Path:
    """Install the packages unless they are; return the folder of the scripts that use them. Raises Unavailable."""
    wanted = json.loads((SOURCE / "package.json").read_text())["engines"]["node"].removeprefix(">=")
    if missing := [name for name in ("node", "npm") if not shutil.which(name)]:
        raise Unavailable(f"benchmark 'peers' needs node {wanted} or newer and npm; not found: {', '.join(missing)}")
    FOLDER.mkdir(parents=True, exist_ok=True)
    found = (await _output("node", "--version")).strip().removeprefix("v")
    if _numbers(found) < _numbers(wanted):
        raise Unavailable(f"benchmark 'peers' needs node {wanted} or newer; found: {found}")
    for name in FILES:
        shutil.copyfile(SOURCE / name, FOLDER / name)
    lock, stamp = (FOLDER / "package-lock.json").read_text(), FOLDER / "installed"
    if not stamp.exists() or stamp.read_text() != lock:
        print(f"installing {', '.join(versions())} into {FOLDER.relative_to(ROOT)}", flush=True)
        # Scripts of packages are not needed, and one of them would report the installation to its vendor.
        await _output("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
        stamp.write_text(lock)
    return FOLDER


def node() -> str:
    """Return the path of node. Call `install` first."""
    return shutil.which("node") or "node"


def restate_server() -> Path:
    """Return the server binary of Restate. Raises Unavailable if there is none for this platform."""
    for binary in FOLDER.glob("node_modules/@restatedev/restate-server-*/bin/restate-server"):
        return binary
    raise Unavailable("benchmark 'peers': npm has no restate-server for this platform")


async def _output(*command: str) -> str:
    """Return the output of a command, which is killed if this task is cancelled. Raises Unavailable if it fails."""
    process = await asyncio.create_subprocess_exec(
        *command, cwd=FOLDER, stdout=PIPE, stderr=STDOUT, start_new_session=True
    )
    try:
        async with asyncio.timeout(TIMEOUT_S):
            output = (await process.communicate())[0].decode(errors="replace")
    except TimeoutError:
        raise Unavailable(f"'{' '.join(command[:2])}' took more than {TIMEOUT_S} s") from None
    finally:
        with suppress(ProcessLookupError):
            process.kill()
    if process.returncode:
        lines = [line.removeprefix("npm error ") for line in output.splitlines() if line.strip()]
        raise Unavailable(f"'{' '.join(command[:2])}' failed: {'; '.join(lines)[:LINE_CHARS] or 'without a message'}")
    return output


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())
