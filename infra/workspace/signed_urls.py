"""Signed URLs of objects: AWS Signature Version 4 in the query, as S3 defines it, with addresses in path style.

Not by boto3, because its client takes 0.2 s of processor time to import and to build, and most requests of the API that
concern a file need nothing but a signature (docs/decisions/0029-what-a-cold-start-imports.md). The tests compare every
URL with that of boto3.
"""

import hashlib
import hmac
import time
from collections.abc import Mapping
from types import MappingProxyType
from urllib.parse import quote, urlsplit

from infra.settings import S3Settings

_ALGORITHM = "AWS4-HMAC-SHA256"
_DEFAULT_PORTS = {"http": 80, "https": 443}
_NOTHING: Mapping[str, str] = MappingProxyType({})


class UrlSigner:
    """Signs URLs with the key of the settings. Makes no call and keeps no state."""

    def __init__(self, settings: S3Settings) -> None:
        endpoint = urlsplit(settings.endpoint_url or f"https://s3.{settings.region}.amazonaws.com")
        # A client omits the default port from its header `Host`, which is part of the signature.
        # Most clients also write the name of the host in lower case.
        address = endpoint.netloc.lower()
        default = endpoint.port == _DEFAULT_PORTS.get(endpoint.scheme)
        self._host = address.removesuffix(f":{endpoint.port}") if default else address
        self._origin = f"{endpoint.scheme}://{address}"
        self._bucket_path = f"{endpoint.path.rstrip('/')}/{settings.bucket}"
        self._access_key, self._secret_key, self._region = settings.access_key, settings.secret_key, settings.region

    def sign(
        self,
        method: str,
        key: str,
        expires_s: int,
        *,
        query: Mapping[str, str] = _NOTHING,
        headers: Mapping[str, str] = _NOTHING,
        now_s: float | None = None,
    ) -> str:
        """Return a URL with which anyone can send one kind of request for the object `key` until it expires.

        The request must have exactly these `headers`, whose names are in lower case. `query` changes the answer, for
        example with `response-content-type`; names need no quoting. The URL is a secret.
        """
        date = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now_s))
        scope = f"{date[:8]}/{self._region}/s3/aws4_request"
        signed = {**headers, "host": self._host}
        names = ";".join(sorted(signed))
        parameters = {
            **query,
            "X-Amz-Algorithm": _ALGORITHM,
            "X-Amz-Credential": f"{self._access_key}/{scope}",
            "X-Amz-Date": date,
            "X-Amz-Expires": str(expires_s),
            "X-Amz-SignedHeaders": names,
        }
        path = quote(f"{self._bucket_path}/{key}", safe="/~")
        encoded = "&".join(
            f"{quote(name, safe='~')}={quote(parameters[name], safe='~')}" for name in sorted(parameters)
        )
        lines = "".join(f"{name}:{' '.join(signed[name].split())}\n" for name in sorted(signed))
        request = f"{method}\n{path}\n{encoded}\n{lines}\n{names}\nUNSIGNED-PAYLOAD"
        text = f"{_ALGORITHM}\n{date}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
        signature = hmac.digest(self._signing_key(scope), text.encode(), "sha256").hex()
        return f"{self._origin}{path}?{encoded}&X-Amz-Signature={signature}"

    def _signing_key(self, scope: str) -> bytes:
        key = f"AWS4{self._secret_key}".encode()
        for part in scope.split("/"):
            key = hmac.digest(key, part.encode(), "sha256")
        return key
