"""HTTP requests as Lambda events."""

import base64
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs

PLAIN = ("text/", "application/json", "application/javascript", "application/xml")


def function_url_event(method: str, path: str, headers: Mapping[str, str], body: bytes = b"") -> dict[str, Any]:
    """Return the event of a request to a function URL or an HTTP API (payload format 2.0). Binary bodies are base64."""
    path, _, query = path.partition("?")
    encoded = not headers.get("content-type", "text/plain").startswith(PLAIN)
    return {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": query,
        "headers": {"host": "x.lambda-url.aws", **headers},
        "requestContext": {
            "accountId": "anonymous",
            "apiId": "x",
            "domainName": "x.lambda-url.aws",
            "http": {
                "method": method,
                "path": path,
                "protocol": "HTTP/1.1",
                "sourceIp": "203.0.113.1",
                "userAgent": headers.get("user-agent", ""),
            },
            "requestId": "r",
            "routeKey": "$default",
            "stage": "$default",
            "timeEpoch": 1,
        },
        **({"body": base64.b64encode(body).decode() if encoded else body.decode()} if body else {}),
        "isBase64Encoded": encoded and bool(body),
    }


def rest_event(method: str, path: str, headers: Mapping[str, str], body: bytes = b"") -> dict[str, Any]:
    """Return the event of a request to a REST API."""
    path, _, query = path.partition("?")
    values = parse_qs(query)
    return {
        "resource": "/{proxy+}",
        "path": path,
        "httpMethod": method,
        "headers": {"Host": "x.execute-api.aws", **headers},
        "multiValueHeaders": {"Host": ["x.execute-api.aws"], **{name: [value] for name, value in headers.items()}},
        "queryStringParameters": {name: value[-1] for name, value in values.items()} or None,
        "multiValueQueryStringParameters": values or None,
        "pathParameters": {"proxy": path.strip("/")},
        "stageVariables": None,
        "requestContext": {
            "resourcePath": "/{proxy+}",
            "httpMethod": method,
            "path": f"/dev{path}",
            "stage": "dev",
            "requestId": "r",
            "identity": {"sourceIp": "203.0.113.1", "userAgent": ""},
        },
        "body": body.decode() if body else None,
        "isBase64Encoded": False,
    }
