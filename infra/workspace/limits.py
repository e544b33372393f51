"""Limits of a workspace."""

from collections.abc import Mapping
from dataclasses import dataclass

from infra.contract.errors import LimitExceeded


@dataclass(frozen=True)
class WorkspaceLimits:
    """Limits of one run's workspace. `entries` limits everything in the directory, folders and links included."""

    file_bytes: int = 256 * 1024 * 1024
    total_bytes: int = 1024 * 1024 * 1024
    files: int = 2_000
    entries: int = 10_000

    def check_file(self, path: str, size_bytes: int) -> None:
        """Raise LimitExceeded if one file is too large."""
        if size_bytes > self.file_bytes:
            raise LimitExceeded(f"'{path}' has {size_bytes} bytes, a file may have at most {self.file_bytes}")

    def check(self, sizes: Mapping[str, int]) -> None:
        """Raise LimitExceeded if one of the files (path → bytes), their number or their total exceeds its limit."""
        if len(sizes) > self.files:
            raise LimitExceeded(f"the workspace has {len(sizes)} files, at most {self.files} are allowed")
        for path, size_bytes in sizes.items():
            self.check_file(path, size_bytes)
        if (total := sum(sizes.values())) > self.total_bytes:
            largest = max(sizes, key=lambda path: sizes[path])
            raise LimitExceeded(
                f"the workspace has {total} bytes, at most {self.total_bytes} are allowed; "
                f"its largest file is '{largest}' with {sizes[largest]}"
            )
