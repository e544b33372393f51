"""Proxy of the environment for an address: `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, `NO_PROXY`.

The HTTP libraries read these variables, too, but for all addresses together: httpx raises an error for an entry of
`NO_PROXY` that it cannot parse, such as an IPv6 network; aiohttp reads no ports in it, and passwords of a `.netrc`.
"""

from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass


def proxy_for(url: str) -> tuple[str, str | None]:
    """Return the proxy for an address after the name of its variable; empty and None if there is none.

    Entries of `NO_PROXY` are names, domains and ports.
    """
    parts, proxies = urlsplit(url), getproxies()
    scheme = parts.scheme if proxies.get(parts.scheme) else "all"
    proxy = proxies.get(scheme)
    if not proxy or proxy_bypass(parts.netloc.rpartition("@")[2]):
        return "", None
    return f"{scheme.upper()}_PROXY", proxy if "://" in proxy else f"http://{proxy}"
