"""Data folder of a Valkey with an append-only file, into which a backup is put while the server is stopped."""

import os
import shutil
from datetime import UTC, datetime
from pathlib import Path

LOG_FOLDER = "appendonlydir"
BASE = "appendonly.aof.1.base.rdb"
MANIFEST = "appendonly.aof.manifest"
SNAPSHOT = "dump.rdb"


def put(snapshot: Path, folder: Path) -> Path | None:
    """Make a snapshot, a file in the folder, the content of the database; return where the former content is.

    A server with `appendonly yes` ignores `dump.rdb`, so the snapshot becomes the base of an append-only file.
    Raises OSError.
    """
    made = folder / f"{LOG_FOLDER}.new"
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir()
    snapshot.rename(made / BASE)
    (made / MANIFEST).write_text(f"file {BASE} seq 1 type b\n")
    for path in (made / BASE, made / MANIFEST, made):
        _sync(path)
    former = _set_aside(folder)
    made.rename(folder / LOG_FOLDER)
    _sync(folder)
    return former


def _set_aside(folder: Path) -> Path | None:
    old = [folder / name for name in (LOG_FOLDER, SNAPSHOT) if (folder / name).exists()]
    if not old:
        return None
    aside = folder / f"before-restore-{datetime.now(UTC):%Y-%m-%dT%H-%M-%SZ}"
    aside.mkdir()
    for path in old:
        path.rename(aside / path.name)
    return aside


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
