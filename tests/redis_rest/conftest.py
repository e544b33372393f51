"""A real Valkey behind the real gateway."""

from tests.support.servers import gateway_fixture, valkey_fixture

tcp_settings = valkey_fixture()
rest_settings = gateway_fixture()
