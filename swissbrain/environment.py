"""HTTP clients that follow the environment: proxies, `NO_PROXY`, `SSL_CERT_FILE` and `SSL_CERT_DIR`.

httpx reads the same variables, but for all addresses together: an entry of `NO_PROXY` that it cannot parse is an error
even if it concerns another host, and the error does not name the variable.
"""

import ipaddress
import os
import re
import ssl
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar
from urllib.request import getproxies

import httpx

from swissbrain.errors import ClientError

C = TypeVar("C", httpx.Client, httpx.AsyncClient)

_PORTS = {"http": 80, "https": 443}
_NAME_AND_PORT = re.compile(r"(?P<name>\[[^\]]*\]|[^:]*)(?::(?P<port>[0-9]{1,5}))?")


def open_client(url: httpx.URL, **options: Any) -> httpx.Client:
    """Return an HTTP client for requests to the host of `url`. Raises ClientError that names the unusable variable."""
    return _open(httpx.Client, url, options)


def open_async_client(url: httpx.URL, **options: Any) -> httpx.AsyncClient:
    """Return an asynchronous HTTP client, as `open_client` does."""
    return _open(httpx.AsyncClient, url, options)


def through_proxy(url: httpx.URL) -> str:
    """Return ` through the proxy in VARIABLE` if requests for `url` take one, for messages; else an empty text."""
    name, proxy = _proxy(url)
    return f" through the proxy in {name}" if proxy else ""


def _open(kind: type[C], url: httpx.URL, options: Mapping[str, Any]) -> C:
    name, proxy = _proxy(url)
    try:
        return kind(
            proxy=None if proxy is None else httpx.Proxy(proxy),
            verify=_certificates() if url.scheme == "https" else _no_certificates(),
            trust_env=False,
            **options,
        )
    except (httpx.InvalidURL, ValueError):
        # The address of a proxy can contain a password, and so can the message of httpx.
        raise ClientError(
            f"the proxy in {name} cannot be used: it is not an address such as http://host:8080"
        ) from None
    except ImportError as exc:
        raise ClientError(f"the proxy in {name} cannot be used: {exc}") from None


def _proxy(url: httpx.URL) -> tuple[str, str | None]:
    """Return the proxy for `url` with the name of its variable; None if there is none."""
    # On Windows and macOS, `getproxies` also knows the settings of the system.
    proxies = getproxies()
    scheme = url.scheme if proxies.get(url.scheme) else "all"
    proxy = proxies.get(scheme)
    if not proxy or any(_matches(entry.strip(), url) for entry in proxies.get("no", "").split(",")):
        return "", None
    return f"{scheme.upper()}_PROXY", proxy if "://" in proxy else f"http://{proxy}"


def _matches(entry: str, url: httpx.URL) -> bool:
    """Return whether an entry of `NO_PROXY` names the host of `url`: by name, domain, address, network, or as `*`.

    An entry of any other form names no host.
    """
    scheme, _, entry = entry.rpartition("://")
    if scheme not in {"", "all", url.scheme}:
        return False
    host = url.raw_host.decode("ascii").lower().strip("[]")
    # An IPv6 address or network without brackets has more than one colon, and so no port.
    parts = _NAME_AND_PORT.fullmatch(entry)
    name = (parts["name"] if parts else entry).lower().strip("[]")
    if parts and parts["port"] and int(parts["port"]) != (url.port or _PORTS.get(url.scheme)):
        return False
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(name, strict=False)
    except ValueError:
        domain = name.removeprefix("*").removeprefix(".")
        return name == "*" or (bool(domain) and (host == domain or host.endswith(f".{domain}")))


def _certificates() -> ssl.SSLContext:
    """Return the context for TLS with the certificates of the environment, else of `certifi`. Raises ClientError."""
    variable = next((name for name in ("SSL_CERT_FILE", "SSL_CERT_DIR") if os.environ.get(name)), "")
    return _read_certificates(variable, os.environ.get(variable, ""))


@lru_cache(maxsize=1)
def _no_certificates() -> ssl.SSLContext:
    """Return a context that trusts no server, for clients without TLS: httpx would read the certificates of certifi."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


@lru_cache(maxsize=8)
def _read_certificates(variable: str, places: str) -> ssl.SSLContext:
    # Kept, because each transfer opens a client of its own, and reading the certificates takes some 20 ms.
    # OpenSSL ignores folders that do not exist: then no certificate of a server could be verified.
    if variable == "SSL_CERT_DIR" and not any(Path(place).is_dir() for place in places.split(os.pathsep)):
        raise ClientError(f"there is no folder {places}, which SSL_CERT_DIR names")
    try:
        return httpx.create_ssl_context(trust_env=True)
    except OSError as exc:  # also the errors of OpenSSL
        named = f"{places}, which {variable} names" if variable else "the package 'certifi'"
        raise ClientError(f"cannot read certificates from {named}: {exc.strerror or exc}") from None
