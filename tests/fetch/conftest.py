"""Fixtures: a scripted web site on loopback, over HTTP and over TLS, and fetchers for it."""

import shutil
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from socketserver import StreamRequestHandler
from typing import Any

import pytest

from infra.address_guard import AddressGuard
from infra.settings import Env
from tests.support.certificates import new_authority, server_context
from tests.support.scripted_http import scripted_connections
from tests.support.servers import web_site_fixture
from tests.support.web_site import NAME, Names, Site
from worker.fetch.fetcher import Fetched, Fetcher
from worker.fetch.settings import FetchSettings
from worker.toolkit.base import ToolFailed

OTHER = "other.test"


def fetching(site: Site, resolve: Names | None = None, tls: ssl.SSLContext | None = None, **variables: str) -> Fetcher:
    """Return a fetcher that may fetch from both names of the site, unless the variables say otherwise."""
    private = {"HTTP_FETCH_PRIVATE_HOSTS": f"{NAME}:{site.port}, {OTHER}:{site.port}"}
    settings = FetchSettings.from_env(Env({**private, **variables}))
    return Fetcher(settings, AddressGuard(settings.private_hosts, resolve or Names()), tls)


async def get(
    fetcher: Fetcher,
    url: str,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
) -> Fetched:
    return await fetcher.fetch(method, url, headers or {}, body)


async def failure(fetcher: Fetcher, url: str, **more: Any) -> tuple[str, str]:
    """Return code and message of a fetch that must fail."""
    with pytest.raises(ToolFailed) as failed:
        await get(fetcher, url, **more)
    return failed.value.code, str(failed.value)


web = web_site_fixture("package")


@pytest.fixture
def site(web: Site) -> Site:
    web.pages.clear()
    web.requests.clear()
    return web


@dataclass
class TlsSite(Site):
    """Web site with a certificate for NAME; `trust` trusts its authority."""

    trust: ssl.SSLContext = field(default_factory=ssl.create_default_context)


@pytest.fixture(scope="package")
def tls_web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsSite]:
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificates")
    folder = tmp_path_factory.mktemp("tls")
    new_authority(folder)
    server = server_context(folder, NAME)
    made = TlsSite(trust=ssl.create_default_context(cafile=str(folder / "ca.pem")))

    def handle(handler: StreamRequestHandler, ending: threading.Event) -> None:
        with suppress(OSError), server.wrap_socket(handler.connection, server_side=True) as connection:
            handler.connection = connection
            handler.rfile = connection.makefile("rb")
            made.handle(handler, ending)

    with scripted_connections(handle, waits_for_answers=False) as url:
        made.url = url.replace("http://", "https://")
        yield made


@pytest.fixture
def tls_site(tls_web: TlsSite) -> TlsSite:
    tls_web.pages.clear()
    tls_web.requests.clear()
    return tls_web
