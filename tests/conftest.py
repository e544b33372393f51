"""What holds for all tests: no time limit that a busy machine breaks, also not for a single example of a property."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

# All that is tested is on this machine, without TLS. To read the authorities that the world trusts takes each HTTP
# client 27 ms of processor time; those of a directory are read when one is needed.
os.environ.pop("SSL_CERT_FILE", None)
os.environ["SSL_CERT_DIR"] = str(Path(__file__).parent)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One more than there are processors: a third of the time tests wait, for leases to end and servers to start."""
    return 1 + (os.cpu_count() or 1)
