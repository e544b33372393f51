"""HTTP requests as Lambda events."""

import base64
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, unquote

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


def http_api_event(
    method: str, path: str, headers: Mapping[str, str], stage: str = "$default", body: bytes = b""
) -> dict[str, Any]:
    """Return the event of a request to an HTTP API (payload format 2.0): path decoded, a named stage in front of it."""
    event = function_url_event(method, path, headers, body)
    path = unquote(event["rawPath"])
    path = path if stage == "$default" else f"/{stage}{path}"
    host = "abc123.execute-api.eu-central-2.amazonaws.com"
    context = event["requestContext"]
    context = {**context, "domainName": host, "stage": stage, "http": {**context["http"], "path": path}}
    return {**event, "headers": {**event["headers"], "host": host}, "rawPath": path, "requestContext": context}


def http_api_v1_event(
    method: str, path: str, headers: Mapping[str, str], stage: str = "$default", body: bytes = b""
) -> dict[str, Any]:
    """Return the event of a request to an HTTP API with payload format 1.0."""
    event = rest_event(method, path, headers, body)
    path = unquote(event["path"])
    path = path if stage == "$default" else f"/{stage}{path}"
    context = {**event["requestContext"], "domainName": "abc123.execute-api.aws", "stage": stage, "path": path}
    return {"version": "1.0", **event, "path": path, "requestContext": context}


def load_balancer_event(method: str, path: str, headers: Mapping[str, str], body: bytes = b"") -> dict[str, Any]:
    """Return the event of a request through an Application Load Balancer: path and query encoded."""
    path, _, query = path.partition("?")
    arn = "arn:aws:elasticloadbalancing:eu-central-2:123456789012:targetgroup/lambda/49e9d65c45c6791a"
    return {
        "requestContext": {"elb": {"targetGroupArn": arn}},
        "httpMethod": method,
        "path": path,
        "queryStringParameters": dict(pair.partition("=")[::2] for pair in query.split("&")) if query else {},
        "headers": {
            "host": "lambda-alb-123578498.eu-central-2.elb.amazonaws.com",
            "x-amzn-trace-id": "Root=1-5c536348-3d683b8b04734faae651f476",
            "x-forwarded-for": "203.0.113.1",
            "x-forwarded-port": "443",
            "x-forwarded-proto": "https",
            **headers,
        },
        "body": body.decode(),
        "isBase64Encoded": False,
    }
