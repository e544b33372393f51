"""Arguments of the tool `browser`, and its actions: a struct each, with the arguments that the action takes.

The arguments of the tool are one flat object, because many models and their servers handle no alternatives of objects.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import UNSET, Meta, UnsetType

from infra.contract.errors import InvalidInput
from infra.contract.paths import writable_path
from infra.contract.tool_args import Network, Path, ToolArgs, check_network, check_url
from infra.contract.validation import invalid_input

MAX_BROWSER_TIMEOUT_S = 300.0
MAX_SELECTED = 20

WebUrl = Annotated[str, Meta(min_length=1, max_length=2048)]
Selector = Annotated[str, Meta(min_length=1, max_length=1000)]
TypedText = Annotated[str, Meta(max_length=10_000)]
Values = Annotated[
    list[Annotated[str, Meta(min_length=1, max_length=500)]], Meta(min_length=1, max_length=MAX_SELECTED)
]
BrowserScript = Annotated[str, Meta(min_length=1, max_length=20_000)]
BrowserTimeoutS = Annotated[float, Meta(gt=0, le=MAX_BROWSER_TIMEOUT_S)]


class Action(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True, tag_field="action"):
    """Base of all actions. `timeout_s`: seconds for the whole action."""

    timeout_s: BrowserTimeoutS = 30.0


class Open(Action, frozen=True, tag="open"):
    """Open a page. `network`: hosts that the session may reach; by default all that the operator allows."""

    url: WebUrl
    network: tuple[str, ...] | None = None


class Click(Action, frozen=True, tag="click"):
    """Click an element."""

    selector: Selector


class Type(Action, frozen=True, tag="type"):
    """Replace the text of a field; with `enter`, press the key after that."""

    selector: Selector
    text: TypedText
    enter: bool = False


class Select(Action, frozen=True, tag="select"):
    """Select options of a list, by their values or their labels."""

    selector: Selector
    values: Values


class WaitFor(Action, frozen=True, tag="wait"):
    """Wait until an element is visible, or without one until the page uses the network no more."""

    selector: Selector | None = None


class Extract(Action, frozen=True, tag="extract"):
    """Return text and links of the page, or of the first element."""

    selector: Selector | None = None


class Screenshot(Action, frozen=True, tag="screenshot"):
    """Store a PNG of what is visible, of the whole page, or of an element."""

    selector: Selector | None = None
    full_page: bool = False
    save_as: Path | None = None


class Download(Action, frozen=True, tag="download"):
    """Store the file to which a URL leads, or which a click on an element downloads."""

    url: WebUrl | None = None
    selector: Selector | None = None
    save_as: Path | None = None


class Pdf(Action, frozen=True, tag="pdf"):
    """Store the page as a PDF."""

    save_as: Path | None = None


class Evaluate(Action, frozen=True, tag="evaluate"):
    """Evaluate JavaScript in the page and return the value as text."""

    script: BrowserScript


BrowserAction: TypeAlias = Open | Click | Type | Select | WaitFor | Extract | Screenshot | Download | Pdf | Evaluate
_KINDS: Mapping[str, type[Action]] = {
    str(kind.__struct_config__.tag): kind
    for kind in (Open, Click, Type, Select, WaitFor, Extract, Screenshot, Download, Pdf, Evaluate)
}


def _action_of(name: str, args: Mapping[str, Any], *, at: str) -> BrowserAction:
    """Return the action of this name with these arguments; `at` is their path.

    Raises InvalidInput, whose message names the action and what it takes.
    """
    kind = _KINDS[name]
    try:
        action: BrowserAction = msgspec.convert(args, kind)  # type: ignore[assignment]
    except msgspec.ValidationError as exc:
        problem = invalid_input(exc, kind, at=at)
        raise InvalidInput(f"{problem} (action '{name}')", problem.field) from exc
    if isinstance(action, Download) and (action.url is None) == (action.selector is None):
        raise InvalidInput("give either `url` or `selector`, and not both (action 'download')", f"{at}.url")
    if isinstance(action, Screenshot) and action.selector and action.full_page:
        raise InvalidInput(
            "`full_page` is for screenshots without a `selector` (action 'screenshot')", f"{at}.full_page"
        )
    return action


class BrowserArgs(ToolArgs, frozen=True):
    """Use a web page in a browser, which keeps it open for the next call of the run. `open` a page first.

    Each action but `evaluate` returns URL, title and text of the page; `extract` returns more text, and links.
    `screenshot`, `download` and `pdf` store a file. A dialog is dismissed, and a new tab becomes the page."""

    action: Literal["open", "click", "type", "select", "wait", "extract", "screenshot", "download", "pdf", "evaluate"]
    url: Annotated[WebUrl, Meta(description="For open and download: an http or https URL.")] | UnsetType = UNSET
    selector: (
        Annotated[
            Selector,
            Meta(
                description="Element, as a CSS selector, 'text=Sign in' or 'role=button[name=\"Sign in\"]'. For click, "
                "type and select; download needs it or a URL; wait, extract and screenshot may have it."
            ),
        ]
        | UnsetType
    ) = UNSET
    text: Annotated[TypedText, Meta(description="For type: text that replaces that of the field.")] | UnsetType = UNSET
    enter: Annotated[bool, Meta(description="For type: press Enter after the text.")] | UnsetType = UNSET
    values: Annotated[Values, Meta(description="For select: values or labels of the options.")] | UnsetType = UNSET
    full_page: (
        Annotated[bool, Meta(description="For screenshot: the whole page, not only what is visible.")] | UnsetType
    ) = UNSET
    script: (
        Annotated[
            BrowserScript,
            Meta(description="For evaluate, if the operator allows it: JavaScript whose value is returned."),
        ]
        | UnsetType
    ) = UNSET
    save_as: Annotated[Path, Meta(description="For screenshot, download and pdf: path of the file.")] | UnsetType = (
        UNSET
    )
    network: Network | UnsetType = UNSET
    timeout_s: Annotated[BrowserTimeoutS, Meta(description="Seconds for the action; by default 30.")] | UnsetType = (
        UNSET
    )

    def check(self, at: str) -> None:
        self.chosen(at)
        if self.url is not UNSET:
            check_url(self.url, f"{at}.url")
        if self.save_as is not UNSET:
            writable_path(self.save_as, field=f"{at}.save_as")
        check_network(self.network or (), f"{at}.network")

    def chosen(self, at: str = "$") -> BrowserAction:
        """Return the action with its arguments. Raises InvalidInput."""
        given = {name: getattr(self, name) for name in self.__struct_fields__ if getattr(self, name) is not UNSET}
        return _action_of(given.pop("action"), given, at=at)
