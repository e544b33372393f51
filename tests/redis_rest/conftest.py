"""Fixtures: a Valkey, and a gateway in front of it."""

from tests.support.servers import gateway_fixture, valkey_fixture

tcp_settings = valkey_fixture()
rest_settings = gateway_fixture()
