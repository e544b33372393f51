"""Virtual environments of releases, without a registry: links to what is installed for these tests."""

import sys
from pathlib import Path


def working(folder: Path, _source: Path, _wheels: Path | None) -> None:
    """Make the environment that these tests run in that of a release."""
    folder.symlink_to(sys.prefix)
