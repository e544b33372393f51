"""Explicit list of the tools of a worker."""

from collections.abc import Mapping
from types import MappingProxyType

from worker.toolkit.base import Tool
from worker.tools import code, file_delete, file_list, file_read, file_write, message, shell

REGISTRY: Mapping[str, Tool] = MappingProxyType(
    {
        tool.name: tool
        for tool in (
            code.TOOL,
            file_delete.TOOL,
            file_list.TOOL,
            file_read.TOOL,
            file_write.TOOL,
            message.TOOL,
            shell.TOOL,
        )
    }
)
