"""Requests and responses: their types, validation, errors as problem documents, OpenAPI."""
