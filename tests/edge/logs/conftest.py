"""Fixtures of the tests of logs."""

import pytest

from infra.workspace import Workspaces
from tests.edge.logs.archiving import ArchivingWorker
from tests.edge.stack import SimulatedWorker


@pytest.fixture
def archiving(worker: SimulatedWorker, workspaces: Workspaces) -> ArchivingWorker:
    return ArchivingWorker(worker, workspaces)
