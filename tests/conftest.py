"""What holds for all tests: no time limit that a busy machine breaks, also not for a single example of a property."""

import os
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
from hypothesis import settings

from tests.support.fast import is_fast, listed_paths, no_stack

settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

# All that is tested is on this machine, without TLS. To read the authorities that the world trusts takes each HTTP
# client 27 ms of processor time; those of a directory are read when one is needed.
os.environ.pop("SSL_CERT_FILE", None)
os.environ["SSL_CERT_DIR"] = str(Path(__file__).parent)


_FAST = listed_paths()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Hold tests/fast.txt true in every run, and not only in that of `make test-fast`."""
    with no_stack() if is_fast(item.path, _FAST) else nullcontext():
        return (yield)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One more than there are processors: a third of the time tests wait, for leases to end and servers to start."""
    return 1 + (os.cpu_count() or 1)
