"""Fixtures of the tests of one machine."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.vm.layout import Layout
from tests.support.redis import free_port
from tests.vm.supervisor import Supervisor


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """Return the layout of an installation below an empty folder."""
    return Layout(tmp_path / "root")


@pytest.fixture
def supervisor(tmp_path: Path, layout: Layout) -> Iterator[Supervisor]:
    """Supervise the services of an installation, whose Caddy listens on free ports."""
    web = {"HTTP_PORT": str(free_port()), "HTTPS_PORT": str(free_port())}
    run = tmp_path / "run"
    run.mkdir()
    made = Supervisor(layout, run, {"swissbrain-web.service": web})
    yield made
    made.close()
