"""A cluster and an account of AWS for each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.deploy_site import Account, Site, deploy_site, edge_account


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    with deploy_site(tmp_path, monkeypatch) as made:
        yield made


@pytest.fixture
def account(tmp_path: Path) -> Account:
    return edge_account(tmp_path)
