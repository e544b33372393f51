"""Bench for the tool `browser`: the real tool, sandbox, egress proxy and Chromium, without a run around them."""

import uuid
from pathlib import Path
from typing import Any, cast

from infra.contract.browser import BrowserArgs
from infra.contract.files import FileChanges, FileInfo
from infra.contract.tools import parse_args
from infra.egress.local import LocalEgress
from infra.egress.settings import NetworkSettings
from infra.local_executor import LocalExecutor
from infra.scratch_root import ScratchRoot
from tests.browser_tool.site import BrowserSite
from worker.browser.settings import BrowserSettings
from worker.run.session import RunSession
from worker.toolkit.base import ToolContext, ToolFailed
from worker.tools import browser
from worker.tools.browser import BrowserResult


class MemoryFiles:
    """Workspace in memory."""

    def __init__(self) -> None:
        self.content: dict[str, bytes] = {}

    async def write(self, path: str, data: bytes) -> FileInfo:
        self.content[path] = data
        return FileInfo(path=path, size_bytes=len(data), modified_ms=1)


class CallOfBench:
    """ToolContext with what the tool uses."""

    def __init__(self, bench: "BrowserBench", call: str) -> None:
        self.call = call
        self.session = bench.session
        self.files = bench.files
        self.changes: list[FileChanges] = []
        self._bench = bench

    async def output(self, _stream: str, text: str, **_: object) -> None:
        self._bench.lines.append(text)

    def changed(self, changes: FileChanges) -> None:
        self._bench.written += [file.path for file in changes.written]


class BrowserBench:
    """One run's browser. URLs that are paths belong to the site."""

    def __init__(self, root: Path, site: BrowserSite, settings: BrowserSettings, *allowed: str) -> None:
        network = NetworkSettings(private_hosts=frozenset(_pair(entry) for entry in (site.host, *allowed)))
        self.site = site
        self._network = network
        self.run_id = f"run_{uuid.uuid4().hex}"
        self.executor = LocalExecutor(ScratchRoot(root), network=LocalEgress(network))
        self.tool = browser.tool(settings, network)
        self.files = MemoryFiles()
        self.lines: list[str] = []
        self.written: list[str] = []
        self.calls = 0
        self.session = RunSession(self.run_id, 1, 600, self.executor)

    def use(self, settings: BrowserSettings) -> None:
        """Replace the settings of the tool."""
        self.tool = browser.tool(settings, self._network)

    async def do(self, action: str, **args: Any) -> BrowserResult:
        """Call the tool."""
        if str(args.get("url", "")).startswith("/"):
            args["url"] = self.site.url + args["url"]
        parsed = cast("BrowserArgs", parse_args("browser", {"action": action, **args}, at="$"))
        self.calls += 1
        context = cast("ToolContext", CallOfBench(self, f"step-{self.calls}"))
        return cast("BrowserResult", await self.tool.run(parsed, context))

    async def fail(self, action: str, **args: Any) -> ToolFailed:
        """Call the tool and return its failure."""
        try:
            result = await self.do(action, **args)
        except ToolFailed as exc:
            return exc
        raise AssertionError(f"it succeeded: {result}")

    async def close(self) -> None:
        """End the session and remove the scratch folder."""
        await self.session.close()
        await self.executor.release(self.run_id)
        self.executor.close()


def _pair(entry: str) -> tuple[str, int]:
    host, _, port = entry.rpartition(":")
    return host, int(port)
