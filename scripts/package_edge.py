"""Package of the API for AWS Lambda: `python -m scripts.package_edge` writes `build/edge/edge.zip` and `package.json`.

The zip holds what the two functions import and nothing else, compiled for the interpreter that runs this program. So
that the runtime cannot differ from it, `serverless.yml` reads runtime and architecture from `package.json`.
"""

import argparse
import io
import json
import os
import py_compile
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from modulefinder import ModuleFinder
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "build" / "edge"
SERVER = Requirement("swissbrain-server[edge]")
ENTRY_POINTS = ("edge_api.handler", "edge_api.lambda_stream.__main__")
NOT_IMPORTED = {"aiohttp", "httptools", "rich", "swissbrain", "tenacity", "typer", "uvicorn", "uvloop"}
"""Dependencies of the server distribution that only servers and commands use."""
PLATFORMS = {
    "arm64": ("manylinux2014_aarch64", "manylinux_2_17_aarch64"),
    "x86_64": ("manylinux2014_x86_64", "manylinux_2_17_x86_64"),
}
"""Platforms of native modules by Lambda's name of the architecture; the oldest runtime has glibc 2.26."""
BOTOCORE_DATA = (
    "s3/",
    "_retry.json",
    "endpoints.json",
    "partitions.json",
    "sdk-default-configuration.json",
)
"""Beginnings of the paths in `botocore/data` that a client for S3 reads; the rest describes other services."""
UNUSED = ("boto3/data/", "boto3/examples/", "botocore/cacert.pem", "../")
"""Resource classes of boto3, its examples, certificates that those of certifi replace, and files outside of
site-packages, such as console scripts."""
UNUSED_SUFFIXES = {".pyc", ".pyi", ".typed"}
METADATA = ("METADATA", "licenses/", "LICENSE")
CERTIFICATES = "certificates"
"""Folder of the package that `SSL_CERT_DIR` names: OpenSSL reads only the certificates that a connection needs."""
MAX_BYTES = 5_000_000
TIMEOUT_S = 300


class PackageError(Exception):
    """The package cannot be built. The message is one line for users."""


def own_files() -> Iterator[tuple[str, Path]]:
    """Yield the modules that the functions import, also those imported inside of functions, and data beside them."""
    finder = ModuleFinder(path=[str(ROOT)])
    for name in ENTRY_POINTS:
        finder.import_hook(name)
    found = {Path(file) for module in finder.modules.values() if (file := getattr(module, "__file__", None))}
    for path in {*found, *_data_beside(found)}:
        yield path.relative_to(ROOT).as_posix(), path


def _data_beside(modules: set[Path]) -> Iterator[Path]:
    for package in {path.parent for path in modules if path.name == "__init__.py"}:
        yield from (path for path in package.iterdir() if path.is_file() and path.suffix not in {".py", ".pyc"})


def dependencies() -> list[Distribution]:
    """Return the installed distributions that the functions need. Raises PackageError if one is missing."""
    found: dict[str, Distribution] = {}
    waiting = [SERVER]
    while waiting:
        wanted = waiting.pop()
        name = canonicalize_name(wanted.name)
        if name in found or name in NOT_IMPORTED:
            continue
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:
            raise PackageError(f"the package '{name}' is not installed; 'make setup' installs all of them") from None
        for text in found[name].requires or ():
            requirement = Requirement(text)
            extras = wanted.extras or {""}
            if not requirement.marker or any(requirement.marker.evaluate({"extra": extra}) for extra in extras):
                waiting.append(requirement)
    del found[SERVER.name]
    return [found[name] for name in sorted(found)]


def files_of(package: Distribution, architecture: str, scratch: Path) -> Iterator[tuple[str, Path]]:
    """Yield the files of a distribution for the architecture. Raises PackageError if it cannot be had for it."""
    if _fits(package, architecture):
        pairs = [(str(path), Path(str(package.locate_file(path)))) for path in package.files or ()]
    else:
        folder = _download(package, architecture, scratch)
        pairs = [(str(path.relative_to(folder)), path) for path in folder.rglob("*") if path.is_file()]
    yield from ((name, path) for name, path in pairs if _is_used(name))


def _fits(package: Distribution, architecture: str) -> bool:
    """Return whether the installed files are pure Python, or native modules for the architecture on Lambda."""
    lines = (package.read_text("WHEEL") or "").splitlines()
    tags = [line.removeprefix("Tag: ") for line in lines if line.startswith("Tag: ")]
    return any(tag.endswith(("-any", *PLATFORMS[architecture])) for tag in tags)


def _download(package: Distribution, architecture: str, scratch: Path) -> Path:
    """Install one distribution for another platform, in the installed version, and return the new folder."""
    folder = scratch / package.name
    platforms = [word for name in PLATFORMS[architecture] for word in ("--platform", name)]
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    command = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--quiet", "--no-compile"]
    command += ["--no-deps", "--only-binary=:all:", "--implementation=cp", f"--python-version={version}", *platforms]
    command += [f"--target={folder}", f"{package.name}=={package.version}"]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise PackageError(f"pip took more than {TIMEOUT_S} s to fetch {package.name} for {architecture}") from None
    if ended.returncode:
        lines = [line for line in ended.stderr.splitlines() if line.startswith("ERROR")] or ["without a message"]
        raise PackageError(f"pip cannot fetch {package.name} {package.version} for {architecture}: {lines[-1]}")
    return folder


def _is_used(name: str) -> bool:
    if name.startswith(UNUSED) or Path(name).suffix in UNUSED_SUFFIXES:
        return False
    if name.startswith("botocore/data/"):
        return name.removeprefix("botocore/data/").startswith(BOTOCORE_DATA)
    folder, _, rest = name.partition("/")
    return not folder.endswith(".dist-info") or rest.startswith(METADATA)


def certificates(scratch: Path) -> Iterator[tuple[str, Path]]:
    """Yield the root certificates of certifi under the names by which OpenSSL looks them up. Raises PackageError.

    To read all of them at once, as certifi's single file needs it, costs a cold start 25 ms.
    """
    folder = scratch / CERTIFICATES
    folder.mkdir()
    end = "-----END CERTIFICATE-----\n"
    bundle = Path(str(distribution("certifi").locate_file("certifi/cacert.pem"))).read_text(encoding="utf-8")
    for number, text in enumerate(bundle.split(end)[:-1]):
        begin = text.index("-----BEGIN CERTIFICATE-----")
        (folder / f"{number}.pem").write_text(text[begin:] + end)
    try:
        ended = subprocess.run(
            ["openssl", "rehash", str(folder)], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    except FileNotFoundError:
        raise PackageError("the program 'openssl' is not installed; it names the certificates of the package") from None
    if ended.returncode:
        raise PackageError(f"openssl cannot name the certificates: {(ended.stderr or ended.stdout).strip()[:200]}")
    yield from ((f"{CERTIFICATES}/{path.name}", path) for path in folder.iterdir() if path.is_symlink())


def build(architecture: str, folder: Path = FOLDER) -> Path:
    """Write the zip and `package.json` into the folder; return the path of the zip.

    The same files give the same bytes. Raises PackageError, and then leaves an earlier package unchanged.
    """
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        files = dict(own_files())
        for package in dependencies():
            files |= files_of(package, architecture, scratch)
        files |= certificates(scratch)
        data = _zip(files, scratch)
    if len(data) > MAX_BYTES:
        raise PackageError(f"the zip has {len(data):,} bytes; at most {MAX_BYTES:,} are allowed, for fast cold starts")
    runtime = f"python{sys.version_info.major}.{sys.version_info.minor}"
    folder.mkdir(parents=True, exist_ok=True)
    _replace(folder / "edge.zip", data)
    _replace(folder / "package.json", json.dumps({"runtime": runtime, "architecture": architecture}).encode() + b"\n")
    return folder / "edge.zip"


def _zip(files: dict[str, Path], scratch: Path) -> bytes:
    """Return a zip of the files: modules compiled, as Python without sources reads them, all others unchanged."""
    buffer = io.BytesIO()
    with ZipFile(buffer, "w", ZIP_DEFLATED, compresslevel=9) as archive:
        for name, path in sorted(files.items()):
            content = path
            if path.suffix == ".py":
                # A hash instead of a time keeps the bytes equal from build to build; nothing checks it.
                mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
                content = scratch / "module.pyc"
                # Optimized code would lose the docstrings, which are part of /openapi.json.
                py_compile.compile(str(path), str(content), f"/var/task/{name}", True, 0, mode)
            entry = ZipInfo(f"{name}c" if path.suffix == ".py" else name)
            entry.compress_type = ZIP_DEFLATED
            # Only Lambda's wrapper script is executed; everything must be readable for Lambda's user.
            entry.external_attr = (0o100755 if os.access(path, os.X_OK) else 0o100644) << 16
            archive.writestr(entry, content.read_bytes())
    return buffer.getvalue()


def _replace(path: Path, data: bytes) -> None:
    written = path.with_suffix(".new")
    written.write_bytes(data)
    written.replace(path)


def main() -> int:
    """Build the package. Exit code 1 and one line if that fails."""
    parser = argparse.ArgumentParser(prog="package_edge", description="Build the package of the API for AWS Lambda.")
    parser.add_argument("--architecture", choices=sorted(PLATFORMS), default="arm64")
    arguments = parser.parse_args()
    try:
        path = build(arguments.architecture)
    except PackageError as exc:
        sys.stderr.write(f"{exc}\n")
        return 1
    described = json.loads((FOLDER / "package.json").read_text())
    size = path.stat().st_size
    sys.stdout.write(
        f"{path.relative_to(ROOT)}: {size:,} bytes for {described['runtime']} on {arguments.architecture}\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
