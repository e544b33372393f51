"""Validation of tool arguments: invalid ones are rejected under the name of the field."""

from typing import Any

import pytest

from infra.contract.errors import InvalidInput
from infra.contract.tools import TOOLS, parse_args
from worker.registry import REGISTRY
from worker.toolkit.base import ToolResult

GOOD: dict[str, dict[str, Any]] = {
    "browser": {"action": "wait"},
    "code": {"language": "python", "source": "1"},
    "file_delete": {"path": "a"},
    "file_list": {},
    "file_read": {"path": "a"},
    "file_write": {"path": "a", "content": ""},
    "http_fetch": {"url": "https://example.org"},
    "message": {"text": "hello"},
    "shell": {"command": "true"},
}
FULL: dict[str, dict[str, Any]] = {
    "browser": {"action": "type", "selector": "#a", "text": "ü" * 10_000, "enter": True, "timeout_s": 300},
    "code": {"language": "node", "source": "1", "timeout_s": 3600},
    "file_delete": {"path": "a/b/ü 日本.txt"},
    "file_list": {"path": "a/b"},
    "file_read": {"path": ".run/step-0.stdout", "max_bytes": 1_000_000, "offset": 2**53 - 1},
    "file_write": {"path": "a", "content": "x" * 1_000_000, "encoding": "base64"},
    "http_fetch": {
        "url": "HTTP://bücher.example:8080/ä/%20?q=" + "x" * 2000,
        "method": "POST",
        "headers": {**{f"X-{n}": "v" for n in range(19)}, "!#$%&'*+.^_`|~": "a\t " + "x" * 4093},
        "body": "ü" * 1_000_000,
        "save_as": "a/b.html",
        "timeout_s": 600,
    },
    "message": {"text": "x" * 10_000},
    "shell": {"command": "x" * 200_000, "timeout_s": 0.001},
}
BAD: list[tuple[str, str, list[Any]]] = [
    ("browser", "action", ["", "Open", "close", "back", None, 1, ["open"]]),
    ("browser", "selector", ["", None, 1, "x" * 1001, ["a"]]),
    ("browser", "timeout_s", [0, -1, 300.5, "30", None]),
    ("browser", "url", ["http://a", "", None]),
    ("browser", "network", [["a:1"], "a:1", None]),
    ("code", "language", ["ruby", "Python", "", None, 1, ["python"]]),
    ("code", "source", ["", None, 1, "x" * 200_001, ["1"]]),
    ("code", "timeout_s", [0, -1, 3600.5, "60", None, [], True]),
    ("file_delete", "path", [None, 1, ["a"]]),
    ("file_list", "path", [None, 1, {}]),
    ("file_read", "path", [None, 1, {}]),
    ("file_read", "max_bytes", [0, -1, 1_000_001, 1.5, "10", None, True]),
    ("file_read", "offset", [-1, 2**53, 0.5, "0", None, True]),
    ("file_write", "content", [None, 1, b"x", ["x"], "x" * 1_000_001]),
    ("file_write", "encoding", ["latin-1", "", None, 1]),
    ("http_fetch", "method", ["get", "PUT", "DELETE", "", None, 1]),
    ("http_fetch", "body", ["x", "", None, 1, b"x", {"a": 1}]),
    ("http_fetch", "save_as", ["", "/a", "../a", ".run/a", None, 1]),
    ("http_fetch", "timeout_s", [0, -1, 600.5, "60", None]),
    ("message", "text", ["", None, 1, "x" * 10_001]),
    ("shell", "command", ["", None, 1, "x" * 200_001, ["ls", "-l"]]),
    ("shell", "timeout_s", [0, -1, 3601, "1", None, {}]),
]
BAD_URLS = [
    *("", "example.org", "//example.org", "ftp://example.org", "file:///etc/passwd", "javascript:1", "data:,x"),
    *("https:/a", "https://", "https:///a", "https://:80", "https://a:0", "https://a:65536", "https://a:x"),
    *("https://user@a", "https://user:secret@a/", "https://:@a", "https://a b/", "https://a/ b", "https://a/\n"),
    *(" https://a", "https://a ", "https://a/\t", "https://a/\0", "https://a/\x7f", "https://a\\b", "https://a/\ud800"),
    *("https://\uff0f.a", "https://[::1", "https://a]"),
]
FORBIDDEN = (
    "Host cookie CONNECTION Content-Length Transfer-Encoding Accept-Encoding Proxy-Authorization TE Upgrade Expect"
)
BAD_HEADERS: list[Any] = [
    *({name: "x"} for name in [*FORBIDDEN.split(), "", "a b", "a:", "ü", "a\n", "x" * 65]),
    *({"A": value} for value in ("a\r\nB: c", "a\n", " a", "a ", "\0", "ü", "\x7f", "x" * 4097)),
    {"Accept": "a", "accept": "b"},
    {f"X-{n}": "v" for n in range(21)},
]
PATHS = [
    "",
    ".",
    "..",
    "../x",
    "a/../x",
    "a/..",
    "./a",
    "/etc/passwd",
    "/",
    "a//b",
    "a/",
    "a\0b",
    "a\nb",
    "\x7f",
    "a\\b",
    "C:\\x",
    "x" * 256,
    "x/" * 256 + "x",
    "é" * 200 + "/" + "é" * 100,
]


def field_of(tool: str, args: Any) -> str:
    with pytest.raises(InvalidInput) as raised:
        parse_args(tool, args, at="$.plan[3]")
    assert str(raised.value)
    return raised.value.field


@pytest.mark.parametrize("tool", sorted(TOOLS))
def test_minimal_and_maximal_arguments_are_accepted(tool: str) -> None:
    for args in (GOOD[tool], FULL[tool]):
        assert type(parse_args(tool, args, at="$")) is TOOLS[tool]


@pytest.mark.parametrize(("tool", "name", "value"), [(t, n, v) for t, n, values in BAD for v in values], ids=repr)
def test_a_bad_value_is_named(tool: str, name: str, value: Any) -> None:
    assert field_of(tool, {**GOOD[tool], name: value}) == f"$.plan[3].args.{name}"


@pytest.mark.parametrize("url", [*BAD_URLS, "https://a/" + "x" * 2039, None, 1], ids=repr)
def test_a_bad_url_is_refused_without_being_repeated(url: Any) -> None:
    with pytest.raises(InvalidInput) as raised:
        parse_args("http_fetch", {"url": url}, at="$")
    assert raised.value.field == "$.args.url"
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("headers", [*BAD_HEADERS, None, [], "A: b", {"A": 1}], ids=repr)
def test_a_bad_header_is_refused(headers: Any) -> None:
    with pytest.raises(InvalidInput) as raised:
        parse_args("http_fetch", {**GOOD["http_fetch"], "headers": headers}, at="$")
    assert raised.value.field.startswith("$.args.headers")


@pytest.mark.parametrize("tool", sorted(TOOLS))
@pytest.mark.parametrize("name", ["unknown", "Path", "path ", "", "__class__", "timeout", "cwd"])
def test_an_unknown_field_is_named(tool: str, name: str) -> None:
    assert field_of(tool, {**GOOD[tool], name: 1}) == f"$.plan[3].args.{name}"


@pytest.mark.parametrize("tool", sorted(TOOLS))
def test_a_missing_field_is_named(tool: str) -> None:
    for name in GOOD[tool]:
        rest = {other: value for other, value in GOOD[tool].items() if other != name}
        assert field_of(tool, rest) == f"$.plan[3].args.{name}"


@pytest.mark.parametrize("tool", sorted(TOOLS))
@pytest.mark.parametrize("args", [None, [], "x", 1, [{}]])
def test_arguments_are_an_object(tool: str, args: Any) -> None:
    assert field_of(tool, args) == "$.plan[3].args"


@pytest.mark.parametrize("tool", ["file_delete", "file_list", "file_read", "file_write"])
@pytest.mark.parametrize("path", PATHS)
def test_a_path_stays_in_the_workspace(tool: str, path: str) -> None:
    if tool == "file_list" and not path:
        parse_args(tool, {"path": path}, at="$")  # the whole workspace
        return
    assert field_of(tool, {**GOOD[tool], "path": path}) == "$.plan[3].args.path"


@pytest.mark.parametrize("tool", ["file_delete", "file_write"])
@pytest.mark.parametrize("path", [".run", ".run/x", ".run/a/b"])
def test_a_path_in_the_reserved_folder_is_rejected_for_writing(tool: str, path: str) -> None:
    assert field_of(tool, {**GOOD[tool], "path": path}) == "$.plan[3].args.path"


@pytest.mark.parametrize("path", ["\ud800", "a/\udcff"])
def test_a_path_with_a_lone_surrogate_is_rejected(path: str) -> None:
    assert field_of("file_read", {"path": path}) == "$.plan[3].args.path"


@pytest.mark.parametrize("tool", ["rm", "Shell", "", "file", "shell "])
def test_an_unknown_tool_is_rejected_with_the_list_of_tools(tool: str) -> None:
    with pytest.raises(InvalidInput, match="allowed are browser, code, file_delete, file_list") as raised:
        parse_args(tool, {}, at="$.plan[0]")
    assert raised.value.field == "$.plan[0].tool"


BROWSER: list[tuple[dict[str, Any], str, str]] = [
    ({"action": "open"}, "url", "missing required field `url` .action 'open'"),
    ({"action": "open", "url": "file:///etc/passwd"}, "url", "http:// or https://"),
    ({"action": "open", "url": "data:text/html,x"}, "url", "http:// or https://"),
    ({"action": "open", "url": "chrome://version"}, "url", "http:// or https://"),
    ({"action": "open", "url": "view-source:https://a"}, "url", "http:// or https://"),
    ({"action": "open", "url": "https://user:secret@a"}, "url", "credentials"),
    ({"action": "open", "url": "https://a", "network": ["a"]}, "network[0]", "length >= 3"),
    ({"action": "open", "url": "https://a", "network": ["a b:1"]}, "network[0]", "allowed are a host and a port"),
    ({"action": "open", "url": "https://a", "text": "x"}, "text", "allowed are url, network, timeout_s .action 'open'"),
    ({"action": "click"}, "selector", "missing required field"),
    ({"action": "click", "selector": "a", "script": "x"}, "script", "allowed are selector, timeout_s"),
    ({"action": "type", "selector": "a"}, "text", "missing required field"),
    ({"action": "select", "selector": "a", "values": []}, "values", "length >= 1"),
    ({"action": "download"}, "url", "either `url` or `selector`"),
    ({"action": "download", "url": "http://a", "selector": "a"}, "url", "either `url` or `selector`"),
    ({"action": "screenshot", "selector": "a", "full_page": True}, "full_page", "without a `selector`"),
    ({"action": "pdf", "save_as": "../a"}, "save_as", "path"),
    ({"action": "pdf", "save_as": ".run/a"}, "save_as", ".run"),
    ({"action": "evaluate"}, "script", "missing required field"),
]


@pytest.mark.parametrize(("args", "name", "message"), BROWSER, ids=repr)
def test_an_action_of_the_browser_takes_its_own_arguments(args: dict[str, Any], name: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message.replace("[", r"\[")) as raised:
        parse_args("browser", args, at="$")
    assert raised.value.field == f"$.args.{name}"


def test_the_registry_has_exactly_the_tools_of_the_contract() -> None:
    assert {name: tool.args for name, tool in REGISTRY.items()} == TOOLS
    assert {name for name, tool in REGISTRY.items() if tool.executes} == {"code", "shell"}


def test_only_fetches_that_change_nothing_may_be_repeated() -> None:
    repeatable = REGISTRY["http_fetch"].repeatable
    assert repeatable({})
    assert repeatable({"method": "HEAD"})
    assert not repeatable({"method": "POST"})
    assert not repeatable({"method": ["GET"]})
    assert all(tool.repeatable({}) for tool in REGISTRY.values())


def test_a_program_with_a_network_is_not_repeated() -> None:
    for name in ("shell", "code"):
        assert REGISTRY[name].repeatable({"network": []})
        assert not REGISTRY[name].repeatable({"network": ["pypi.org:443"]})
        assert not REGISTRY[name].repeatable({"network": "unchecked"})


@pytest.mark.parametrize(
    "network",
    [
        ["pypi.org:443", "*.Example.ORG.:80", "1.2.3.4:1", "[2001:db8::1]:65535", "xn--bcher-kva.test:443", "a_b:80"],
        [],
        ["a:1"] * 20,
    ],
)
def test_a_network_is_a_list_of_hosts_with_ports(network: list[str]) -> None:
    parse_args("shell", {"command": "true", "network": network}, at="$")
    parse_args("code", {"language": "python", "source": "1", "network": network}, at="$")


@pytest.mark.parametrize(
    "entry",
    [
        "pypi.org",
        "pypi.org:",
        "pypi.org:0",
        "pypi.org:65536",
        "pypi.org:٤٤٣",
        "*:443",
        "*.*:443",
        "a*.org:443",
        "bücher.test:443",
        "https://pypi.org:443",
        "user@pypi.org:443",
        "pypi.org:443/x",
        "pypi..org:443",
        " pypi.org:443",
        "2001:db8::1:443",
        "10.0.0.0/8:443",
    ],
)
def test_an_entry_of_a_network_that_is_no_host_with_a_port_is_named(entry: str) -> None:
    for tool, args in (("shell", {"command": "true"}), ("code", {"language": "python", "source": "1"})):
        assert field_of(tool, {**args, "network": ["a:1", entry]}) == "$.plan[3].args.network[1]"


def test_a_network_has_only_so_many_entries() -> None:
    assert field_of("shell", {"command": "true", "network": ["a:1"] * 21}) == "$.plan[3].args.network"


def test_every_tool_returns_a_tool_result() -> None:
    for tool in REGISTRY.values():
        returned = tool.run.__annotations__["return"]
        assert issubclass(returned, ToolResult), tool.name
