"""Typed arguments of each tool, which the API validates and the worker executes.

The worker's registry has one implementation for each entry of TOOLS; a test holds the two together.
"""

import base64
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from infra.contract.browser import BrowserArgs
from infra.contract.errors import InvalidInput
from infra.contract.paths import workspace_path, writable_path
from infra.contract.tool_args import Network, Path, ToolArgs, check_network, check_url
from infra.contract.validation import invalid_input

MAX_CONTENT_CHARS = 1_000_000
MAX_SOURCE_CHARS = 200_000
MAX_OFFSET = 2**53 - 1
MAX_TOOL_TIMEOUT_S = 3600.0

TimeoutS = Annotated[
    float,
    msgspec.Meta(
        gt=0,
        le=MAX_TOOL_TIMEOUT_S,
        description="Seconds until the program is killed; by default what is left of the step and of the run, but at "
        "most 3600.",
    ),
]


class FileReadArgs(ToolArgs, frozen=True):
    """Read a text file of the workspace."""

    path: Path
    max_bytes: Annotated[int, msgspec.Meta(ge=1, le=1_000_000, description="Number of bytes to read at most.")] = 65_536
    offset: Annotated[int, msgspec.Meta(ge=0, le=MAX_OFFSET, description="Number of bytes to skip before them.")] = 0

    def check(self, at: str) -> None:
        workspace_path(self.path, field=f"{at}.path")


class FileWriteArgs(ToolArgs, frozen=True):
    """Write a file of the workspace, replacing it as a whole."""

    path: Path
    content: Annotated[str, msgspec.Meta(max_length=MAX_CONTENT_CHARS)]
    encoding: Literal["utf-8", "base64"] = "utf-8"

    def check(self, at: str) -> None:
        writable_path(self.path, field=f"{at}.path")
        if self.encoding == "base64":
            self.data(at)

    def data(self, at: str = "$") -> bytes:
        """Return the bytes to write. Raises InvalidInput."""
        if self.encoding == "utf-8":
            return self.content.encode()
        try:
            # Many programs print base64 in lines.
            return base64.b64decode("".join(self.content.split()), validate=True)
        except ValueError as exc:
            raise InvalidInput(f"is not base64, although encoding is 'base64': {exc}", f"{at}.content") from None


class FileListArgs(ToolArgs, frozen=True):
    """List the files of the workspace, or of one folder in it."""

    path: Annotated[str, msgspec.Meta(max_length=512, description="A folder; empty for the whole workspace.")] = ""

    def check(self, at: str) -> None:
        if self.path:
            workspace_path(self.path, field=f"{at}.path")


class FileDeleteArgs(ToolArgs, frozen=True):
    """Delete a file of the workspace."""

    path: Path

    def check(self, at: str) -> None:
        writable_path(self.path, field=f"{at}.path")


class ShellArgs(ToolArgs, frozen=True):
    """Run a command line with `sh` in the sandbox; its working directory is the workspace."""

    command: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_SOURCE_CHARS)]
    timeout_s: TimeoutS | UnsetType = UNSET
    network: Network | UnsetType = UNSET

    def check(self, at: str) -> None:
        check_network(self.network or (), f"{at}.network")


class CodeArgs(ToolArgs, frozen=True):
    """Run a program in the sandbox; its working directory is the workspace."""

    language: Literal["python", "bash", "node"]
    source: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_SOURCE_CHARS)]
    timeout_s: TimeoutS | UnsetType = UNSET
    network: Network | UnsetType = UNSET

    def check(self, at: str) -> None:
        check_network(self.network or (), f"{at}.network")


class MessageArgs(ToolArgs, frozen=True):
    """Log a message for the people who watch the run."""

    text: Annotated[str, msgspec.Meta(min_length=1, max_length=10_000)]


_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")
_HEADER_VALUE = re.compile(r"(?:[!-~](?:[\t -~]{0,4094}[!-~])?)?")
_OWN_HEADERS = frozenset(
    [
        "accept-encoding",
        "connection",
        "content-length",
        "cookie",
        "expect",
        "host",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ]
)
"""Headers that belong to the connection, and cookies, which no request sends."""


class HttpFetchArgs(ToolArgs, frozen=True):
    """Fetch a URL of a host that the worker's configuration allows. The body of the answer becomes the file `save_as`,
    by default one in the folder `fetched/`; the result has the status, and the first 16 KB of text."""

    url: Annotated[
        str, msgspec.Meta(min_length=1, max_length=2048, description="An http or https URL without credentials.")
    ]
    method: Literal["GET", "HEAD", "POST"] = "GET"
    headers: Annotated[
        dict[str, str],
        msgspec.Meta(max_length=20, description="Headers, except those of the connection, Host and Cookie."),
    ] = msgspec.field(default_factory=dict)
    body: (
        Annotated[
            str,
            msgspec.Meta(
                max_length=MAX_CONTENT_CHARS,
                description="Body of a POST, sent as UTF-8. Its type is text/plain unless a header Content-Type says "
                "otherwise.",
            ),
        ]
        | UnsetType
    ) = UNSET
    save_as: Path | UnsetType = UNSET
    timeout_s: Annotated[
        float, msgspec.Meta(gt=0, le=600, description="Seconds for the whole exchange, redirects and body included.")
    ] = 30.0

    def check(self, at: str) -> None:
        check_url(self.url, f"{at}.url")
        _check_headers(self.headers, f"{at}.headers")
        if self.body is not UNSET and self.method != "POST":
            raise InvalidInput(f"a body is given, but the method is {self.method}; allowed is POST", f"{at}.body")
        if self.save_as is not UNSET:
            writable_path(self.save_as, field=f"{at}.save_as")


def _check_headers(headers: Mapping[str, str], at: str) -> None:
    seen = set()
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name):
            raise InvalidInput("a header has a name that is not 1 to 64 letters, digits, hyphens or underscores", at)
        if name.lower() in _OWN_HEADERS:
            raise InvalidInput(f"the header '{name}' cannot be set", at)
        if name.lower() in seen:
            raise InvalidInput(f"the header '{name}' is given twice, in another case", at)
        if not _HEADER_VALUE.fullmatch(value):
            raise InvalidInput(f"the header '{name}' must have at most 4,096 visible ASCII characters and spaces", at)
        seen.add(name.lower())


TOOLS: Mapping[str, type[ToolArgs]] = {
    "browser": BrowserArgs,
    "code": CodeArgs,
    "file_delete": FileDeleteArgs,
    "file_list": FileListArgs,
    "file_read": FileReadArgs,
    "file_write": FileWriteArgs,
    "http_fetch": HttpFetchArgs,
    "message": MessageArgs,
    "shell": ShellArgs,
}


def parse_args(tool: str, args: Mapping[str, Any], *, at: str) -> ToolArgs:
    """Validate the arguments of a tool; `at` is the path of the step, such as `$.plan[2]`.

    Raises InvalidInput for an unknown tool, a missing, unknown or badly typed field, or a path that is not allowed.
    """
    kind = TOOLS.get(tool)
    if kind is None:
        raise InvalidInput(f"unknown tool '{tool}'; allowed are {', '.join(sorted(TOOLS))}", f"{at}.tool")
    try:
        parsed = msgspec.convert(args, kind)
    except msgspec.ValidationError as exc:
        raise invalid_input(exc, kind, at=f"{at}.args") from exc
    parsed.check(f"{at}.args")
    return parsed
