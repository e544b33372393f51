"""Title, text and links of a page. The page can lie about all of them, but not exceed their limits."""

from typing import Any

from playwright.async_api import Page

MAX_TITLE_CHARS = 300
MAX_LINKS = 100
MAX_LINK_CHARS = 100
MAX_URL_CHARS = 500

_TEXT = """([selector, length]) => {
  const element = selector ?? document.body ?? document.documentElement;
  return String((element.innerText ?? element.textContent ?? "")).slice(0, length);
}"""
_LINKS = """([root, most, chars, url]) => {
  const found = [];
  for (const link of (root ?? document).querySelectorAll("a[href]")) {
    if (found.length > most) break;
    const href = String(link.href);
    if (/^https?:/.test(href) && href.length <= url)
      found.push([String(link.innerText || link.title || "").trim().slice(0, chars), href]);
  }
  return found;
}"""


async def read_title(page: Page) -> str:
    """Return the begin of the title."""
    return _text(await page.title(), MAX_TITLE_CHARS)


async def read_text(page: Page, selector: str | None, chars: int) -> tuple[str, bool]:
    """Return the begin of the visible text of the page or of the first element, and whether there is more."""
    if not chars:
        return "", False
    text = _text(await page.evaluate(_TEXT, [await _element(page, selector), chars + 1]), chars + 1)
    return text[:chars], len(text) > chars


async def read_links(page: Page, selector: str | None) -> list[dict[str, str]]:
    """Return the first links to web pages on the page, or within the first element: their texts and URLs."""
    limits = [MAX_LINKS, MAX_LINK_CHARS, MAX_URL_CHARS]
    found: Any = await page.evaluate(_LINKS, [await _element(page, selector), *limits])
    pairs = found[:MAX_LINKS] if isinstance(found, list) else []
    return [
        {"text": _text(pair[0], MAX_LINK_CHARS), "url": _text(pair[1], MAX_URL_CHARS)}
        for pair in pairs
        if isinstance(pair, list) and len(pair) == 2
    ]


async def _element(page: Page, selector: str | None) -> Any:
    return await page.locator(selector).first.element_handle() if selector else None


def _text(value: Any, chars: int) -> str:
    return value[:chars] if isinstance(value, str) else ""
