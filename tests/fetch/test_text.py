"""Text of bodies: charsets, and pages, hostile ones included."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.fetch.decoding import MAX_TEXT_BYTES, clipped, decoded, is_html
from worker.fetch.html_text import MAX_HTML_CHARS, MAX_TAGS, html_text

HERE = "https://example.org/docs/page"


def text(page: str, limit: int = 10_000) -> str:
    return html_text(page, HERE, limit)


PAGE = """<!DOCTYPE html><html><head><title>Tea &amp; time</title><meta charset="utf-8">
<style>p > a { color: red }</style><SCRIPT type=module>if (a<b) document.write("<p>no</p>")</Script >
<template><p>no</p></template></head><body><nav><a href="/?a=1&amp;b=2">Home</a> <a href=#top>top</a></nav>
<h1>Hello   <b>wor</b>ld</h1><!-- <p>no</p> --><p>One
two<br/>three&nbsp;&eacute;&#233;&#xE9; 1 < 2 &unknown; &amp;lt;</p>
<ul><li>a<li><p>b</ul><table><tr><th>x<th>y</tr><tr><td>1</td><td></td><td>3</td></tr></table><pre>
  a = 1
    b < 2
</pre><svg><title>no</title></svg><select><option>no</select><a title="a>b" href='rel.html'>rel <img src=x></a>
<a href=javascript:alert(1)>js</a> <a href="ftp://x/">ftp</a> <a href="//other.org/x y">other</a>
<a href=/icon><img></a></body></html>"""


def test_a_page_becomes_lines_with_links() -> None:
    assert text(PAGE).splitlines() == [
        "Tea & time",
        "Home (https://example.org/?a=1&b=2) top",
        "# Hello world",
        "One two",
        "three éé\u00e9 1 < 2 &unknown; &lt;",
        "- a",
        "- b",
        "x | y",
        "1 | | 3",
        "",
        "  a = 1",
        "    b < 2",
        "",
        "rel (https://example.org/docs/rel.html) js ftp other (https://other.org/x%20y)",
    ]


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        ("", ""),
        ("plain", "plain"),
        ("a<", "a<"),
        ("a<b", "a"),
        ("a < b <3 c", "a < b <3 c"),
        ("<p>a</p", "a"),
        ("a<!-->b", "ab"),
        ("a<!--->b-->c", "ab-->c"),
        ("a<!-- b", "a"),
        ("a<?php b ?>c<!x>d</ e>f", "acdf"),
        ("a<script>b", "a"),
        ("a<svg>b", "ab"),
        ("a<script>b</scripts>c</script>d", "ad"),
        ("<p title='a' data-x=\"'>\">b", "b"),
        ("<p a=b'c>d'>e", "d'>e"),
        ("<base href=/other/><a href=x>a</a>", "a (https://example.org/other/x)"),
        ("<a href=/1>a<a href=/2>b", "a (https://example.org/1)b"),
        ("<a href='http://[bad'>a</a>", "a"),
        (f"<a href='/{'x' * 600}'>a</a>", "a"),
        ("<pre>a\n b</pre>  c  d", "a\n b\nc d"),
        ("<b>a</b> <i>b</i>\n c", "a b c"),
        ("&#0;&#xD800;&#x110000;&#" + "9" * 5000 + ";&amp", None),
    ],
)
def test_odd_markup_is_read_as_browsers_do(page: str, expected: str | None) -> None:
    read = text(page)
    read.encode()
    assert expected is None or read == expected


MANY = 1_000_000
FEW = 100_000
ENDLESS = [
    "<",
    "<a",
    "<a ",
    "</",
    "<!",
    "<!--",
    "<?",
    "<svg>",
    "<script>",
    "<a href='",
    "<a x=\"'",
    "<a ='\"",
    "<a = = ",
    "<>",
]
"""Begins whose ends are searched for in vain."""
CLOSED = [
    *(
        "<!-->",
        "<b><i>",
        "<a href=x>",
        "<a href=/../../x>y</a>",
        "<td>",
        "<li>x",
        "<pre>\n</pre>",
        "<svg></svg>",
        "<İ>",
    ),
    *("<svg></sv", "<select><template>", "<style></styles>", "&#1;", "<p x=\"'\" y='\"'>"),
    *(f"<{name}{attributes * 1000}>" for name in "ap" for attributes in ("    ", " a='", ' a="b"', " href=x")),
]
ATTRIBUTES = ["a ", 'a="b" ', "a='", "= ", "href ", "\"'", "    "]


@pytest.mark.parametrize("unit", [*ENDLESS, *CLOSED], ids=range(len(ENDLESS + CLOSED)))
def test_hostile_pages_are_read_in_linear_time(unit: str) -> None:
    size = MANY if unit in ENDLESS else FEW
    began = time.process_time()
    html_text(unit * (size // len(unit)), HERE, MAX_TEXT_BYTES)
    assert time.process_time() - began < 30


@pytest.mark.parametrize("tag", ["p", "a"])
def test_a_tag_with_a_megabyte_of_attributes_is_read_in_linear_time(tag: str) -> None:
    began = time.process_time()
    for unit in ATTRIBUTES:
        for end in ("", ">x"):
            html_text(f"<{tag} {unit * (MANY // len(unit))}{end}", HERE, MAX_TEXT_BYTES)
    assert time.process_time() - began < 60


def test_deep_nesting_needs_no_stack() -> None:
    depth = 20_000
    assert text("<div>" * depth + "deep" + "</div>" * depth) == "deep"


def test_only_the_begin_of_a_page_is_read() -> None:
    assert text("<p>begin" + " " * MAX_HTML_CHARS + "end") == "begin"
    assert text("<p>begin" + "<p>" * MAX_TAGS + "end") == "begin"
    assert len(text("<p>word</p>" * 10_000, 100)) < 120


@settings(max_examples=20)
@given(st.text(alphabet="<>/=\"'ab!-& \n#;xİ\u2028"), st.integers(0, 50))
def test_any_text_is_a_page(page: str, limit: int) -> None:
    html_text(page, HERE, limit)


NO_CHARSETS = [
    *("base64", "zip", "hex", "rot13", "idna", "punycode", "unicode_escape", "undefined", "mbcs", "utf-7"),
    *("", "none", "../x", "os", "x" * 300, "a.b", "encodings"),
]
"""Codecs of Python that are no charsets, and names of nothing."""
LATIN = "café".encode("latin-1")


@pytest.mark.parametrize(
    ("body", "content_type", "expected"),
    [
        (b"caf\xc3\xa9", "", "café"),
        (b"caf\xc3\xa9", "text/plain; charset=UTF-8", "café"),
        (b"caf\xc3\xa9", 'text/plain; Charset = "utf8"; x=y', "café"),
        (b"caf\xc3\xa9", "text/plain; charset=latin1", "cafÃ©"),
        (LATIN, "text/plain", "café"),
        (LATIN, "text/plain; charset=ISO-8859-1", "café"),
        (b"\x93x\x94 \x80", "text/html; charset=iso-8859-1", "“x” €"),
        (LATIN, "text/plain; charset=us-ascii", "café"),
        (LATIN, "text/plain; charset=utf-8", "caf\ufffd"),
        (LATIN, "application/octet-stream", None),
        (LATIN, "", None),
        (b"\x89PNG\r\n\x1a\n\0", "image/png", None),
        (b"a\0b", "application/octet-stream", None),
        (b'{"a": 1}', "application/json", '{"a": 1}'),
        ("日本".encode("shift_jis"), "text/plain; charset=Shift_JIS", "日本"),
        ("日本".encode("cp932"), "text/plain; charset=x-sjis", "日本"),
        ("日本".encode("euc_jp"), "text/html; charset=euc-jp", "日本"),
        ("日本".encode("iso2022_jp"), "text/plain; charset=iso-2022-jp", "日本"),
        ("中文".encode("gbk"), "text/plain; charset=gb2312", "中文"),
        ("Привет".encode("koi8-r"), "text/plain; charset=koi8-r", "Привет"),
        ("hé".encode("utf-16"), "text/plain", "hé"),
        ("hé".encode("utf-16-be"), "text/plain; charset=utf-16be", "hé"),
        (b"\xfe\xff\0h", "text/plain; charset=utf-8", "h"),
        (b"\xef\xbb\xbfx", "text/plain; charset=latin1", "x"),
        (b"<meta charset=windows-1251>\xcf", "text/html", "<meta charset=windows-1251>П"),
        (
            b'<meta http-equiv=x content="text/html; charset=koi8-r">\xf0',
            "text/html",
            '<meta http-equiv=x content="text/html; charset=koi8-r">П',
        ),
        (b"<meta charset=utf-16>x", "text/html", "<meta charset=utf-16>x"),
        (b"<meta charset=koi8-r>\xc3\xa9", "text/plain", "<meta charset=koi8-r>é"),
        (LATIN, "application/xhtml+xml", "café"),
        *((b"eJ4=", f"text/plain; charset={name}", "eJ4=") for name in NO_CHARSETS),
    ],
)
def test_the_charset_is_found(body: bytes, content_type: str, expected: str | None) -> None:
    assert decoded(body, content_type, 1000) == expected


def test_a_character_that_the_limit_cuts_is_left_out() -> None:
    assert decoded("ééé".encode(), "", 5) == "éé"
    assert decoded("ééé".encode(), "text/plain; charset=utf-8", 5) == "éé"
    assert decoded("ééé".encode()[:5], "text/plain", 5) == "Ã©Ã©Ã"  # the body itself is cut: it is not UTF-8
    assert clipped("é" * (MAX_TEXT_BYTES // 2)) == ("é" * (MAX_TEXT_BYTES // 2), False)
    assert clipped("a" + "é" * (MAX_TEXT_BYTES // 2)) == ("a" + "é" * (MAX_TEXT_BYTES // 2 - 1), True)


def test_a_page_is_recognised() -> None:
    assert is_html(b"x", "Text/HTML; charset=x")
    assert is_html(b"  <!DOCTYPE HTML>", "")
    assert not is_html(b"<!DOCTYPE html>", "text/plain")
    assert not is_html(b"<svg>", "")


@settings(max_examples=20)
@given(st.binary(), st.text(alphabet='texhmlcar=;u-816/ "İ'), st.integers(1, 50))
def test_any_body_and_any_type_are_decoded_or_refused(body: bytes, content_type: str, limit: int) -> None:
    made = decoded(body, content_type, limit)
    assert made is None or made.encode() is not None
