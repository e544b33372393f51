"""Files of a run, selected by a pattern and saved in a folder of this machine."""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from swissbrain.cli.errors import CommandError
from swissbrain.cli.progress import progress
from swissbrain.errors import ClientError
from swissbrain.models import File

if TYPE_CHECKING:
    from swissbrain import Client

THREADS = 4
RESERVED = ".run"
"""Folder of the platform's own files, which only a path or a pattern that names it selects."""
_MAGIC = frozenset("*?[")


def is_pattern(path: str) -> bool:
    """Return whether the path has wildcards."""
    return not _MAGIC.isdisjoint(path)


def select_files(files: Sequence[File], path: str | None) -> list[File]:
    """Return the file with this path, else those that it matches as a pattern, else those in the folder.

    `*` and `?` stay within one name, `**` goes through any number of folders. Without a path: all but those in `.run`.
    """
    if path is None:
        return [file for file in files if file.path.split("/")[0] != RESERVED]
    if exact := [file for file in files if file.path == path]:
        return exact
    pattern = path.rstrip("/").split("/")
    if is_pattern(path):
        return [file for file in files if _matches(file.path.split("/"), pattern)]
    return [file for file in files if file.path.split("/")[: len(pattern)] == pattern]


def _matches(names: Sequence[str], pattern: Sequence[str]) -> bool:
    if not pattern:
        return not names
    if pattern[0] == "**":
        return any(_matches(names[start:], pattern[1:]) for start in range(len(names) + 1))
    return bool(names) and fnmatchcase(names[0], pattern[0]) and _matches(names[1:], pattern[1:])


def save_files(
    client: "Client", run_id: str, files: Sequence[File], folder: Path
) -> Iterator[tuple[File, bool | Exception]]:
    """Save the files in the folder under their paths, each completely or not at all.

    Yield for each file, in order, whether it was fetched, or why it could not be saved. A file that is there with the
    size and the time of the run's file is not fetched again, so that an interrupted download is continued.
    """
    folder.mkdir(parents=True, exist_ok=True)
    root = folder.resolve()
    stopped = threading.Event()

    def check(count: int) -> None:
        if stopped.is_set():
            raise CommandError("stopped")
        advance(count)

    with progress("fetching", sum(file.size_bytes for file in files), is_bytes=True) as advance:

        def save(file: File) -> bool | Exception:
            try:
                return _save(client, run_id, file, _target(root, file.path), check)
            except (ClientError, CommandError, OSError) as exc:
                return exc

        pool = ThreadPoolExecutor(THREADS)
        try:
            yield from zip(files, pool.map(save, files), strict=True)
        finally:
            stopped.set()
            # The end of the process waits for the threads, which remove what is unfinished. Here a command that is
            # stopped would try again and again to reach an API that is silent: its client is closed next.
            pool.shutdown(wait=False, cancel_futures=True)


def _target(root: Path, path: str) -> Path:
    """Return the place of a file below the folder. Raises CommandError for a path that leads out of it."""
    parts = path.split("/")
    target = root.joinpath(*parts)
    unsafe = any(part in {"", ".", ".."} or os.sep in part or (os.altsep and os.altsep in part) for part in parts)
    # A link in the folder may lead out of it.
    if unsafe or not target.parent.resolve().is_relative_to(root) or target.is_symlink():
        raise CommandError("its path leads out of the folder")
    return target


def _save(client: "Client", run_id: str, file: File, target: Path, advance: Callable[[int], None]) -> bool:
    modified_ns = file.modified_ms * 1_000_000
    if target.is_file():
        found = target.stat()
        if (found.st_size, found.st_mtime_ns // 1_000_000) == (file.size_bytes, file.modified_ms):
            advance(file.size_bytes)
            return False
    target.parent.mkdir(parents=True, exist_ok=True)
    got = 0

    def on_bytes(count: int) -> None:
        nonlocal got
        advance(count - got)
        got = count

    client.save(run_id, file.path, target, on_bytes=on_bytes)
    os.utime(target, ns=(modified_ns, modified_ns))
    return True
