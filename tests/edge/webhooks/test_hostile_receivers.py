"""Receivers that break every rule: an attempt is bounded, and goes to no address but a checked one."""

import asyncio
import gzip
from collections import Counter
from collections.abc import Sequence

import httpx
import pytest

from edge_api.webhooks_service import LEASE_MS
from infra.checked_http import UrlNotAllowed
from infra.one_exchange import MAX_READ_BYTES, OneExchange
from infra.webhook_http import ANSWER_S, Receipt, WebhookHttp
from infra.webhook_http import DEADLINE_S as LONGEST_S
from tests.support.scripted_http import Wire
from tests.support.servers import web_site_fixture
from tests.support.web_site import NAME, Names, Page, Site, answer

web = web_site_fixture("module")
SHORT_S = ANSWER_S * 0.75
PATIENT_S = 60.0


def http(web: Site, deadline_s: float = PATIENT_S, **names: Sequence[Sequence[str]]) -> WebhookHttp:
    return WebhookHttp(frozenset({(NAME, web.port)}), resolve=Names(**names), deadline_s=deadline_s)


async def post(web: Site, page: Page, deadline_s: float = PATIENT_S) -> Receipt:
    return await http(web, deadline_s).post(web.serve("/hook", page), {"content-type": "application/json"}, b"{}")


def endless(wire: Wire) -> None:
    wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        wire.send(b"4000\r\n" + b"x" * 0x4000 + b"\r\n")


def stalled(wire: Wire) -> None:
    wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nx")
    wire.silence()


def endless_head(wire: Wire) -> None:
    wire.send(b"HTTP/1.1 200 OK\r\n")
    while True:
        wire.send(b"X-Long: " + b"x" * 1000 + b"\r\n")


def endless_hints(wire: Wire) -> None:
    while True:
        wire.send(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 100)


def tiny_chunks(wire: Wire) -> None:
    wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        wire.send(b"1\r\nx\r\n" * 1000)


@pytest.mark.parametrize(
    "page", [endless, stalled, tiny_chunks, answer(gzip.compress(b"x" * 10**6), Content_Encoding="gzip"), answer(b"")]
)
async def test_the_status_counts_whatever_the_body_is(web: Site, page: Page) -> None:
    # The time for the body, ANSWER_S, is longer than the deadline here, as it is for a hurried post.
    assert (await post(web, page, SHORT_S)).accepted


@pytest.mark.parametrize(
    ("page", "error"),
    [
        (lambda wire: wire.reset(), "reset"),
        (lambda wire: wire.send(b"what?\r\n\r\n"), "not valid HTTP"),
        (endless_head, "not valid HTTP"),
        (endless_hints, "not valid HTTP"),
        (answer(b"", 500), "status 500"),
        (answer(b"", 404), "status 404"),
    ],
)
async def test_a_broken_answer_is_an_error_that_may_pass(web: Site, page: Page, error: str) -> None:
    receipt = await post(web, page)
    assert not receipt.accepted
    assert not receipt.final
    assert error in str(receipt.error).lower() or error in str(receipt.error)


async def test_an_answer_that_does_not_come_is_an_error_that_may_pass(web: Site) -> None:
    receipt = await post(web, lambda wire: wire.silence(), 0.3)
    assert (receipt.error, receipt.final) == ("no answer within 0.3 s", False)


async def test_an_answer_in_crumbs_leaves_the_loop_to_others(web: Site) -> None:
    packets: Counter[int] = Counter()
    turn = 0

    async def others() -> None:
        nonlocal turn
        while True:
            turn += 1
            await asyncio.sleep(0)

    beside = asyncio.create_task(others())
    web.serve("/crumbs", tiny_chunks)
    async with OneExchange(httpx.create_ssl_context()) as transport:
        response = await transport.handle_async_request(httpx.Request("GET", web.at("/crumbs", "127.0.0.1")))
        async for _ in response.aiter_raw():
            packets[turn] += 1
            if packets.total() >= 5000:
                break
        await response.aclose()
    beside.cancel()
    assert max(packets.values()) <= MAX_READ_BYTES // len("1\r\nx\r\n") + 1


async def test_a_redirect_is_not_followed(web: Site) -> None:
    web.requests.clear()
    receipt = await post(web, answer(b"", 307, Location="http://169.254.169.254/latest/meta-data"))
    assert receipt.error == "the answer has status 307; redirects are not followed"
    assert len(web.requests) == 1


async def test_a_wait_that_the_receiver_asks_for_is_bounded(web: Site) -> None:
    assert (await post(web, answer(b"", 429, Retry_After="30"))).retry_after_s == 30
    assert (await post(web, answer(b"", 503, Retry_After="999999999"))).retry_after_s == 3600
    assert (await post(web, answer(b"", 503, Retry_After="Fri, 31 Dec 1999 23:59:59 GMT"))).retry_after_s is None
    assert (await post(web, answer(b"", 503, Retry_After="0"))).retry_after_s is None
    assert (await post(web, answer(b"", 503, Retry_After="soon"))).retry_after_s is None


@pytest.mark.parametrize(
    ("until", "now", "after_s"),
    [
        ("Fri, 31 Dec 1999 23:59:59 GMT", "Fri, 31 Dec 1999 23:59:19 GMT", 40),
        ("Friday, 31-Dec-99 23:59:59 GMT", "Fri, 31 Dec 1999 23:59:19 GMT", 40),
        ("Fri Dec 31 23:59:59 1999", "Fri, 31 Dec 1999 23:59:19 GMT", 40),
        ("Fri, 31 Dec 1999 23:59:59 GMT", "Thu, 30 Dec 1999 23:59:59 GMT", 3600),
        ("Fri, 31 Dec 9999 23:59:59 GMT", "", 3600),
    ],
)
async def test_a_date_until_which_the_receiver_is_away(web: Site, until: str, now: str, after_s: int) -> None:
    dates = {"Retry_After": until, **({"Date": now} if now else {})}
    assert (await post(web, answer(b"", 503, **dates))).retry_after_s == after_s


@pytest.mark.parametrize(
    "addresses",
    [["127.0.0.1"], ["10.0.0.1"], ["169.254.169.254"], ["93.184.215.14", "127.0.0.1"], ["::1"], ["fd00:ec2::254"]],
)
async def test_a_name_with_an_address_that_is_not_public_is_never_called(web: Site, addresses: list[str]) -> None:
    web.requests.clear()
    client = http(web, evil_test=[addresses])
    receipt = await client.post(f"https://evil.test:{web.port}/", {}, b"{}")
    assert (receipt.error, receipt.final) == ("the host has an address that is not public", True)
    assert web.requests == []


async def test_a_name_is_resolved_once_so_that_a_second_answer_cannot_differ(web: Site) -> None:
    names = Names(**{NAME.replace(".", "_"): [["127.0.0.1"], ["169.254.169.254"]]})
    client = WebhookHttp(frozenset({(NAME, web.port)}), resolve=names)
    assert (await client.post(web.serve("/hook", answer(b"ok")), {}, b"{}")).accepted
    assert names.asked == [NAME]
    assert web.requests[-1].headers["host"] == f"{NAME}:{web.port}"
    assert (await client.post(web.at("/hook"), {}, b"{}")).final


def test_an_attempt_holds_its_lease_until_it_has_ended() -> None:
    assert LEASE_MS >= (LONGEST_S + ANSWER_S + 5) * 1000


async def test_a_slow_name_server_cannot_hold_an_attempt() -> None:
    async def never(_host: str, _port: int) -> Sequence[str]:
        await asyncio.sleep(60)
        return []

    receipt = await WebhookHttp(resolve=never, deadline_s=0.05).post("https://slow.test/", {}, b"{}")
    assert receipt.error == "no answer within 0.05 s"


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://example.org/", "https"),
        ("ftp://example.org/", "https"),
        ("https://user:secret@example.org/", "credentials"),
        ("https://example.org/#part", "fragment"),
        ("https://127.0.0.1/", "not public"),
        ("https://0x7f.1/", "not public"),
        ("https://2130706433/", "not public"),
        ("https://[::ffff:127.0.0.1]/", "not public"),
        ("https://169.254.169.254/latest", "not public"),
        ("https://[fd00::1]/", "not public"),
        ("https://example.org:0/", "port"),
        ("https://exa mple.org/", "space"),
        ("https://example.org\\@evil.test/", "backslash"),
        ("https:///path", "host"),
        ("https://" + "a" * 2100 + ".org/", "characters"),
        ("example.org", "https"),
    ],
)
def test_a_url_that_may_not_be_called_is_named(url: str, reason: str) -> None:
    with pytest.raises(UrlNotAllowed, match=reason) as failure:
        WebhookHttp().target(url)
    assert "secret" not in str(failure.value)


def test_a_listed_host_may_be_private_and_without_tls() -> None:
    client = WebhookHttp(frozenset({("127.0.0.1", 9000)}))
    assert client.target("http://127.0.0.1:9000/hook").port == 9000
    with pytest.raises(UrlNotAllowed):
        client.target("http://127.0.0.1:9001/hook")
