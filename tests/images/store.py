"""Images that buildah builds in a storage of its own, and containers of them without a container runtime."""

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.local_executor import sandbox

BASE = "localhost/base"


@dataclass(frozen=True)
class ImageStore:
    """Storage of images below `folder`."""

    folder: Path

    def create(self) -> None:
        """Write the configuration. Overlays save copies of whole file systems, where they can be mounted."""
        for name in ("temporary", "lower", "upper", "work", "mounted"):
            (self.folder / name).mkdir(parents=True)
        driver = "overlay" if self._overlays() else "vfs"
        paths = f'graphroot = "{self.folder}/images"\nrunroot = "{self.folder}/run"\n'
        (self.folder / "storage.conf").write_text(f'[storage]\ndriver = "{driver}"\n{paths}')

    def run(self, words: list[str]) -> str:
        """Run buildah; return its output. Raises CalledProcessError."""
        own = {
            "CONTAINERS_STORAGE_CONF": f"{self.folder}/storage.conf",
            "TMPDIR": f"{self.folder}/temporary",
            "BUILDAH_ISOLATION": "chroot",
        }
        ran = subprocess.run(words, env={**os.environ, **own}, capture_output=True, text=True, check=False, cwd="/")
        if ran.returncode:
            # The messages of the programs that the build runs come first, and the last lines repeat their command.
            raise AssertionError(f"{' '.join(words)}\n{ran.stdout[-3000:]}{ran.stderr[-5000:]}")
        return ran.stdout

    def load_base(self, tar: Path) -> None:
        """Store a root file system as the image BASE, which has nothing but this layer."""
        layout = self.folder / "base"
        blobs = layout / "blobs" / "sha256"
        blobs.mkdir(parents=True)
        with tar.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        (blobs / digest).symlink_to(tar)
        layer = {"digest": f"sha256:{digest}", "size": tar.stat().st_size}
        config = {
            "architecture": {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine],
            "os": "linux",
            "config": {"Cmd": ["/bin/sh"]},
            "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
            # Without a history, buildah 1.28 cannot build an image over an image over this one.
            "history": [{"created_by": "mmdebstrap"}],
        }
        image = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", **_blob(blobs, config)},
            "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", **layer}],
        }
        listed = {"mediaType": image["mediaType"], **_blob(blobs, image)}
        (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [listed]}))
        (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
        loaded = self.run(["buildah", "pull", "--quiet", f"oci:{layout}"]).split()[-1]
        self.run(["buildah", "tag", loaded, BASE])
        shutil.rmtree(layout)

    def config(self, image: str) -> dict[str, Any]:
        """Return the configuration of an image, as a container runtime reads it."""
        inspected: dict[str, Any] = json.loads(self.run(["buildah", "inspect", "--type=image", image]))
        config: dict[str, Any] = inspected["OCIv1"]["config"]
        return config

    def mount(self, image: str) -> Path:
        """Return the folder with the root file system of a new container."""
        container = self.run(["buildah", "from", "--pull-never", image]).split()[-1]
        return Path(self.run(["buildah", "mount", container]).strip())

    def remove(self) -> None:
        """Unmount and delete everything."""
        self.run(["buildah", "rm", "--all"])
        self.run(["buildah", "rmi", "--all", "--force"])
        shutil.rmtree(self.folder, ignore_errors=True)

    def _overlays(self) -> bool:
        layers = f"lowerdir={self.folder}/lower,upperdir={self.folder}/upper,workdir={self.folder}/work"
        mounted = str(self.folder / "mounted")
        made = subprocess.run(["mount", "-t", "overlay", "overlay", "-o", layers, mounted], capture_output=True)
        if made.returncode == 0:
            subprocess.run(["umount", mounted], check=True)
        return made.returncode == 0


def contained(root: Path, uid: int, variables: Mapping[str, str], *mounts: str) -> list[str]:
    """Return the beginning of a command that runs a program in a container, as the restricted profile has it.

    Its root is read-only, the program has this uid, PID 1 and no capabilities. `mounts` are arguments of bubblewrap;
    without any, only `/tmp` can be written. The network is that of the tests.
    """
    parts = [str(sandbox.find_bwrap()), "--ro-bind", str(root), "/", "--proc", "/proc", "--dev", "/dev"]
    parts += ["--perms", "1777", "--tmpfs", "/tmp", *mounts, "--remount-ro", "/"]
    parts += ["--unshare-pid", "--unshare-ipc", "--unshare-uts", "--as-pid-1", "--die-with-parent", "--clearenv"]
    for name, value in variables.items():
        parts += ["--setenv", name, value]
    parts += ["--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    return [
        *parts,
        *("setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--no-new-privs", "--inh-caps=-all"),
    ]


def _blob(blobs: Path, content: dict[str, Any]) -> dict[str, Any]:
    data = json.dumps(content).encode()
    digest = hashlib.sha256(data).hexdigest()
    (blobs / digest).write_bytes(data)
    return {"digest": f"sha256:{digest}", "size": len(data)}
