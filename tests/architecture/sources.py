"""Source files of the product, for the tests of its structure."""

from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("edge_api", "worker", "infra", "swissbrain")


def product_files() -> Iterator[Path]:
    """Yield every Python file of the product's packages."""
    for package in PACKAGES:
        yield from (ROOT / package).rglob("*.py")
