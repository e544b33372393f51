"""SwissBrain Agent API: the client. `from swissbrain import Client`."""

from swissbrain.client import Client
from swissbrain.errors import ApiError, ClientError, ProtocolError, Unreachable

__all__ = ["ApiError", "Client", "ClientError", "ProtocolError", "Unreachable"]
