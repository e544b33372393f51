"""Explicit list of the tools of a worker."""

from collections.abc import Mapping
from types import MappingProxyType

from infra.egress.settings import NetworkSettings
from worker.browser.settings import BrowserSettings
from worker.fetch.settings import FetchSettings
from worker.toolkit.base import Tool
from worker.tools import browser, code, file_delete, file_list, file_read, file_write, http_fetch, message, shell


def registry(
    fetch: FetchSettings, network: NetworkSettings | None = None, browsing: BrowserSettings | None = None
) -> Mapping[str, Tool]:
    """Return all tools by name, with the settings of those that have some."""
    network = network or NetworkSettings()
    tools = (
        browser.tool(browsing or BrowserSettings(), network),
        code.tool(network),
        file_delete.TOOL,
        file_list.TOOL,
        file_read.TOOL,
        file_write.TOOL,
        http_fetch.tool(fetch),
        message.TOOL,
        shell.tool(network),
    )
    return MappingProxyType({tool.name: tool for tool in tools})


REGISTRY = registry(FetchSettings())
"""Tools with default settings."""
