"""Text of a body: its charset, and what of it is text."""

import codecs
import re

MAX_TEXT_BYTES = 16 * 1024
"""Limit for the text of a body, as UTF-8."""
_SNIFFED_BYTES = 1024

_CHARSET = re.compile(r"charset\s*=\s*[\"']?([\w.:-]{1,40})", re.IGNORECASE | re.ASCII)
_META = re.compile(rb"<meta[^>]{0,400}?charset\s*=\s*[\"']?([\w.:-]{1,40})", re.IGNORECASE)
_BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
_CODECS = frozenset(
    [
        "ascii",
        "big5",
        "big5hkscs",
        "cp1250",
        "cp1251",
        "cp1252",
        "cp1253",
        "cp1254",
        "cp1255",
        "cp1256",
        "cp1257",
        "cp1258",
        "cp866",
        "cp874",
        "cp932",
        "cp949",
        "euc_jp",
        "euc_kr",
        "gb18030",
        "gb2312",
        "gbk",
        "iso2022_jp",
        "iso8859-1",
        "iso8859-10",
        "iso8859-11",
        "iso8859-13",
        "iso8859-14",
        "iso8859-15",
        "iso8859-16",
        "iso8859-2",
        "iso8859-3",
        "iso8859-4",
        "iso8859-5",
        "iso8859-6",
        "iso8859-7",
        "iso8859-8",
        "iso8859-9",
        "koi8-r",
        "koi8-u",
        "mac-cyrillic",
        "mac-roman",
        "shift_jis",
        "tis-620",
        "utf-16",
        "utf-16-be",
        "utf-16-le",
        "utf-8",
    ]
)
"""Codecs of the charsets that pages use. Python has others, some of which are slow or no text encodings at all."""
_AS_BROWSERS = {"ascii": "cp1252", "iso8859-1": "cp1252", "utf-16": "utf-16-le", "shift_jis": "cp932", "gb2312": "gbk"}
_LABELS = {"x-sjis": "cp932", "windows-31j": "cp932", "windows-874": "cp874"}
"""Labels that Python does not know."""

_HTML_TYPES = frozenset(("text/html", "application/xhtml+xml"))


def media_type(content_type: str) -> str:
    """Return the type without its parameters, in lower case."""
    return content_type.partition(";")[0].strip().lower()


def is_html(body: bytes, content_type: str) -> bool:
    """Return whether the body is a page: by its type, or, if it has none, by how it begins."""
    kind = media_type(content_type)
    begin = body[:_SNIFFED_BYTES].lstrip().lower()
    return kind in _HTML_TYPES or (not kind and begin.startswith((b"<!doctype html", b"<html")))


def decoded(body: bytes, content_type: str, max_bytes: int) -> str | None:
    """Return the first `max_bytes` of the body as text; None if the body is no text.

    The charset is named by the byte order mark, the type, or the page's `meta`. A body that names none is UTF-8,
    or, if its type says that it is text, windows-1252. Bytes that are not valid become U+FFFD.
    """
    part, whole = body[:max_bytes], len(body) <= max_bytes
    for mark, name in _BOMS:
        if part.startswith(mark):
            return _decode(part[len(mark) :], name, whole=whole)
    charset = _codec(_named(_CHARSET.search(content_type)))
    if charset is None and is_html(body, content_type):
        charset = _codec(_named(_META.search(body[:_SNIFFED_BYTES])))
        # A page whose `meta` could be read as ASCII is not UTF-16.
        charset = "utf-8" if charset and charset.startswith("utf-16") else charset
    if charset:
        return _decode(part, charset, whole=whole)
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(part, final=whole)
    except UnicodeDecodeError:
        is_text = media_type(content_type).startswith("text/") or is_html(body, content_type)
        return _decode(part, "cp1252", whole=whole) if is_text else None
    return None if "\0" in text else text


def clipped(text: str) -> tuple[str, bool]:
    """Return the first MAX_TEXT_BYTES of the text, and whether there is more."""
    data = text[: MAX_TEXT_BYTES + 1].encode()
    if len(data) <= MAX_TEXT_BYTES:
        return text, False
    return data[:MAX_TEXT_BYTES].decode(errors="ignore"), True


def _named(found: re.Match[str] | re.Match[bytes] | None) -> str:
    name = found[1] if found else ""
    return name.decode("ascii") if isinstance(name, bytes) else name


def _codec(charset: str) -> str | None:
    """Return the codec that browsers would use for a charset, or None if it is not known."""
    try:
        name = codecs.lookup(_LABELS.get(charset.lower(), charset)).name if charset else ""
    except LookupError:
        return None
    return _AS_BROWSERS.get(name, name) if name in _CODECS else None


def _decode(data: bytes, codec: str, *, whole: bool) -> str:
    # A character that the limit has cut is left out.
    return codecs.getincrementaldecoder(codec)("replace").decode(data, final=whole)
