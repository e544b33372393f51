"""Images of Kubernetes, built from their files without a registry, and what runs in them.

All tests that need an image are in this file: parallel test processes get whole files, and each would build its own.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path
from stat import S_ISGID, S_ISUID

import httpx
import pytest

from infra.contract.execution import Command, Interpreter, LinePart
from infra.k8s_executor import pod_call
from infra.k8s_executor.job import FIRST_UID, UIDS
from infra.workspace import Workspaces
from scripts.images import Source, build_command, prepare
from tests.executors.pods import FollowedCalls, LonePodSession, Pods
from tests.images import base
from tests.images.store import BASE, ImageStore, contained
from tests.images.wheelhouse import write_wheel, write_wheels
from tests.support.processes import children_of
from tests.support.redis import accepts, free_port
from tests.support.servers import s3_fixture, workspaces_fixture
from tests.support.waiting import wait_until
from worker.browser.program import browser_program
from worker.browser.replies import MAX_REPLY_BYTES, decode_reply
from worker.browser.settings import BrowserSettings

SOURCE = Source("0.1.0", "0123456789abcdef0123456789abcdef01234567", 1_795_000_000)
IMAGES = ("worker", "api", "tools", "tools-browser")
WANTED = os.environ.get("TEST_IMAGES", "").split()
"""Images that are built, `all` for all of them. Without `tools` there is no `tools-browser`."""
BUILT = IMAGES if WANTED == ["all"] else tuple(name for name in IMAGES if name in WANTED)
USERS = {"worker": "10001:10001", "api": "10001:10001", "tools": "10000:10000", "tools-browser": "10000:10000"}
RUNNER = ["python3", "-I", "-S", "/opt/swissbrain/runner.pyz"]
ENTRYPOINTS = {
    "worker": ["/opt/swissbrain/bin/swissbrain-worker"],
    "api": ["/opt/swissbrain/bin/swissbrain-api"],
    "tools": RUNNER,
    "tools-browser": RUNNER,
}
COMPILERS = ("cc", "gcc", "g++", "c++", "clang", "ld", "as")
CACHES = ("var/lib/apt/lists", "var/cache/apt", "var/log", "tmp", "root", "sbom", "build", "context", "server")
API = {
    "UPSTASH_REDIS_REST_URL": "http://127.0.0.1:9",
    "UPSTASH_REDIS_REST_TOKEN": "t",
    "S3_ACCESS_KEY": "a",
    "S3_SECRET_KEY": "s",
    "SWISSBRAIN_API_KEYS": json.dumps([{"user": "ada", "scopes": ["runs:read"], "sha256": "0" * 64}]),
    "EDGE_HOST": "127.0.0.1",
}


def needs(image: str) -> pytest.MarkDecorator:
    """Skip a test if its image is not built."""
    return pytest.mark.skipif(image not in BUILT, reason=f"TEST_IMAGES does not name {image}")


PROGRAMS: dict[Interpreter, str] = {
    "sh": 'whoami; echo "$HOME"; echo made >"$HOME/file"; echo made >/tmp/file; '
    "cp /tmp/file /var/tmp/copy && python -V || exit; touch /usr/file || git --version",
    "python": "import getpass, pathlib, sqlite3, ssl\nprint(getpass.getuser(), pathlib.Path.home(), sep='\\n')\n"
    "pathlib.Path('file').write_text('made')",
    "node": "const os = require('os');\nconsole.log(os.userInfo().username);\nconsole.log(os.homedir());\n"
    "require('fs').writeFileSync('file', 'made');",
}
BROWSE = """
from playwright.sync_api import sync_playwright
with sync_playwright() as playwright:
    # The container is the sandbox.
    browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
    page = browser.new_page()
    page.set_content("<title>made</title><p>text")
    page.screenshot(path="page.png")
    print(page.title())
    browser.close()
"""

pytestmark = [
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not BUILT, reason="building images takes minutes: make test-images"),
    pytest.mark.skipif(os.geteuid() != 0, reason="images are built as root here"),
    pytest.mark.skipif(
        not (shutil.which("buildah") and shutil.which("mmdebstrap")),
        reason="building images needs buildah and mmdebstrap (apt-get install buildah mmdebstrap)",
    ),
    pytest.mark.skipif(
        sys.version_info[:2] not in base.RELEASES, reason="no release of Debian has this version of Python"
    ),
]
s3 = s3_fixture("module")


@dataclass(frozen=True)
class Built:
    """Built images, with the folders of their root file systems."""

    store: ImageStore
    roots: dict[str, Path]


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Context as users make it, and with the wheels that are installed here instead of a registry."""
    folder = tmp_path_factory.mktemp("context") / "context"
    server = prepare(folder).server
    (folder / "wheels").mkdir()
    extras = ("worker", "kubernetes", "egress", "edge", "gateway", "qstash")
    write_wheels(folder / "wheels", server, *extras, also=("cyclonedx-bom", "playwright"))
    write_wheel(folder, distribution("pip"))
    return folder


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, context: Path) -> Iterator[Built]:
    """Build the images."""
    folder = tmp_path_factory.mktemp("images")
    tar = folder / "base.tar"
    base.write(tar, base.RELEASES[sys.version_info[:2]])
    store = ImageStore(folder / "store")
    store.create()
    store.load_base(tar)
    registry = folder / "pip.conf"
    registry.write_text("[global]\nno-index = true\nfind-links = /context/wheels\n")
    secret = f"--secret=id=pip.conf,src={registry}"
    roots = {}
    try:
        for name in BUILT:
            below = "localhost/tools" if name == "tools-browser" else BASE
            command = build_command("buildah", name, below, f"localhost/{name}", SOURCE, context)
            store.run([*command[:2], secret, *command[2:]])
            roots[name] = store.mount(f"localhost/{name}")
        yield Built(store, roots)
    finally:
        store.remove()


workspaces = workspaces_fixture("module")


class ImagePods(Pods):
    """Maker of pods whose container is that of an image, under a uid that the executor may choose."""

    def __init__(self, folder: Path, root: Path, uid: int) -> None:
        super().__init__(folder, Path())
        self._root, self._uid = root, uid

    def _command(self, workspace: Path, variables: dict[str, str], tmp_bytes: int) -> list[str]:
        os.chown(workspace, self._uid, self._uid)
        mounts = ("--bind", str(workspace), "/workspace", "--perms", "1777", "--tmpfs", "/dev/shm")
        return [*contained(self._root, self._uid, variables, *mounts), *RUNNER]


def run(built: Built, image: str, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a program in an image under some uid, and wait for its end."""
    command = [*contained(built.roots[image], 23_456, variables), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)


def components(built: Built, image: str) -> set[str]:
    """Return the package URLs of an image's list of software, without qualifiers; names of what is in no registry."""
    listed = json.loads((built.roots[image] / "opt/swissbrain/sbom.json").read_text())
    assert (listed["bomFormat"], listed["metadata"]["component"]["name"]) == ("CycloneDX", image)
    return {component.get("purl", component["name"]).partition("?")[0] for component in listed["components"]}


async def output_of(pods: Pods, workspaces: Workspaces, command: Command, output: Path, written: str) -> list[str]:
    """Run a program, which writes a file, in a new pod; return its lines."""
    lines: list[str] = []

    async def add(_: str, part: LinePart) -> bool:
        lines.append(part.text)
        return True

    async with pods.pod() as pod:
        files = workspaces.run("ada", command.run_id, 1, {})
        calls = FollowedCalls(pod.control(), files, pod.gone)
        ended = await calls.follow(await calls.start(await pod_call.prepare(command, files)), command, add, output)
    assert ended.exit_code == 0, (lines, ended.stderr.read_text())
    assert written in {file.path for file in ended.changes.written}
    return lines


def test_configurations_name_a_user_the_program_and_the_sources(built: Built) -> None:
    for name in built.roots:
        config = built.store.config(f"localhost/{name}")
        labels = {key.removeprefix("org.opencontainers.image."): value for key, value in config["Labels"].items()}
        assert (config["User"], config["Entrypoint"]) == (USERS[name], ENTRYPOINTS[name])
        assert labels.pop("description")
        assert labels.pop("base.name") == ("localhost/tools" if name == "tools-browser" else BASE)
        assert {key: value for key, value in labels.items() if not key.startswith("io.buildah")} == {
            "title": f"swissbrain-{name}",
            "licenses": "Apache-2.0",
            "version": SOURCE.version,
            "revision": SOURCE.revision,
            "created": SOURCE.created,
        }
        assert {variable.partition("=")[0] for variable in config.get("Env", [])} <= {"PATH"}
        assert "Volumes" not in config


def test_images_hold_no_rights_no_caches_and_no_compilers(built: Built) -> None:
    for name, root in built.roots.items():
        size = 0
        for folder, folders, files in os.walk(root):
            for path in [Path(folder), *(Path(folder, file) for file in files)]:
                status = path.lstat()
                size += 0 if path.is_symlink() else status.st_blocks * 512
                assert path.is_symlink() or not status.st_mode & (S_ISUID | S_ISGID), f"{name}: set-uid bit of {path}"
                if status.st_mode & 0o002 and not path.is_symlink():
                    assert path == root / "tmp", f"{name}: everybody can write {path}"
                assert status.st_uid == status.st_gid == 0 or not path.is_relative_to(root / "opt"), path
            folders[:] = [each for each in folders if not (Path(folder) == root and each in ("proc", "sys", "dev"))]
        print(f"{name}: {size / 1e6:.0f} MB")
        assert [entry for cache in CACHES if (root / cache).exists() for entry in walk_files(root / cache)] == []
        assert not [compiler for compiler in COMPILERS if shutil.which(compiler, path=str(root / "usr/bin"))]
        capable = [path for path in (root / "usr/bin").iterdir() if not path.is_symlink() and capabilities(path)]
        assert capable == []


def walk_files(folder: Path) -> list[Path]:
    """Return what is in a folder, without the files that Debian copies into a new home and locks."""
    return [path for path in folder.rglob("*") if path.name not in (".bashrc", ".profile")]


def capabilities(path: Path) -> bool:
    """Return whether a file grants capabilities."""
    return "security.capability" in os.listxattr(path)


def test_servers_are_installed_without_pip_and_listed(built: Built) -> None:
    servers = {"worker": ("kubernetes", "starlette"), "api": ("uvicorn", "kubernetes")}
    for name in servers.keys() & built.roots.keys():
        (has, lacks), root = servers[name], built.roots[name]
        assert not [*root.glob("usr/bin/pip*"), *root.glob("opt/swissbrain/bin/pip*")]
        assert not [*root.glob("opt/swissbrain/lib/python3*/site-packages/pip")]
        listed = components(built, name)
        assert {f"pkg:pypi/{has}@{distribution(has).version}", "swissbrain", "swissbrain-server"} <= listed
        assert not [url for url in listed if url.startswith((f"pkg:pypi/{lacks}@", "pkg:pypi/cyclonedx-bom@"))]
        assert [url for url in listed if url.startswith("pkg:deb/debian/python3-minimal@")]
        compiled = [*root.glob("opt/swissbrain/lib/python3*/site-packages/infra/contract/__pycache__/runs.*.pyc")]
        assert len(compiled) == 1
        assert int.from_bytes(compiled[0].read_bytes()[4:8], "little") == 1, "not compared with the source's time"


@needs("worker")
def test_the_worker_says_which_setting_is_missing(built: Built) -> None:
    words = ENTRYPOINTS["worker"]
    assert "Works on runs until SIGTERM" in run(built, "worker", *words, "--help").stdout
    started = run(built, "worker", *words)
    assert (started.returncode, started.stdout, started.stderr.count("\n")) == (2, "", 1), started.stderr
    assert "is not set" in started.stderr
    # The root is read-only, and here nothing is mounted on /tmp either.
    command = contained(built.roots["worker"], 23_456, {}, "--ro-bind", str(built.roots["worker"] / "srv"), "/tmp")
    started = subprocess.run([*command, *words], capture_output=True, text=True, timeout=100, check=False)
    assert (started.returncode, started.stderr.count("\n")) == (2, 1), started.stderr
    assert "WORKER_ROOT" in started.stderr
    imported = run(built, "worker", "/opt/swissbrain/bin/python", "-c", "import kubernetes, infra.k8s_executor.job")
    assert imported.returncode == 0, imported.stderr


@needs("api")
@pytest.mark.parametrize(
    ("program", "variable"),
    [("swissbrain-gateway", "GATEWAY_REDIS_URL"), ("swissbrain-qstash", "QSTASH_LOCAL_REDIS_URL")],
)
def test_the_image_of_the_api_has_the_servers_beside_valkey(built: Built, program: str, variable: str) -> None:
    ended = run(built, "api", f"/opt/swissbrain/bin/{program}")
    assert (ended.returncode, variable in ended.stderr, ended.stderr.count("\n")) == (2, True, 1), ended.stderr
    helped = run(built, "api", "/opt/swissbrain/bin/swissbrain", "recovery", "--help", HOME="/tmp")
    assert helped.returncode == 0, helped.stderr


@needs("api")
def test_the_api_answers(built: Built) -> None:
    port = free_port()
    command = [*contained(built.roots["api"], 23_456, {**API, "EDGE_PORT": str(port)}), *ENTRYPOINTS["api"]]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: process.poll() is not None or accepts(port), "the API listens")
        assert httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200
    finally:
        # The outer process of the container may not signal another user, and its end does not end the API.
        for api in children_of(process.pid):
            os.kill(api, signal.SIGTERM)
        assert process.wait(100) == 0


@needs("tools")
async def test_programs_run_in_pods_with_any_uid(built: Built, workspaces: Workspaces, tmp_path: Path) -> None:
    for uid, (interpreter, source) in zip((FIRST_UID, 34_567, FIRST_UID + UIDS - 1), PROGRAMS.items(), strict=True):
        pods = ImagePods(tmp_path / interpreter, built.roots["tools"], uid)
        command = Command(f"run-{interpreter}", "step-0", interpreter, source, 300)
        lines = await output_of(pods, workspaces, command, tmp_path, "file")
        assert lines[:2] == ["user", "/workspace"]
        # Its two streams come in any order.
        git = [line for line in lines if line.startswith("git version")]
        assert interpreter != "sh" or git, "the root is read-only"


@needs("tools-browser")
async def test_a_program_starts_the_browser(built: Built, workspaces: Workspaces, tmp_path: Path) -> None:
    pods = ImagePods(tmp_path / "pods", built.roots["tools-browser"], 45_678)
    command = Command("run-browser", "step-0", "python", BROWSE, 300)
    assert await output_of(pods, workspaces, command, tmp_path, "page.png") == ["made"]
    session = LonePodSession(pods, MAX_REPLY_BYTES)
    driver = browser_program(BrowserSettings(place="image"), ("example.org:443",))
    command = Command("run-session", "session", "python", driver.source, 300, driver.limits, driver.network)
    await session.begin(command, "http://run:token@127.0.0.1:9")
    try:
        request = json.dumps({"action": "open", "url": "http://example.org/", "timeout_s": 60}).encode()
        reply, _ = decode_reply(await session.ask(request, 200))
        assert (reply.error, reply.pages) == ("browser_failed", 1), "no proxy listens"
        request = json.dumps({"action": "open", "url": "file:///etc/passwd", "timeout_s": 60}).encode()
        assert "ERR_BLOCKED_BY_ADMINISTRATOR" in decode_reply(await session.ask(request, 200))[0].message
    finally:
        await session.close()
    listed = components(built, "tools-browser")
    assert f"pkg:pypi/playwright@{distribution('playwright').version}" in listed
    assert [url for url in listed if url.startswith("pkg:deb/debian/chromium@")]
