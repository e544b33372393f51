"""The API's OpenAPI document, built without a running API."""

from types import SimpleNamespace
from typing import Any

import msgspec

from edge_api.app import create_app
from edge_api.http import openapi
from edge_api.settings import ApiSettings


def openapi_document() -> dict[str, Any]:
    """Return the document of an application without adapters, which only requests would use."""
    absent: Any = None
    app = create_app(absent, absent, SimpleNamespace(logs=absent), absent, ApiSettings())
    document: dict[str, Any] = msgspec.json.decode(openapi.build(ApiSettings(), app.state.endpoints))
    return document
