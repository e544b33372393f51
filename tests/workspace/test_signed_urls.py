"""Signed URLs, compared with those of boto3. `test_inputs.py` and `tests/edge/routes` use them at a real store."""

from datetime import UTC, datetime
from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from infra.settings import S3Settings
from infra.workspace.client import build_client
from infra.workspace.signed_urls import UrlSigner

ENDPOINTS = (
    "https://sos-ch-gva-2.exo.io",
    "https://s3.example:443",
    "http://127.0.0.1:8333",
    "http://s3.example:80",
    "https://gateway.example/s3",
)
SETTINGS = {url: S3Settings("swissbrain", "ch-gva-2", "AKIA0", "secret/+=", endpoint_url=url) for url in ENDPOINTS}
CLIENTS = {url: build_client(settings) for url, settings in SETTINGS.items()}
PARAMETERS = {
    "content-length": "ContentLength",
    "content-md5": "ContentMD5",
    "x-amz-checksum-sha256": "ChecksumSHA256",
    "response-content-type": "ResponseContentType",
    "response-content-disposition": "ResponseContentDisposition",
}
keys = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=40).map(
    lambda key: f"users/a/{key}"
)
digests = st.text("abcXYZ019+/=", min_size=1, max_size=44)


def split(url: str) -> tuple[str, dict[str, str]]:
    """Return a URL up to its query, and the query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}{parts.path}", dict(parse_qsl(parts.query, keep_blank_values=True))


def by_boto3(url: str, operation: str, key: str, expires_s: int, parameters: dict[str, str]) -> str:
    wanted: dict[str, object] = {PARAMETERS[name]: value for name, value in parameters.items()}
    if "ContentLength" in wanted:
        wanted["ContentLength"] = int(parameters["content-length"])
    params = {"Bucket": "swissbrain", "Key": key, **wanted}
    return CLIENTS[url].generate_presigned_url(operation, Params=params, ExpiresIn=expires_s)


def seconds_of(url: str) -> float:
    """Return the time at which a URL was signed."""
    date = split(url)[1]["X-Amz-Date"]
    return datetime.strptime(date, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()


@given(st.sampled_from(ENDPOINTS), keys, st.integers(1, 604_800), st.integers(0, 2**40), digests, st.booleans())
@example(ENDPOINTS[0], "users/a//b/../c d+e%20~(1)*'!/ü😀", 60, 3, "YWJj", True)
def test_an_upload_is_signed_as_boto3_signs_it(
    endpoint: str, key: str, expires_s: int, size: int, digest: str, is_md5: bool
) -> None:
    headers = {"content-length": str(size), "content-md5" if is_md5 else "x-amz-checksum-sha256": digest}
    expected = by_boto3(endpoint, "put_object", key, expires_s, headers)
    found = UrlSigner(SETTINGS[endpoint]).sign("PUT", key, expires_s, headers=headers, now_s=seconds_of(expected))
    assert split(found) == split(expected)


@given(st.sampled_from(ENDPOINTS), keys, st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60))
@example(ENDPOINTS[0], "users/a/x", "attachment; filename=\"a'b~.txt\"; filename*=UTF-8''a%20b%2Bc")
def test_a_link_is_signed_as_boto3_signs_it(endpoint: str, key: str, disposition: str) -> None:
    query = {"response-content-type": "text/plain; charset=utf-8", "response-content-disposition": disposition}
    expected = by_boto3(endpoint, "get_object", key, 300, query)
    found = UrlSigner(SETTINGS[endpoint]).sign("GET", key, 300, query=query, now_s=seconds_of(expected))
    assert split(found) == split(expected)


def test_without_an_endpoint_links_lead_to_aws() -> None:
    url = UrlSigner(S3Settings("swissbrain", "eu-central-2", "AKIA0", "secret")).sign("GET", "users/a/x", 60)
    assert url.startswith("https://s3.eu-central-2.amazonaws.com/swissbrain/users/a/x?X-Amz-Algorithm=")


def test_the_name_of_the_host_is_signed_in_lower_case_as_clients_send_it() -> None:
    urls = [f"http://{host}:8333/Path" for host in ("Store.Example", "store.example")]
    settings = [S3Settings("Bucket", "r", "AKIA0", "secret", endpoint_url=url) for url in urls]
    mixed, lower = (UrlSigner(each).sign("GET", "users/a/X", 60, now_s=0) for each in settings)
    assert mixed == lower
    assert mixed.startswith("http://store.example:8333/Path/Bucket/users/a/X?")


def test_a_signed_url_does_not_contain_the_secret_key() -> None:
    assert "secret" not in UrlSigner(SETTINGS[ENDPOINTS[0]]).sign("PUT", "users/a/x", 60)


def test_a_key_that_is_not_utf_8_is_an_error() -> None:
    with pytest.raises(UnicodeEncodeError):
        UrlSigner(SETTINGS[ENDPOINTS[0]]).sign("GET", "users/a/\udcff", 60)
