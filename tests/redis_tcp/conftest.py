"""Fixture: a Valkey."""

from tests.support.servers import valkey_fixture

tcp = valkey_fixture()
