"""Scripted model endpoint on real sockets: OpenAI-compatible chat completions, and every way to break them."""

from tests.support.model_server.server import ModelServer, model_server
from tests.support.scripted_http import Wire

__all__ = ["ModelServer", "Wire", "model_server"]
