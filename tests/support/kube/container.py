"""Container of a pod: its command under bubblewrap, with the view of the file system that its pod gives it.

The container shares the network of the host, so the ports of containers are chosen by the kernel: see `network.py`.
"""

import asyncio
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from infra.local_executor import sandbox
from tests.support.kube.errors import Obj
from tests.support.processes import children_of

Image: TypeAlias = Mapping[str, Path]
"""Files of an image, by their absolute paths in it. Python and the programs of the host are in every image."""
NOT_FOUND = "exec: %s: executable file not found in $PATH"


class CannotStart(Exception):
    """Container whose program does not exist."""


@dataclass
class Container:
    """Container that was started. `log` has stdout and stderr, `volumes` are the folders of emptyDirs on disk."""

    process: "subprocess.Popen[bytes]"
    log: Path
    volumes: dict[str, Path]
    exit_code: int | None = None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the first process from outside, as the container runtime does."""
        # The number of a process that has been reaped may belong to a thread by now, even of this process, and its
        # children would be those of that whole process.
        if self.process.poll() is not None:
            return
        for first in children_of(self.process.pid):
            with suppress(ProcessLookupError):
                os.kill(first, number)

    def kill(self) -> None:
        """Kill the container with all its processes; return once they are dead."""
        # The outer process may not signal another user, so the first process is killed, and the kernel kills the rest.
        self.signal(signal.SIGKILL)
        self.exit_code = self.process.wait(60)

    def watch(self, ended: Callable[[], object]) -> None:
        """Set `exit_code` when the container ends, then call `ended`."""
        loop = asyncio.get_running_loop()
        pidfd = os.pidfd_open(self.process.pid)

        def reap() -> None:
            loop.remove_reader(pidfd)
            os.close(pidfd)
            self.exit_code = self.process.wait()
            ended()

        loop.add_reader(pidfd, reap)


@dataclass(frozen=True)
class PodFolder:
    """Folder of a pod on the host, and the files of its image."""

    path: Path
    image: Image = field(default_factory=dict)

    def start(self, spec: Obj, changes: Mapping[str, str]) -> Container:
        """Start the container of a pod. `changes` are variables with other values here. Raises CannotStart."""
        container = spec["containers"][0]
        argv = [*container.get("command", []), *container.get("args", [])]
        path = f"{sandbox.python_home() / 'bin'}:/usr/local/bin:/usr/bin:/bin"
        if not argv or (shutil.which(argv[0], path=path) is None and argv[0] not in self.image):
            raise CannotStart(NOT_FOUND % (argv[:1] or ["no command"]))
        variables = {"PATH": path, "HOSTNAME": "pod"}
        variables |= {found["name"]: found.get("value", "") for found in container.get("env", [])} | dict(changes)
        memory = _memory_volumes(spec)
        volumes = self._volumes(spec, container, memory)
        command = self._command(spec, container, variables, volumes, memory)
        self.path.mkdir(parents=True, exist_ok=True)
        log = self.path / "log"
        with log.open("wb") as output:
            process = subprocess.Popen([*command, *argv], stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        return Container(process, log, volumes)

    def _volumes(self, spec: Obj, container: Obj, memory: Mapping[str, int]) -> dict[str, Path]:
        made = {}
        for mount in container.get("volumeMounts", []):
            if mount["name"] in memory:
                continue
            folder = self.path / "volumes" / mount["name"]
            folder.mkdir(parents=True)
            group = (spec.get("securityContext") or {}).get("fsGroup")
            if group and os.geteuid() == 0:
                os.chown(folder, 0, group)
            folder.chmod(0o2777 if group else 0o777)  # as kubelets make emptyDirs
            made[mount["mountPath"]] = folder
        return made

    def _command(
        self,
        spec: Obj,
        container: Obj,
        variables: Mapping[str, str],
        volumes: Mapping[str, Path],
        memory: Mapping[str, int],
    ) -> list[str]:
        python = sandbox.python_home()
        parts = [str(sandbox.find_bwrap()), "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--as-pid-1"]
        parts += ["--die-with-parent", "--cap-drop", "ALL", "--proc", "/proc", "--dev", "/dev"]
        parts += ["--ro-bind", "/usr", "/usr"]
        for name in ("bin", "lib", "lib64"):
            parts += ["--symlink", f"usr/{name}", f"/{name}"]
        if not python.is_relative_to("/usr"):
            parts += [*_folders(python), "--ro-bind", str(python), str(python)]
        for target, source in self.image.items():
            parts += [*_folders(Path(target)), "--ro-bind", str(source), target]
        for target, folder in volumes.items():
            parts += ["--bind", str(folder), target]
        for mount in container.get("volumeMounts", []):
            if size := memory.get(mount["name"]):
                parts += ["--perms", "1777", "--size", str(size), "--tmpfs", mount["mountPath"]]
        if (container.get("securityContext") or {}).get("readOnlyRootFilesystem"):
            parts += ["--remount-ro", "/"]
        parts += ["--clearenv", *(part for name, value in variables.items() for part in ("--setenv", name, value))]
        return [*parts, *_user(spec)]


def _memory_volumes(spec: Obj) -> dict[str, int]:
    """Return the sizes of the volumes in memory, which a kubelet limits to their `sizeLimit`."""
    folders = {volume["name"]: volume.get("emptyDir") or {} for volume in spec.get("volumes") or []}
    return {name: int(folder["sizeLimit"]) for name, folder in folders.items() if folder.get("medium") == "Memory"}


def _folders(path: Path) -> list[str]:
    """Return the arguments that make the folders above a path, which are not accessible to others by default."""
    return [part for parent in reversed(path.parents[:-1]) for part in ("--perms", "0755", "--dir", str(parent))]


def _user(spec: Obj) -> list[str]:
    context = spec.get("securityContext") or {}
    uid, gid = context.get("runAsUser", 65534), context.get("runAsGroup", 65534)
    if os.geteuid() != 0:
        return ["--unshare-user", "--uid", str(uid), "--gid", str(gid)]
    groups = [f"--groups={context['fsGroup']}"] if context.get("fsGroup") else ["--clear-groups"]
    drop = ["setpriv", f"--reuid={uid}", f"--regid={gid}", *groups, "--no-new-privs", "--inh-caps=-all"]
    return ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID", *drop]
