"""Settings of all tests. Examples of Hypothesis have no deadline, because a busy host would exceed any."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

# All tested servers are on this host, without TLS. Reading the file of trusted certificates takes each HTTP client
# 27 ms of processor time; certificates in a directory are read only when one is needed.
os.environ.pop("SSL_CERT_FILE", None)
os.environ["SSL_CERT_DIR"] = str(Path(__file__).parent)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Return one more than the number of processors: tests wait for a third of their time."""
    return 1 + (os.cpu_count() or 1)
