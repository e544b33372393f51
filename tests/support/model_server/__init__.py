"""Scripted model endpoint on real sockets: OpenAI-compatible chat completions, and every way to break them."""

from tests.support.model_server.server import Asked, ModelServer, Wire, model_server

__all__ = ["Asked", "ModelServer", "Wire", "model_server"]
