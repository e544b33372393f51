"""Guard for addresses: which are public, how hosts are spelled, and answers of resolvers."""

import asyncio
import socket
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.address_guard import (
    LOOKUPS,
    MAX_ADDRESSES,
    AddressGuard,
    AddressNotAllowed,
    HostNotFound,
    InvalidHost,
    is_private,
    is_public,
    read_host,
)

PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "100.63.255.255",
    "100.128.0.0",
    "126.255.255.255",
    "128.0.0.1",
    "172.15.255.255",
    "172.32.0.0",
    "192.0.1.1",
    "192.167.255.255",
    "192.169.0.0",
    "223.255.255.255",
    "2000::1",
    "2001:200::1",
    "2606:4700::1111",
    "2a00::1",
    "3ffe:ffff::1",
    "::ffff:8.8.8.8",
    "64:ff9b::8.8.8.8",
]
PRIVATE = [
    "10.0.0.0",
    "10.255.255.255",
    "100.64.0.0",
    "100.127.255.255",
    "127.0.0.1",
    "127.255.255.255",
    "172.16.0.0",
    "172.31.255.255",
    "192.168.0.0",
    "192.168.255.255",
    "::1",
    "::ffff:10.0.0.1",
    "::ffff:127.0.0.1",
    "fc00::1",
    "fd00::1",
    "fdff:ffff::1",
]
NEITHER = [
    "0.0.0.0",
    "0.255.255.255",
    "100.100.100.200",  # metadata
    "168.63.129.16",  # metadata
    "169.254.0.1",
    "169.254.169.254",  # metadata
    "192.0.0.1",
    "192.0.0.9",
    "192.0.0.192",  # metadata
    "192.0.2.1",
    "192.88.99.1",
    "198.18.0.1",
    "198.19.255.255",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::127.0.0.1",
    "::8.8.8.8",
    "::ffff:0:8.8.8.8",
    "::ffff:169.254.169.254",
    "100::1",
    "2001::1",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "2001:2::1",
    "2001:10::1",
    "2001:20::1",
    "2001:1ff::1",
    "2001:db8::1",
    "2002:7f00:1::1",
    "2002:808:808::1",
    "2606:4700::1111%eth0",
    "3fff::1",
    "3fff:fff::1",
    "4000::1",
    "5f00::1",
    "64:ff9b::10.0.0.1",
    "64:ff9b::127.0.0.1",
    "64:ff9b::169.254.169.254",
    "64:ff9b:1::8.8.8.8",
    "64:ff9b:1::a00:1",
    "fd00:ec2::254",  # metadata
    "fd20:ce::254",  # metadata
    "fe80::1",
    "fe80::1%eth0",
    "febf::1",
    "fec0::1",
    "fd00::1%eth0",
    "ff02::1",
    "ff0e::1",
]


@pytest.mark.parametrize(
    ("text", "public", "private"),
    [(text, True, False) for text in PUBLIC]
    + [(text, False, True) for text in PRIVATE]
    + [(text, False, False) for text in NEITHER],
)
async def test_each_range_is_public_or_private_or_neither(text: str, public: bool, private: bool) -> None:
    address = ip_address(text)
    assert (is_public(address), is_private(address)) == (public, private)
    # The same in the answer of a resolver, for a host that may be private and for another.
    for ports, allowed in (((), public), ((("h", 80),), public or private)):
        guard = AddressGuard(ports, resolve=answers(text))
        if allowed:
            assert len(await guard.addresses("h", 80)) == 1
        else:
            with pytest.raises(AddressNotAllowed):
                await guard.addresses("h", 80)


def embeddings(plain: IPv4Address) -> tuple[list[IPv6Address], list[IPv6Address]]:
    """Return the IPv6 forms of an address that reach it, and forms that may reach anything."""
    number = int(plain)
    reaching = [IPv6Address(0xFFFF << 32 | number), IPv6Address(0x64_FF9B << 96 | number)]
    unknown = [
        IPv6Address(number),  # IPv4-compatible
        IPv6Address(0xFFFF << 48 | number),  # IPv4-translated
        IPv6Address(0x64_FF9B_0001 << 80 | number),  # NAT64 for local use, /96
        IPv6Address(0x64_FF9B_0001 << 80 | (number >> 16) << 64 | (number & 0xFFFF) << 40),  # the same, /48
        IPv6Address(0x2002 << 112 | number << 80),  # 6to4
        IPv6Address(0x2001 << 112 | number << 64),  # Teredo, the server
        IPv6Address(0x2001 << 112 | number ^ 0xFFFF_FFFF),  # Teredo, the client
        IPv6Address(0xFE80 << 112 | 0x5EFE << 32 | number),  # ISATAP
    ]
    return reaching, unknown


@settings(max_examples=20)
@given(st.ip_addresses(v=4) | st.sampled_from([IPv4Address(t) for t in PUBLIC + PRIVATE + NEITHER if ":" not in t]))
def test_an_embedded_address_is_judged_as_its_plain_form(plain: IPv4Address) -> None:
    reaching, unknown = embeddings(plain)
    assert {is_public(address) for address in reaching} == {is_public(plain)}
    assert not any(is_public(address) or is_private(address) for address in unknown)
    assert not (is_public(plain) and is_private(plain))


def spellings(plain: IPv4Address) -> list[str]:
    """Return ways to write an address that the C library takes for it."""
    a, b, c, d = plain.packed
    return [
        f"{int(plain)}",
        f"0{int(plain):o}",
        f"0x{int(plain):x}",
        f"0X{int(plain):08X}",
        f"{a}.{int(plain) & 0xFFFFFF}",
        f"{a}.{b}.{c << 8 | d}",
        f"0{a:o}.0x{b:x}.{c}.000{d:o}",
        f"0x{a:x}.{int(plain) & 0xFFFFFF}",
        f"{plain}.",
    ]


@settings(max_examples=20)
@given(st.ip_addresses(v=4))
def test_every_spelling_of_an_address_is_read_as_the_c_library_reads_it(plain: IPv4Address) -> None:
    for text in spellings(plain):
        assert read_host(text) == str(plain), text
        assert socket.inet_aton(text.removesuffix(".")) == plain.packed


@settings(max_examples=20)
@given(st.text(alphabet="0123456789abcdefx.:[]%-_", max_size=40))
def test_a_host_that_the_c_library_takes_for_an_address_is_read_as_one_or_refused(text: str) -> None:
    try:
        packed = socket.inet_aton(text)
    except (OSError, UnicodeError):
        packed = None
    try:
        read = read_host(text)
    except InvalidHost:
        return
    assert packed is None or read == str(IPv4Address(packed))
    assert read_host(read) == read


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("Example.ORG", "example.org"),
        ("example.org.", "example.org"),
        ("_dmarc.a-b.example", "_dmarc.a-b.example"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("127.1", "127.0.0.1"),
        ("0", "0.0.0.0"),
        ("0x", "0.0.0.0"),
        ("0x7F.1", "127.0.0.1"),
        ("1e100.net", "1e100.net"),
        ("4chan.example", "4chan.example"),
        ("[::1]", "::1"),
        ("::1", "::1"),
        ("[2001:DB8:0::1]", "2001:db8::1"),
        ("[::FFFF:7f00:1]", "127.0.0.1"),
    ],
)
def test_a_host_has_one_spelling(text: str, host: str) -> None:
    assert read_host(text) == host


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "..",
        "a..b",
        ".a",
        "a" * 64,
        "a." * 127 + "a",
        "a b",
        "a%2eb",
        "a/b",
        "a@b",
        "a\\b",
        "a\0",
        "１２７.0.0.1",
        "bücher.example",
        "ⓛocalhost",
        "\u212a",
        "256.1.1.1",
        "1.2.3.4.5",
        "1.2.3.256",
        "1.256.3",
        "4294967296",
        "0x100000000",
        "08.1.1.1",
        "a.1",
        "a.0x1",
        "[::1",
        "::1]x",
        "[fe80::1%eth0]",
        "[fe80::1%25eth0]",
        "[1.2.3.4]",
        "[v1.a]",
        "1:2",
    ],
)
def test_a_host_that_is_neither_name_nor_address_is_refused(text: str) -> None:
    with pytest.raises(InvalidHost):
        read_host(text)


def answers(*addresses: str) -> "Recorder":
    return Recorder([addresses])


class Recorder:
    """Resolver with one answer after the other."""

    def __init__(self, script: Sequence[Sequence[str]]) -> None:
        self._script = list(script)
        self.asked: list[tuple[str, int]] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append((host, port))
        return self._script.pop(0)


async def test_a_name_is_resolved_once_and_its_addresses_are_returned_in_order() -> None:
    resolve = answers("2606:4700::1111", "1.1.1.1", "1.1.1.1", "::ffff:8.8.8.8")
    found = await AddressGuard(resolve=resolve).addresses("example.org", 443)
    assert found == [ip_address("2606:4700::1111"), ip_address("1.1.1.1"), ip_address("8.8.8.8")]
    assert resolve.asked == [("example.org", 443)]


@pytest.mark.parametrize("bad", ["10.0.0.1", "fe80::1%2", "not an address", "::ffff:127.0.0.1"])
async def test_one_bad_address_refuses_the_whole_answer(bad: str) -> None:
    many = ["1.1.1.1"] * MAX_ADDRESSES
    for script in ([*many, bad], [bad, *many]):
        with pytest.raises(AddressNotAllowed) as refused:
            await AddressGuard(resolve=answers(*script)).addresses("example.org", 443)
        assert str(refused.value) == "the host 'example.org' has an address that is not public"


async def test_the_number_of_addresses_is_bounded() -> None:
    found = await AddressGuard(resolve=answers(*(f"1.1.1.{n}" for n in range(100)))).addresses("h", 80)
    assert len(found) == MAX_ADDRESSES


async def test_an_address_is_not_resolved() -> None:
    guard = AddressGuard([("127.0.0.1", 80), ("::1", 80)], resolve=Recorder([]))
    assert await guard.addresses("1.1.1.1", 80) == [ip_address("1.1.1.1")]
    assert await guard.addresses("127.0.0.1", 80) == [ip_address("127.0.0.1")]
    assert await guard.addresses("::1", 80) == [ip_address("::1")]
    with pytest.raises(AddressNotAllowed):
        await guard.addresses("127.0.0.1", 81)


async def test_a_private_host_is_allowed_only_on_its_port() -> None:
    guard = AddressGuard([("intranet", 8080)], resolve=Recorder([["10.0.0.1"]] * 3))
    assert await guard.addresses("intranet", 8080) == [ip_address("10.0.0.1")]
    for host, port in (("intranet", 80), ("other", 8080)):
        with pytest.raises(AddressNotAllowed):
            await guard.addresses(host, port)


async def test_a_name_without_addresses_is_not_found() -> None:
    with pytest.raises(HostNotFound, match="no address"):
        await AddressGuard(resolve=answers()).addresses("example.org", 443)


async def test_the_resolver_of_the_system_is_asked() -> None:
    guard = AddressGuard([("localhost", 80)])
    found = await asyncio.gather(*(guard.addresses("localhost", 80) for _ in range(2 * LOOKUPS)))
    assert {str(address) for addresses in found for address in addresses} <= {"127.0.0.1", "::1"}
    # RFC 6761 reserves the domain: it has no names.
    with pytest.raises(HostNotFound, match=r"'no-such-host\.invalid' cannot be resolved: "):
        await guard.addresses("no-such-host.invalid", 80)
