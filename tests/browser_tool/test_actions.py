"""Actions of the tool `browser` on pages that mean well."""

import re
import struct

import pytest

from tests.browser_tool.rig import BrowserBench
from tests.browser_tool.site import NAMES


async def test_a_page_is_opened(bench: BrowserBench) -> None:
    opened = await bench.do("open", url="/")
    assert (opened.url, opened.title, opened.pages, opened.notes) == (f"{bench.site.url}/", "Home", 1, [])
    assert opened.text
    assert opened.text.startswith("Hello\n")
    assert "unseen" not in opened.text
    assert not opened.text_truncated
    assert (opened.path, opened.links, opened.value) == (None, None, None)
    assert bench.lines[-1] == f"{bench.site.url}/"


async def test_text_and_links_are_extracted(bench: BrowserBench) -> None:
    await bench.do("open", url="/")
    whole = await bench.do("extract")
    links = [(link.text, link.url.removeprefix(bench.site.url)) for link in whole.links or ()]
    assert links == [("Second page", "/two"), ("a file", "/file")]
    part = await bench.do("extract", selector="h1")
    assert (part.text, part.links) == ("Hello", [])


async def test_a_form_is_filled_in_and_sent(bench: BrowserBench) -> None:
    await bench.do("open", url="/")
    await bench.do("type", selector="input[name=q]", text="käse & co")
    await bench.do("select", selector="select", values=["Second"])
    sent = await bench.do("click", selector='role=button[name="Send"]')
    assert sent.text == "echo /echo?q=k%C3%A4se+%26+co&s=Second"
    await bench.do("open", url="/")
    sent = await bench.do("type", selector="input", text="x", enter=True)
    assert sent.text == "echo /echo?q=x&s=a"


async def test_a_link_is_followed_and_an_element_awaited(bench: BrowserBench) -> None:
    await bench.do("open", url="/")
    followed = await bench.do("click", selector="text=Second page")
    assert (followed.title, followed.text) == ("Two", "The second page")
    await bench.do("open", url="/late")
    assert (await bench.do("wait", selector="#done")).text == "now"
    assert (await bench.do("wait")).text == "now"


async def test_screenshots_and_pdfs_are_files(bench: BrowserBench) -> None:
    await bench.do("open", url="/")
    seen = await bench.do("screenshot")
    whole = await bench.do("screenshot", full_page=True, save_as="shots/whole.png")
    part = await bench.do("screenshot", selector="h1")
    assert re.fullmatch(r"browser/step-\d+\.png", seen.path or "")
    assert (seen.content_type, whole.path) == ("image/png", "shots/whole.png")
    sizes = [_png_size(bench.files.content[made.path or ""]) for made in (seen, whole, part)]
    assert sizes[0] == (1280, 800)
    assert sizes[1][1] > 3000
    assert sizes[2][1] < 100
    assert seen.size_bytes == len(bench.files.content[seen.path or ""])
    printed = await bench.do("pdf")
    assert printed.content_type == "application/pdf"
    assert bench.files.content[printed.path or ""].startswith(b"%PDF-")
    assert bench.written[-4:] == [seen.path, whole.path, part.path, printed.path]


async def test_a_file_is_downloaded_by_a_click_or_from_a_url(bench: BrowserBench) -> None:
    await bench.do("open", url="/")
    clicked = await bench.do("download", selector="#file")
    assert re.fullmatch(r"browser/step-\d+-data\.csv", clicked.path or "")
    assert bench.files.content[clicked.path or ""] == b"content"
    named = await bench.do("download", url="/file", save_as="data/in.csv")
    assert (named.path, named.size_bytes, named.url) == ("data/in.csv", 7, f"{bench.site.url}/")


@pytest.mark.parametrize("number", range(len(NAMES)))
async def test_the_name_of_a_download_stays_in_its_folder(bench: BrowserBench, number: int) -> None:
    await bench.do("open", url="/two")
    made = await bench.do("download", url=f"/names/{number}")
    folder, _, name = (made.path or "").partition("/")
    assert folder == "browser"
    assert re.fullmatch(r"step-\d+-[A-Za-z0-9][A-Za-z0-9._-]{0,79}", name)
    assert [*NAMES.values()][number] in name


async def test_a_script_is_evaluated_where_the_operator_allows_it(bench: BrowserBench, fresh: BrowserBench) -> None:
    await bench.do("open", url="/two")
    assert (await bench.do("evaluate", script="document.title + 1")).value == "Two1"
    assert (await bench.do("evaluate", script="({a: [1]})")).value == "{'a': [1]}"
    assert len((await bench.do("evaluate", script="'x'.repeat(1e6)")).value or "") == 8192
    failed = await bench.fail("evaluate", script="throw new Error('no')")
    assert failed.code == "browser_failed"
    assert "Error: no" in str(failed)
    refused = await fresh.fail("evaluate", script="1")
    assert refused.code == "evaluate_not_allowed"
    assert "BROWSER_EVALUATE" in str(refused)


async def test_what_is_not_there_is_named(bench: BrowserBench) -> None:
    await bench.do("open", url="/")
    for action, args in (("click", {}), ("type", {"text": "x"}), ("select", {"values": ["x"]}), ("wait", {})):
        failed = await bench.fail(action, selector="#none", timeout_s=0.3, **args)
        assert failed.code == "timeout"
        assert "not done after 0.3 s (`timeout_s`)" in str(failed)
        assert f"the page is {bench.site.url}/" in str(failed)
    assert (await bench.fail("click", selector="a")).code == "browser_failed"  # several elements
    assert (await bench.fail("click", selector="][")).code == "browser_failed"
    no_download = await bench.fail("download", url="/two")
    assert "use `open`" in str(no_download)
    assert "use the action `download`" in str(await bench.fail("open", url="/file"))
    assert (await bench.fail("download", selector="h1", timeout_s=0.5)).code == "timeout"


async def test_a_status_is_no_failure_but_an_unreachable_server_is(bench: BrowserBench) -> None:
    assert (await bench.do("open", url="/none")).text == "echo /none"
    refused = await bench.fail("open", url="http://example.org/")
    assert refused.code == "network_not_allowed"
    assert "'example.org:80' may not be opened; allowed are 127.0.0.1:" in str(refused)
    within = await bench.fail("open", url="/", network=["example.org:443"])
    assert within.code == "network_not_allowed"


def _png_size(data: bytes) -> tuple[int, int]:
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", data[16:24])
    return width, height
