"""Fetching over real connections: requests, redirects, sizes and broken answers."""

import asyncio
import gzip
import zlib

import pytest

from infra.contract.errors import HostExhausted
from tests.fetch.conftest import OTHER, TlsSite, failure, fetching, get
from tests.support.scripted_http import Wire
from tests.support.web_site import NAME, Names, Page, Site, answer

MAX = 100_000


async def test_a_page_is_fetched_from_the_checked_address_under_its_name(site: Site) -> None:
    url = site.serve("/a%2Fb/%C3%BC?q=1&r=%20", answer(b"hello", Content_Type="text/plain; charset=utf-8"))
    # No name server knows the name: only the address from the guard can have been connected to.
    fetched = await get(fetching(site), site.at("/a%2Fb/ü?q=1&r=%20#part"), headers={"X-Own": "1", "Accept": "text/*"})
    assert (fetched.status, fetched.url, fetched.body) == (200, url, b"hello")
    assert (fetched.content_type, fetched.announced) == ("text/plain; charset=utf-8", 5)
    (request,) = site.requests
    assert (request.method, request.target) == ("GET", "/a%2Fb/%C3%BC?q=1&r=%20")
    assert request.headers == {
        "host": f"{NAME}:{site.port}",
        "accept": "text/*",
        "accept-encoding": "gzip",
        "user-agent": "SwissBrain",
        "x-own": "1",
    }


async def test_nothing_comes_from_the_environment_and_no_cookie_is_kept(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    url = site.serve("/", answer(b"", 302, Location="/next", Set_Cookie="id=1; Path=/"))
    site.serve("/next", answer(b"end", Set_Cookie="id=2"))
    fetcher = fetching(site)
    for _ in range(2):
        assert (await get(fetcher, url)).body == b"end"
    assert all("cookie" not in request.headers for request in site.requests)


@pytest.mark.parametrize("status", [204, 304, 400, 404, 500, 503])
async def test_an_answer_of_any_status_is_a_result(site: Site, status: int) -> None:
    body = b"" if status in {204, 304} else b"why"
    fetched = await get(fetching(site), site.serve("/", answer(body, status)))
    assert (fetched.status, fetched.body) == (status, body)


async def test_head_has_no_body(site: Site) -> None:
    fetched = await get(fetching(site), site.serve("/", answer(Content_Length="123", Content_Encoding="gzip")), "HEAD")
    assert (fetched.status, fetched.announced, fetched.body) == (200, 123, b"")


async def test_post_sends_its_body(site: Site) -> None:
    url = site.serve("/", answer(b"ok", 201))
    await get(fetching(site), url, "POST", {"Content-Type": "application/json"}, b'{"a": "\xc3\xbc"}')
    (request,) = site.requests
    assert (request.method, request.body) == ("POST", b'{"a": "\xc3\xbc"}')
    assert request.headers["content-type"] == "application/json"


async def test_the_next_address_is_tried_if_one_cannot_be_connected_to(site: Site) -> None:
    # Nothing listens on the other addresses of loopback.
    names = Names(site_test=[["127.77.0.1", "127.77.0.2", "127.0.0.1"]])
    url = site.serve("/", answer(b"ok"))
    assert (await get(fetching(site, names), url)).body == b"ok"
    assert names.asked == [NAME]
    names = Names(site_test=[["127.77.0.1", "127.77.0.2"]])
    code, message = await failure(fetching(site, names), url)
    assert (code, message) == ("fetch_failed", f"fetching from '{NAME}:{site.port}' failed: Connection refused")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_followed_as_browsers_do(site: Site, status: int) -> None:
    url = site.serve("/a/b", answer(b"", status, Location="../c?d=e f#g"))
    end = site.serve("/c?d=e%20f", answer(b"end"))
    fetched = await get(fetching(site), url, "POST", {"X-Key": "1", "Content-Type": "text/csv"}, b"a,b")
    assert (fetched.url, fetched.body) == (end, b"end")
    again = site.requests[1]
    kept = status in {307, 308}
    assert (again.method, again.body) == (("POST", b"a,b") if kept else ("GET", b""))
    assert (again.headers.get("content-type"), again.headers["x-key"]) == ("text/csv" if kept else None, "1")


async def test_another_origin_gets_no_headers_that_may_be_secrets(site: Site) -> None:
    url = site.serve("/", answer(b"", 307, Location=site.at("/next", OTHER)))
    site.serve("/next", answer(b"end"))
    secrets = {"Authorization": "Bearer s", "X-Api-Key": "s", "Referer": "s"}
    await get(fetching(site), url, "POST", {**secrets, "Accept": "text/plain", "Content-Type": "text/csv"}, b"x")
    headers = site.requests[1].headers
    assert headers["host"] == f"{OTHER}:{site.port}"
    assert (headers["accept"], headers["content-type"]) == ("text/plain", "text/csv")
    assert not {name.lower() for name in secrets} & {*headers}


@pytest.mark.parametrize(
    ("location", "code"),
    [
        ("http://127.0.0.1/", "address_not_allowed"),
        ("http://0x7f.1/", "address_not_allowed"),
        ("http://2130706433/", "address_not_allowed"),
        ("http://[::1]/", "address_not_allowed"),
        ("http://[::ffff:7f00:1]/", "address_not_allowed"),
        ("http://[64:ff9b::a00:1]/", "address_not_allowed"),
        ("http://169.254.169.254/latest/meta-data/", "address_not_allowed"),
        ("http://metadata.test/", "address_not_allowed"),
        ("http://127.0.0.1:{port}/secret", "fetch_not_allowed"),
        (f"http://{NAME}:22/", "fetch_not_allowed"),
        ("http://[fe80::1%25eth0]/", "fetch_failed"),
        ("http://user:pw@example.org/", "fetch_failed"),
        ("http://example.org\\@127.0.0.1/", "fetch_failed"),
        ("ftp:///path", "fetch_failed"),
        ("http://a..b/", "fetch_failed"),
        ("http://user:pw@\N{CIRCLED DIGIT ONE}/" + "x" * 2000, "fetch_failed"),
        ("http://example.org:pw/", "fetch_failed"),
        ("http://1.2.3.4.5/", "fetch_failed"),
        ("http://example.org:99999/", "fetch_failed"),
        ("file:///etc/passwd", "fetch_failed"),
        ("gopher://example.org/", "fetch_failed"),
        ("javascript:alert(1)", "fetch_failed"),
        ("/" + "x" * 9000, "fetch_failed"),
    ],
)
async def test_a_redirect_is_checked_like_the_first_url(site: Site, location: str, code: str) -> None:
    url = site.serve("/", answer(b"", 302, Location=location.format(port=site.port)))
    site.serve("/secret", answer(b"secret"))
    names = Names(metadata_test=[["169.254.169.254"]])
    refused, message = await failure(fetching(site, names, HTTP_FETCH_HOSTS="*"), url)
    assert refused == code
    assert "pw" not in message
    assert len(message) < 200
    assert len(site.requests) == 1


async def test_a_name_whose_answer_changes_is_checked_again_after_a_redirect(site: Site) -> None:
    url = site.serve("/", answer(b"", 302, Location="/"))
    names = Names(site_test=[["127.0.0.1"], ["169.254.169.254"]])
    code, message = await failure(fetching(site, names), url)
    assert (code, names.asked, len(site.requests)) == ("address_not_allowed", [NAME, NAME], 1)
    assert "169.254" not in message
    # An answer with one bad address is refused as a whole, although the first would do.
    names = Names(site_test=[["127.0.0.1", "169.254.169.254"]])
    assert (await failure(fetching(site, names), url))[0] == "address_not_allowed"
    assert len(site.requests) == 1


async def test_a_chain_of_redirects_ends(site: Site) -> None:
    for n in range(6):
        site.serve(f"/{n}", answer(b"", 302, Location=f"/{n + 1}"))
    site.serve("/6", answer(b"end"))
    assert (await get(fetching(site), site.at("/1"))).body == b"end"
    code, message = await failure(fetching(site), site.at("/0"))
    assert (code, message) == ("fetch_failed", "the answer is a chain of more than 5 redirects")


async def test_a_redirect_without_a_location_is_a_result(site: Site) -> None:
    assert (await get(fetching(site), site.serve("/", answer(b"", 302)))).status == 302
    assert (await get(fetching(site), site.serve("/", answer(b"", 300, Location="/")))).status == 300


async def test_hosts_that_are_not_listed_are_not_resolved(site: Site) -> None:
    names = Names()
    fetcher = fetching(site, names, HTTP_FETCH_HOSTS="example.org")
    for url in ("http://example.com/", "http://example.org:8080/", site.at("/", "third.test")):
        code, message = await failure(fetcher, url)
        assert code == "fetch_not_allowed"
        assert message.endswith("is not among the hosts that HTTP_FETCH_HOSTS allows")
    assert names.asked == []
    code, message = await failure(fetcher, "http://EXAMPLE.org./")
    assert (code, names.asked) == ("address_not_allowed", ["example.org"])
    assert message.endswith("if it is a host of your own, list 'example.org:80' in HTTP_FETCH_PRIVATE_HOSTS")


@pytest.mark.parametrize(
    "url", ["http://[fe80::1%25eth0]/", "http://a..b/", "ftp://a/", "http://u@a/", "http://a:99999/"]
)
async def test_a_url_that_cannot_be_fetched_is_invalid(site: Site, url: str) -> None:
    assert (await failure(fetching(site), url))[0] == "invalid_input"


async def test_the_certificate_must_be_valid_for_the_name(tls_site: TlsSite) -> None:
    url = tls_site.serve("/", answer(b"secret"))
    fetcher = fetching(tls_site, tls=tls_site.trust)
    assert (await get(fetcher, url)).body == b"secret"
    # The same server answers under another name, for which it has no certificate.
    for first in (tls_site.at("/", OTHER), tls_site.serve("/to", answer(b"", 302, Location=tls_site.at("/", OTHER)))):
        code, message = await failure(fetcher, first)
        assert code == "fetch_failed"
        assert f"fetching from '{OTHER}:{tls_site.port}' failed: the certificate is not valid: Hostname mism" in message
    assert len(tls_site.requests) == 2


async def test_an_authority_that_is_not_known_is_not_trusted(tls_site: TlsSite) -> None:
    code, message = await failure(fetching(tls_site), tls_site.serve("/", answer(b"secret")))
    assert code == "fetch_failed"
    assert "the certificate is not valid" in message
    assert tls_site.requests == []


async def test_a_redirect_from_https_to_http_is_not_followed(tls_site: TlsSite, site: Site) -> None:
    url = tls_site.serve("/", answer(b"", 302, Location=site.at("/")))
    hosts = f"{NAME}:{site.port}"
    code, message = await failure(fetching(tls_site, tls=tls_site.trust, HTTP_FETCH_HOSTS=hosts), url)
    assert (code, site.requests) == ("fetch_not_allowed", [])
    assert "from https to http" in message


async def test_an_ipv6_address_is_connected_to() -> None:
    async def page(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer((await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")[1].lower()))
        writer.close()

    try:
        server = await asyncio.start_server(page, "::1", 0)
    except OSError:
        pytest.skip("this machine has no IPv6")
    async with server:
        site = Site(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        fetcher = fetching(site, Names(site_test=[["::1"]]), HTTP_FETCH_PRIVATE_HOSTS=f"{NAME}:{site.port}")
        assert (await get(fetcher, site.at("/"))).body == f"host: {NAME}:{site.port}".encode()
        fetcher = fetching(site, HTTP_FETCH_PRIVATE_HOSTS=f"[::1]:{site.port}")
        fetched = await get(fetcher, site.at("/", "[0:0::1]"))
        assert (fetched.body, fetched.url) == (f"host: [::1]:{site.port}".encode(), site.at("/", "[0:0::1]"))


def members(*parts: bytes) -> bytes:
    return b"".join(gzip.compress(part, 9, mtime=0) for part in parts)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (members(b"hello"), b"hello"),
        (members(b""), b""),
        (members(b"x" * MAX), b"x" * MAX),
        (members(b"a", b"", b"b"), b"ab"),
        (members(b"a") + b"\0" * 9, b"a"),
        (members(b"a") + b"rest", b"a"),
        (b"", b""),
    ],
)
@pytest.mark.parametrize("packet", [1, 1 << 20])
async def test_gzip_is_unpacked(site: Site, body: bytes, text: bytes, packet: int) -> None:
    def page(wire: Wire) -> None:
        wire.send(answer(Content_Encoding="gzip", Content_Length=str(len(body))))
        for start in range(0, len(body), packet):
            wire.send(body[start : start + packet])

    assert (await get(fetching(site, HTTP_FETCH_MAX_BYTES=str(MAX)), site.serve("/", page))).body == text


@pytest.mark.parametrize(
    "body",
    [
        b"not gzip",
        zlib.compress(b"zlib"),
        members(b"hello")[:-1],
        members(b"hello")[:5],
        members(b"hello" * 99)[:-12] + bytes(12),
        members(b"a", b"hello" * 99)[:-12],
    ],
)
async def test_damaged_gzip_fails(site: Site, body: bytes) -> None:
    code, message = await failure(fetching(site), site.serve("/", answer(body, Content_Encoding="gzip")))
    assert (code, "gzip" in message) == ("fetch_failed", True)


@pytest.mark.parametrize("encoding", ["br", "deflate", "gzip, gzip", "zstd", "x" * 1000])
async def test_a_compression_that_was_not_asked_for_fails(site: Site, encoding: str) -> None:
    code, message = await failure(fetching(site), site.serve("/", answer(b"x", Content_Encoding=encoding)))
    assert (code, len(message) < 200) == ("fetch_failed", True)


def endless(packet: bytes, encoding: str = "identity") -> Page:
    def page(wire: Wire) -> None:
        wire.send(answer(Transfer_Encoding="chunked", Content_Encoding=encoding))
        while True:  # until the client has closed the connection
            wire.send(f"{len(packet):x}\r\n".encode() + packet + b"\r\n")

    return page


BOMB = zlib.compressobj(9, zlib.DEFLATED, 31)
BOMB_START = BOMB.compress(bytes(10)) + BOMB.flush(zlib.Z_SYNC_FLUSH)
BOMB_PART = BOMB.compress(bytes(4_000_000)) + BOMB.flush(zlib.Z_FULL_FLUSH)


def bomb(wire: Wire) -> None:
    wire.send(answer(Content_Encoding="gzip", Transfer_Encoding="chunked"))
    for part in (BOMB_START, *[BOMB_PART] * 10_000):
        wire.send(f"{len(part):x}\r\n".encode() + part + b"\r\n")


def until_closed(wire: Wire) -> None:
    wire.send(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        wire.send(bytes(4096))


TOO_LARGE: dict[str, Page] = {
    "announced": answer(Content_Length=str(MAX + 1)),
    "announced in no time": answer(Content_Length="9" * 18),
    "sent": answer(bytes(MAX + 1)),
    "chunks without end": endless(bytes(1000)),
    "until the connection is closed": until_closed,
    "bomb": bomb,
    "empty members": endless(members(*[b""] * 50), "gzip"),
    "announced and compressed": answer(Content_Length=str(2 * MAX), Content_Encoding="gzip"),
}


@pytest.mark.parametrize("page", TOO_LARGE)
async def test_a_body_above_the_limit_ends_early(site: Site, page: str) -> None:
    code, message = await failure(fetching(site, HTTP_FETCH_MAX_BYTES=str(MAX)), site.serve("/", TOO_LARGE[page]))
    assert code == "too_large"
    assert message == f"the body of the answer has more than {MAX} bytes (HTTP_FETCH_MAX_BYTES)"


async def test_a_body_of_the_limit_is_fetched(site: Site) -> None:
    assert (
        len((await get(fetching(site, HTTP_FETCH_MAX_BYTES=str(MAX)), site.serve("/", answer(bytes(MAX))))).body) == MAX
    )


def cut(data: bytes) -> Page:
    def page(wire: Wire) -> None:
        wire.send(data)
        wire.reset()

    return page


BROKEN: dict[str, Page] = {
    "shorter than announced": answer(b"x", Content_Length="2"),
    "two lengths": answer(b"x", Content_Length="1\r\nContent-Length: 2"),
    "a length that is no number": answer(b"x", Content_Length="-1"),
    "no chunk": answer(b"zz\r\nx", Transfer_Encoding="chunked"),
    "cut chunk": answer(b"5\r\nhel", Transfer_Encoding="chunked"),
    "no HTTP": b"220 mail.test ESMTP\r\n",
    "nothing": b"",
    "cut head": b"HTTP/1.1 200 OK\r\nContent-",
    "endless head": b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000,
    "many headers": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 40_000 + b"\r\n",
    "null in a header": b"HTTP/1.1 200 OK\r\nX: \0\r\n\r\n",
    "reset before the answer": cut(b""),
    "reset in the body": cut(answer(b"x", Content_Length="99")),
}


@pytest.mark.parametrize("page", BROKEN)
async def test_a_broken_answer_fails(site: Site, page: str) -> None:
    code, message = await failure(fetching(site), site.serve("/", BROKEN[page]))
    assert code == "fetch_failed"
    assert message.startswith(f"fetching from '{NAME}:{site.port}' failed: ")
    assert len(message) < 200


async def test_a_host_without_descriptors_is_exhausted(site: Site) -> None:
    class Exhausted(Names):
        async def __call__(self, host: str, port: int) -> list[str]:
            raise OSError(24, "Too many open files")

    with pytest.raises(HostExhausted):
        await get(fetching(site, Exhausted()), site.at("/"))


async def test_a_cancelled_fetch_closes_its_connection(site: Site) -> None:
    closed = asyncio.Event()
    loop = asyncio.get_running_loop()

    def page(wire: Wire) -> None:
        wire.send(answer(b"x", Content_Length="2"))
        wire.silence()
        loop.call_soon_threadsafe(closed.set)

    task = asyncio.create_task(get(fetching(site), site.serve("/", page)))
    while not site.requests:
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.wait_for(closed.wait(), 30)


async def test_many_fetches_at_once_are_independent(site: Site) -> None:
    urls = [site.serve(f"/{n}", answer(b"%d" % n)) for n in range(20)]
    fetcher = fetching(site)
    assert [f.body for f in await asyncio.gather(*(get(fetcher, url) for url in urls))] == [
        b"%d" % n for n in range(20)
    ]
