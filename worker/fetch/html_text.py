"""Text of an HTML page for a model: block elements as lines, links as `text (URL)`, no scripts and styles.

The standard library's parser takes quadratic time for some hostile pages, before its latest releases. Here every scan
that finds no end consumes the rest of the page, so the time is linear for every input. No tree is built, so nesting
costs nothing.
"""

import html
import re
from collections.abc import Iterator
from itertools import islice
from urllib.parse import urljoin

MAX_HTML_CHARS = 2 * 1024 * 1024
"""Characters of a page that are read; fewer if it has more than MAX_TAGS tags."""
MAX_TAGS = 100_000
MAX_LINK_CHARS = 500
"""A longer link is left out; its text is kept."""

_OPEN = re.compile(r"<(/?)([a-zA-Z][^\s/>]{0,30})")
_REST = re.compile(r"(?>[^>=]++|=\s*+(?:\"[^\"]*+\"|'[^']*+'|(?![\"'])))*+>")
"""The rest of a tag: a `>` in a quoted value does not end it."""
_ATTRIBUTE = re.compile(r"([^\s/>=]+)(?:\s*=\s*(?:\"([^\"]*)\"|'([^']*)'|([^\s>\"']*)))?")
_MAX_ATTRIBUTE_CHARS = 4096
"""Characters of a tag `a` in which the link must stand."""
_ENTITY = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[a-zA-Z][a-zA-Z0-9]{1,31});?")

_CODE = frozenset(("script", "style"))
_SKIPPED = _CODE | {"iframe", "noembed", "noframes", "select", "svg", "template"}
_ENDS = {name: re.compile(rf"</{name}(?=[\s/>])", re.IGNORECASE | re.ASCII) for name in _SKIPPED}
_BLOCKS = frozenset(
    [
        "address",
        "article",
        "aside",
        "blockquote",
        "body",
        "br",
        "caption",
        "center",
        "dd",
        "details",
        "dialog",
        "div",
        "dl",
        "dt",
        "fieldset",
        "figcaption",
        "figure",
        "footer",
        "form",
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
        "h6",
        "head",
        "header",
        "hr",
        "html",
        "legend",
        "li",
        "main",
        "menu",
        "nav",
        "ol",
        "option",
        "p",
        "pre",
        "section",
        "summary",
        "table",
        "tbody",
        "tfoot",
        "thead",
        "title",
        "tr",
        "ul",
    ]
)
_MARKS = {"li": "- ", **{f"h{level}": "#" * level + " " for level in range(1, 7)}}
_CELLS = frozenset(("td", "th"))


def html_text(page: str, url: str, limit: int) -> str:
    """Return the text of a page, which may end after `limit` characters.

    `url` is the page's own, for its relative links.
    """
    lines = _TextLines(limit)
    link: tuple[int, str] | None = None
    for closes, name, attributes in islice(_tags(page[:MAX_HTML_CHARS], lines), MAX_TAGS):
        if name == "a":
            if link and lines.size > link[0]:
                lines.add(f" ({link[1]})")
            target = None if closes else _target(attributes, url)
            link = (lines.size, target) if target else None
        elif name in _BLOCKS:
            lines.end_line()
            lines.mark = "" if closes else _MARKS.get(name, lines.mark)
            if name == "pre":
                lines.keeps_space = not closes
        elif name in _CELLS and not closes:
            lines.next_cell()
        elif name == "base" and not closes:
            url = _target(attributes, url) or url
    return lines.text()


class _TextLines:
    """Text in lines, as it is collected."""

    def __init__(self, limit: int) -> None:
        self.mark = ""
        """Text that the next line begins with."""
        self.keeps_space = False
        self.size = 0
        self._limit = limit
        self._parts: list[str] = []
        self._is_empty = True
        self._has_space = False

    @property
    def is_full(self) -> bool:
        """Return whether no more text is needed."""
        return self.size >= self._limit

    def add(self, text: str) -> None:
        """Add text to the line; white space becomes one space, except in preformatted text."""
        words = text if self.keeps_space else " ".join(text.split())
        if not words:
            self._has_space = self._has_space or bool(text)
            return
        if self._is_empty:
            self._put(self.mark)
            self.mark = ""
        elif self._has_space or (text[0].isspace() and not self.keeps_space):
            self._put(" ")
        self._put(words)
        self._is_empty = False
        self._has_space = text[-1].isspace() and not self.keeps_space

    def end_line(self) -> None:
        """Begin a new line, unless the line is still empty."""
        if not self._is_empty:
            self._put("\n")
        self._is_empty, self._has_space = True, False

    def next_cell(self) -> None:
        """Separate cells of a table."""
        if not self._is_empty:
            self._put(" |")
            self._has_space = True

    def text(self) -> str:
        """Return all lines."""
        return "".join(self._parts).strip()

    def _put(self, text: str) -> None:
        self._parts.append(text)
        self.size += len(text)


def _tags(page: str, lines: _TextLines) -> Iterator[tuple[bool, str, str]]:
    """Yield each tag: whether it closes an element, name, attributes. Text is added to `lines`, until they are full."""
    position = 0
    unclosed = set()
    while not lines.is_full:
        start = page.find("<", position)
        lines.add(_unescaped(page[position:] if start < 0 else page[position:start]))
        tag = _OPEN.match(page, start) if start >= 0 else None
        position = _end_of_tag(page, start, tag)
        if position < 0:
            return
        if tag is None:
            if position == start + 1:
                lines.add("<")
            continue
        name = tag[2].lower()
        if name in _SKIPPED and not tag[1] and name not in unclosed:
            end = _ENDS[name].search(page, position)
            if end is None and name in _CODE:
                return
            if end is None:
                unclosed.add(name)
            else:
                position = end.start()
        yield bool(tag[1]), name, page[tag.end() : position]


def _end_of_tag(page: str, start: int, tag: re.Match[str] | None) -> int:
    """Return where the tag or comment at `start` ends; -1 if the rest of the page belongs to it."""
    if start < 0:
        return -1
    if tag:
        rest = _REST.match(page, tag.end())
        return rest.end() if rest else -1
    if page.startswith("<!--", start):
        # The comment `<!-->` is empty.
        end = page.find("-->", start + 2)
        return end + 3 if end >= 0 else -1
    if page.startswith(("<!", "<?", "</"), start):
        return page.find(">", start) + 1 or -1
    return start + 1


def _target(attributes: str, url: str) -> str | None:
    """Return the URL that `href` names, or None if it is of no use."""
    for found in _ATTRIBUTE.finditer(attributes[:_MAX_ATTRIBUTE_CHARS]):
        if found[1].lower() == "href":
            href = _unescaped(found[2] or found[3] or found[4] or "").strip()
            break
    else:
        return None
    if not href or href.startswith("#") or len(href) > MAX_LINK_CHARS:
        return None
    try:
        target = urljoin(url, href)
    except ValueError:
        return None
    if not target.startswith(("http://", "https://")) or len(target) > MAX_LINK_CHARS:
        return None
    return "".join(target.replace(" ", "%20").split())


def _unescaped(text: str) -> str:
    # `html.unescape` fails for a number of thousands of digits.
    return _ENTITY.sub(lambda found: html.unescape(found[0]), text) if "&" in text else text
