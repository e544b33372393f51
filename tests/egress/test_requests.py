"""Requests to the proxy: what is passed on and how, what is refused and why, hostile bytes."""

import asyncio
from contextlib import suppress

import pytest

from infra.address_guard import AddressGuard
from infra.egress.call import MAX_HOSTS, EgressCall, EgressLimits, EgressRefused
from infra.egress.targets import BadTarget, EgressTarget, connect_target, plain_target
from tests.egress.conftest import MB, OTHER, Proxy, ProxyOptions, proxy_of, raw_server
from tests.support.scripted_http import Wire
from tests.support.waiting import until
from tests.support.web_site import NAME, Names, Site, answer

POST = "POST http://SITE/ HTTP/1.1\r\nHost: SITE\r\n"


def connect(endpoint: str) -> bytes:
    return f"CONNECT {endpoint} HTTP/1.1\r\nHost: {endpoint}\r\n\r\n".encode()


def get(site: Site, path: str = "/", host: str = NAME, *headers: str) -> bytes:
    lines = [f"GET {site.at(path, host)} HTTP/1.1", f"Host: {host}:{site.port}", *headers, "", ""]
    return "\r\n".join(lines).encode()


async def test_a_request_is_passed_on_and_written_anew(proxy: Proxy, site: Site) -> None:
    site.serve("/a?b=c", answer(b"hello", X_Kept="yes", Connection="close, x-hop", X_Hop="no", Proxy_Authenticate="x"))
    request = get(site, "/a?b=c", NAME, "X-Own: 1", "Proxy-Connection: keep-alive", "Connection: X-Drop", "X-Drop: 2")
    received = await proxy.answer(request)
    head, _, body = received.partition(b"\r\n\r\n")
    assert (head.split(b"\r\n")[0], body) == (b"HTTP/1.1 200 X", b"hello")
    assert b"x-kept: yes" in head
    assert b"x-hop" not in head
    assert b"proxy-" not in head
    sent = site.requests[0]
    assert (sent.method, sent.target) == ("GET", "/a?b=c")
    assert sent.headers == {"host": f"{NAME}:{site.port}", "x-own": "1", "connection": "close"}
    use = proxy.call.use()
    assert use.refused == {}
    assert use.traffic.keys() == {f"{NAME}:{site.port}"}
    assert use.traffic[f"{NAME}:{site.port}"].received > len(b"hello")


async def test_a_body_is_passed_on_in_either_framing(proxy: Proxy, site: Site) -> None:
    site.serve("/", answer(b"ok"))
    fixed = get(site, "/", NAME, "Content-Length: 5").replace(b"GET", b"POST", 1) + b"hello"
    assert (await proxy.answer(fixed)).endswith(b"\r\n\r\nok")
    assert site.requests[0].body == b"hello"

    async with raw_server(b"\r\n0\r\n\r\n", answer(b"read")) as (port, seen):
        options = ProxyOptions(site, [f"{NAME}:{port}"], private=[(NAME, port)])
        async with proxy_of(options) as other:
            head = f"PUT http://{NAME}:{port}/ HTTP/1.1\r\nHost: {NAME}:{port}\r\nTransfer-Encoding: chunked\r\n\r\n"
            body = b"3;ext=1\r\nabc\r\n0\r\nX-Trailer: 1\r\n\r\n"
            assert (await other.answer(head.encode() + body)).endswith(b"read")
    assert b"transfer-encoding: chunked" in seen
    assert seen.endswith(b"\r\n\r\n3\r\nabc\r\n0\r\n\r\n")


async def test_a_client_that_waits_for_leave_to_send_its_body_gets_it(proxy: Proxy, site: Site) -> None:
    site.serve("/", answer(b"ok"))
    reader, writer = await proxy.connect()
    writer.write(get(site, "/", NAME, "Content-Length: 5", "Expect: 100-continue").replace(b"GET", b"POST", 1))
    async with asyncio.timeout(30):
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
        writer.write(b"hello")
        await reader.readuntil(b"\r\n\r\nok")
    writer.close()
    assert site.requests[0].body == b"hello"
    assert "expect" not in site.requests[0].headers


async def test_a_connection_carries_several_requests_and_each_is_checked(proxy: Proxy, site: Site) -> None:
    site.serve("/1", answer(b"one"))
    site.serve("/2", b"HTTP/1.0 200 OK\r\n\r\nuntil the end")
    received = await proxy.answer(get(site, "/1") + get(site, "/2") + get(site, "/", OTHER) + get(site, "/1"))
    assert received.count(b"HTTP/1.1 ") == 3
    assert b"one" in received
    assert b"until the end" in received
    assert b"403 Not in `network` of the call" in received
    assert [request.target for request in site.requests] == ["/1", "/2"]


async def test_a_redirect_is_passed_on_and_not_followed(proxy: Proxy, site: Site) -> None:
    site.serve("/", answer(b"", 302, Location=site.at("/next", OTHER)))
    received = await proxy.answer(get(site))
    assert b"302" in received
    assert [request.target for request in site.requests] == ["/"]


async def test_a_host_that_is_not_listed_is_not_even_resolved(proxy: Proxy, site: Site) -> None:
    for request in (get(site, "/", OTHER), connect(f"{OTHER}:{site.port}")):
        received = await proxy.answer(request)
        assert received.startswith(b"HTTP/1.1 403 Not in `network` of the call\r\n")
        assert f"'{OTHER}:{site.port}' is not reached".encode() in received
        assert f"which allows {NAME}:{site.port}, within TOOLS_NETWORK_ALLOW".encode() in received
    assert proxy.names.asked == []
    assert proxy.call.use().refused == {f"{OTHER}:{site.port}": "not in `network` of the call"}


async def test_another_port_of_a_listed_host_is_refused(proxy: Proxy) -> None:
    assert b" 403 " in await proxy.answer(connect(f"{NAME}:22"))
    assert b" 403 " in await proxy.answer(f"GET http://{NAME}/ HTTP/1.1\r\nHost: {NAME}\r\n\r\n".encode())
    assert proxy.names.asked == []


@pytest.mark.parametrize(
    "host",
    [
        "169.254.169.254",
        "[::ffff:169.254.169.254]",
        "2852039166",
        "0xa9.0xfe.0xa9.0xfe",
        "0251.0376.0251.0376",
        "10.96.0.1",
        "127.1",
        "[::1]",
        "[fd00:ec2::254]",
        "[64:ff9b::a9fe:a9fe]",
        "kubernetes.default.svc",
        "mixed.test",
    ],
)
async def test_internal_addresses_are_refused_in_every_spelling(site: Site, host: str) -> None:
    names = Names(kubernetes_default_svc=[["10.96.0.1"]], mixed_test=[["1.1.1.1", "169.254.169.254"]])
    allowed = ["*.default.svc:80", "*.test:80"]
    addresses = ("169.254.169.254", "10.96.0.1", "127.0.0.1", "::1", "fd00:ec2::254", "64:ff9b::a9fe:a9fe")
    allowed += [f"[{address}]:80" if ":" in address else f"{address}:80" for address in addresses]
    async with proxy_of(ProxyOptions(site, allowed, names)) as proxy:
        for request in (connect(f"{host}:80").decode(), f"GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\n\r\n"):
            received = await proxy.answer(request.encode())
            assert received.startswith(b"HTTP/1.1 403 Address not public\r\n"), received
            assert b"TOOLS_NETWORK_PRIVATE_HOSTS" in received


async def test_a_name_that_changes_its_address_is_checked_at_each_request(site: Site) -> None:
    site.serve("/", answer(b"first"))
    names = Names(site_test=[["127.0.0.1"], ["169.254.169.254"]])
    async with proxy_of(ProxyOptions(site, names=names)) as proxy:
        received = await proxy.answer(get(site) + get(site))
    assert received.count(b"HTTP/1.1 200") == 1
    assert b"403 Address not public" in received
    assert names.asked == [NAME, NAME]


@pytest.mark.parametrize(
    ("request_text", "status", "reason"),
    [
        ("GET / HTTP/1.1\r\nHost: SITE\r\n\r\n", 400, "begins with http://"),
        ("GET https://SITE/ HTTP/1.1\r\nHost: SITE\r\n\r\n", 400, "https goes through CONNECT"),
        ("GET ftp://SITE/ HTTP/1.1\r\nHost: SITE\r\n\r\n", 400, "begins with http://"),
        ("GET http://user:secret@SITE/ HTTP/1.1\r\nHost: SITE\r\n\r\n", 400, "credentials"),
        ("GET http://SITE@evil.test/ HTTP/1.1\r\nHost: SITE\r\n\r\n", 400, "credentials"),
        ("GET http://evil.test\\@SITE/ HTTP/1.1\r\nHost: SITE\r\n\r\n", 400, "credentials"),
        ("GET http://SITE#@evil.test/ HTTP/1.1\r\nHost: SITE\r\n\r\n", 400, "fragment"),
        ("GET http://SITE\\.evil.test/ HTTP/1.1\r\nHost: SITE\r\n\r\n", 400, "not a host with a port"),
        ("GET http:///etc HTTP/1.1\r\nHost: SITE\r\n\r\n", 400, "not a host"),
        ("GET http://site%2etest/ HTTP/1.1\r\nHost: SITE\r\n\r\n", 400, "not a name"),
        ("GET http://SITE/ HTTP/1.1\r\nHost: SITE\r\nHost: other.test\r\n\r\n", 400, "Host"),
        ("GET http://SITE/ HTTP/1.1\r\n\r\n", 400, "Host"),
        ("GET http://SITE/a b HTTP/1.1\r\nHost: SITE\r\n\r\n", 400, "not valid"),
        (f"{POST}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "both"),
        (f"{POST}Content-Length: 5\r\nContent-Length: 6\r\n\r\n", 400, "not valid"),
        ("POST http://SITE/ HTTP/1.1\r\nHost: SITE\r\nContent-Length: +5\r\n\r\nhello", 400, "not valid"),
        ("POST http://SITE/ HTTP/1.1\r\nHost: SITE\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501, "not valid"),
        ("POST http://SITE/ HTTP/1.1\r\nHost: SITE\r\nTransfer-Encoding : chunked\r\n\r\n", 400, "not valid"),
        ("GET http://SITE/ HTTP/1.1\r\nHost: SITE\r\nX: a\r\n folded\x00\r\n\r\n", 400, "not valid"),
        ("GET http://SITE/ HTTP/2.0\r\nHost: SITE\r\n\r\n", 505, "HTTP/1.1"),
        ("CONNECT SITE HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc", 400, "no body"),
        ("CONNECT site.test HTTP/1.1\r\nHost: x\r\n\r\n", 400, "not a host with a port"),
        ("CONNECT http://SITE/ HTTP/1.1\r\nHost: x\r\n\r\n", 400, "not a host with a port"),
        ("CONNECT user@SITE HTTP/1.1\r\nHost: x\r\n\r\n", 400, "credentials"),
        ("CONNECT site.test:0 HTTP/1.1\r\nHost: x\r\n\r\n", 400, "between 1 and 65535"),
        ("CONNECT site.test:99999 HTTP/1.1\r\nHost: x\r\n\r\n", 400, "between 1 and 65535"),
        ("CONNECT [::1%25lo]:80 HTTP/1.1\r\nHost: x\r\n\r\n", 400, "not a host"),
        ("CONNECT b\xfccher.test:80 HTTP/1.1\r\nHost: x\r\n\r\n", 400, "not valid"),
        ("\x16\x03\x01\x02\x00\x01\r\n\r\n", 400, "not valid"),
        ("SSH-2.0-OpenSSH_9.2\r\n\r\n", 400, "not valid"),
        ("GET http://SITE/" + "a" * 40_000 + " HTTP/1.1\r\n", 431, "not valid"),
        ("GET http://SITE/ HTTP/1.1\r\nHost: SITE\r\n" + "X: y\r\n" * 8_000, 431, "not valid"),
    ],
)
async def test_ambiguous_and_broken_requests_are_refused(
    proxy: Proxy, site: Site, request_text: str, status: int, reason: str
) -> None:
    site.serve("/", answer(b"reached"))
    text = request_text.replace("SITE", f"{NAME}:{site.port}")
    received = await proxy.answer(text.encode("latin-1"))
    assert received.startswith(b"HTTP/1.1 %d " % status), received
    assert reason.encode() in received
    assert b"connection: close" in received
    assert b"secret" not in received
    assert site.requests == []


async def test_the_header_host_is_replaced_by_the_host_of_the_url(proxy: Proxy, site: Site) -> None:
    site.serve("/", answer(b"reached"))
    for host in (b"other.test", b"SITE.TEST, other.test", b"", b"@\\"):
        request = f"GET {site.at('/')} HTTP/1.1\r\n".encode() + b"Host: " + host + b"\r\nX-Host: other.test\r\n\r\n"
        assert (await proxy.answer(request)).endswith(b"reached")
    assert [request.headers["host"] for request in site.requests] == [f"{NAME}:{site.port}"] * 4


async def test_what_follows_a_refused_request_is_not_taken_for_another_one(proxy: Proxy, site: Site) -> None:
    site.serve("/", answer(b"smuggled"))
    smuggling = get(site, "/", NAME, "Content-Length: 4", "Transfer-Encoding: chunked").replace(b"GET", b"POST")
    received = await proxy.answer(smuggling + b"0\r\n\r\n" + get(site))
    assert received.count(b"HTTP/1.1 ") == 1
    assert site.requests == []


async def test_an_answer_with_two_framings_is_passed_on_with_one(proxy: Proxy, site: Site) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n"
    site.serve("/", head + b"5\r\nhello\r\n0\r\n\r\n")
    received = await proxy.answer(get(site))
    assert b"content-length" not in received
    assert received.endswith(b"\r\n\r\n5\r\nhello\r\n0\r\n\r\n")


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        (b"", b"502 No valid answer"),
        (b"not http\r\n\r\n", b"502 No valid answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", b"502 No valid answer"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 40_000, b"502 No valid answer"),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", b"502 No valid answer"),
    ],
)
async def test_a_broken_answer_becomes_a_refusal(proxy: Proxy, site: Site, page: bytes, expected: bytes) -> None:
    site.serve("/", page)
    assert expected in await proxy.answer(get(site))


async def test_an_answer_that_ends_early_does_not_look_complete(proxy: Proxy, site: Site) -> None:
    site.serve("/", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
    try:
        received = await proxy.answer(get(site))
    except ConnectionResetError:
        return
    assert not received.endswith(b"0\r\n\r\n")


async def test_a_body_that_ends_early_does_not_look_complete_to_the_server(site: Site) -> None:
    async with raw_server(b"never", b"") as (port, seen):
        options = ProxyOptions(site, [f"{NAME}:{port}"], private=[(NAME, port)])
        head = f"PUT http://{NAME}:{port}/ HTTP/1.1\r\nHost: {NAME}:{port}\r\nTransfer-Encoding: chunked\r\n\r\n"
        async with proxy_of(options) as proxy:
            assert b" 502 " in await proxy.answer(head.encode() + b"5\r\nhello\r\n")
    assert b"chunked" in seen
    assert not seen.endswith(b"0\r\n\r\n")


async def test_an_answer_may_come_before_the_body_is_read(proxy: Proxy, site: Site) -> None:
    site.serve("/", answer(b"too large", 413))
    reader, writer = await proxy.connect()
    request = get(site, "/", NAME, "Transfer-Encoding: chunked").replace(b"GET", b"POST")
    writer.write(request + b"5\r\nhello\r\n")
    async with asyncio.timeout(30):
        received = await reader.readuntil(b"too large")
    assert received.startswith(b"HTTP/1.1 413")
    writer.close()


async def test_a_tunnel_carries_bytes_both_ways_and_each_end(proxy: Proxy, site: Site) -> None:
    site.serve("/", answer(b"hello"))
    reader, writer = await proxy.connect()
    # The first bytes of the tunnel come with the head, as of a client that does not wait.
    inner = f"GET / HTTP/1.1\r\nHost: {NAME}\r\n\r\n".encode()
    writer.write(f"CONNECT {NAME.upper()}.:{site.port} HTTP/1.1\r\nHost: x\r\n\r\n".encode() + inner)
    async with asyncio.timeout(30):
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 200 Connection established\r\n\r\n"
        assert (await reader.read()).endswith(b"hello")
    writer.close()
    assert site.requests[0].headers == {"host": NAME}
    traffic = proxy.call.use().traffic[f"{NAME}:{site.port}"]
    assert traffic.sent == len(inner)
    assert traffic.received > 5


async def test_no_connection_is_a_refusal_with_the_reason(site: Site) -> None:
    names = Names(site_test=[["127.77.0.1"]], gone_test=[[]])
    async with proxy_of(ProxyOptions(site, [f"{NAME}:{site.port}", "gone.test:80"], names)) as proxy:
        received = await proxy.answer(connect(f"{NAME}:{site.port}"))
        assert received.startswith(b"HTTP/1.1 502 Cannot connect\r\n")
        assert b" 502 No such host" in await proxy.answer(connect("gone.test:80"))
        assert proxy.call.use().refused == {
            f"{NAME}:{site.port}": "no connection: Connection refused",
            "gone.test:80": "the host 'gone.test' has no address",
        }


@pytest.mark.parametrize("opening", [b"", b"GET http://site.test/ HT", b"GET http://site.test/ HTTP/1.1\r\nX: "])
async def test_a_head_that_does_not_come_ends_the_connection(site: Site, opening: bytes) -> None:
    limits = EgressLimits(MB, head_s=0.3)
    async with proxy_of(ProxyOptions(site, limits=limits)) as proxy:
        reader, writer = await proxy.connect()
        writer.write(opening)
        async with asyncio.timeout(30):
            received = await reader.read()
        assert received.startswith(b"HTTP/1.1 408") is bool(opening)
        writer.close()


@pytest.mark.parametrize("method", ["CONNECT", "GET"])
async def test_an_exchange_in_which_nothing_happens_ends(site: Site, method: str) -> None:
    site.serve("/", Wire.silence)
    limits = EgressLimits(MB, idle_s=0.1, half_open_s=0.05)
    async with proxy_of(ProxyOptions(site, limits=limits)) as proxy:
        reader, writer = await proxy.connect()
        request = get(site) if method == "GET" else connect(f"{NAME}:{site.port}")
        writer.write(request)
        async with asyncio.timeout(30):
            try:
                received = await reader.read()
            except ConnectionResetError:
                received = b""
        assert method == "CONNECT" or received.startswith(b"HTTP/1.1 504 No answer")
        writer.close()
        await until(lambda: asyncio.sleep(0, not proxy.call.tasks), "the connection has ended")


async def test_a_tunnel_with_one_end_closed_ends_soon(site: Site) -> None:
    site.serve("/", Wire.silence)
    limits = EgressLimits(MB, half_open_s=0.05)
    async with proxy_of(ProxyOptions(site, limits=limits)) as proxy:
        reader, writer = await proxy.connect()
        writer.write(connect(f"{NAME}:{site.port}") + b"GET / HTTP/1.1\r\n\r\n")
        writer.write_eof()
        await until(lambda: asyncio.sleep(0, not proxy.call.tasks and site.requests), "the tunnel has ended")
        writer.close()
        reader.feed_eof()


async def test_a_call_has_only_so_many_connections(site: Site) -> None:
    async with proxy_of(ProxyOptions(site, limits=EgressLimits(MB, connections=2))) as proxy:
        site.serve("/", Wire.silence)
        held = [await proxy.connect() for _ in range(2)]
        for _, writer in held:
            writer.write(get(site))
        await until(lambda: asyncio.sleep(0, len(proxy.call.tasks) == 2), "both are counted")
        received = await proxy.answer(get(site))
        assert received.startswith(b"HTTP/1.1 503 Too many connections\r\n")
        for _, writer in held:
            writer.transport.abort()


async def test_a_call_has_only_so_many_bytes_in_both_directions(site: Site) -> None:
    site.serve("/", answer(bytes(100_000)))
    for method in ("GET", "CONNECT"):
        async with proxy_of(ProxyOptions(site, limits=EgressLimits(50_000))) as proxy:
            request = get(site)
            if method == "CONNECT":
                request = connect(f"{NAME}:{site.port}") + b"GET / HTTP/1.1\r\n\r\n"
            with suppress(ConnectionResetError):
                assert len(await proxy.answer(request)) < 100_000
            assert b"403 Bytes used up" in await proxy.answer(get(site))
            reason = proxy.call.use().refused[f"{NAME}:{site.port}"]
            assert reason.startswith("the call has used up its 50000 bytes")
            assert "TOOLS_NETWORK_MAX_BYTES" in reason


async def test_an_upload_beyond_the_bytes_is_broken_off(site: Site) -> None:
    site.serve("/", answer(b"complete"))
    async with proxy_of(ProxyOptions(site, limits=EgressLimits(50_000))) as proxy:
        request = get(site, "/", NAME, "Content-Length: 100000").replace(b"GET", b"POST") + bytes(100_000)
        assert b"403 Bytes used up" in await proxy.answer(request)
        assert site.requests == [] or len(site.requests[0].body) < 100_000


async def test_many_hosts_are_counted_together() -> None:
    call = EgressCall("r", "c", ["*.test:80"], AddressGuard((), Names()), EgressLimits(10**9))
    for number in range(2 * MAX_HOSTS):
        call.count(EgressTarget(f"h{number}.test", 80), 1, 2)
        with pytest.raises(EgressRefused):
            await call.addresses(EgressTarget(f"h{number}.evil", 80))
    use = call.use()
    assert len(use.traffic) == MAX_HOSTS + 1
    assert use.traffic["others"] == (MAX_HOSTS, 2 * MAX_HOSTS)
    assert len(use.refused) == MAX_HOSTS


async def test_requests_beyond_a_rate_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    call = EgressCall("r", "c", [], AddressGuard((), Names()), EgressLimits(1))
    for _ in range(400):
        await call.pace()
    # The first 200 pass without a wait; the 200 after them are spread over two seconds.
    assert len(waits) <= 200
    assert 1.5 < max(waits) <= 2.1


@pytest.mark.parametrize(
    ("target", "host", "port"),
    [
        (b"EXAMPLE.org.:443", "example.org", 443),
        (b"xn--bcher-kva.test:443", "xn--bcher-kva.test", 443),
        (b"[::ffff:1.2.3.4]:443", "1.2.3.4", 443),
        (b"0x01020304:443", "1.2.3.4", 443),
    ],
)
def test_a_target_has_one_spelling(target: bytes, host: str, port: int) -> None:
    assert (connect_target(target).host, connect_target(target).port) == (host, port)


def test_a_plain_target_has_a_path() -> None:
    assert plain_target(b"HTTP://a.test") == EgressTarget("a.test", 80, b"/")
    assert plain_target(b"http://a.test?x=//b") == EgressTarget("a.test", 80, b"/?x=//b")
    assert plain_target(b"http://[2001:db8::1]:81/p").host_header == "[2001:db8::1]:81"
    with pytest.raises(BadTarget):
        plain_target(b"http://a.test:80:80/")
