"""Files of this machine that a run begins with: the option `--file`, and their upload."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from swissbrain.cli.errors import CommandError
from swissbrain.cli.progress import progress
from swissbrain.errors import ApiError, ClientError
from swissbrain.models import Run

if TYPE_CHECKING:
    from swissbrain import Client

MAX_FILES = 100
MAX_ENTRIES = 10_000
"""Limit for the entries of a folder that are looked at, so that `--file /` ends."""


class InputError(CommandError):
    """File that cannot be sent."""


def input_files(texts: Sequence[str]) -> dict[str, Path]:
    """Return the local files by their paths in the workspace. Raises InputError.

    `data.csv` keeps its name, `data.csv=in/table.csv` gets another; a folder keeps its name, the content of `folder/`
    goes to the top, the content of `folder=in` into `in`.
    """
    found: dict[str, Path] = {}
    for text in texts:
        for path, local in _files_of(text):
            if path in found:
                raise InputError(f"--file: {found[path]} and {local} would both be '{path}' in the workspace")
            found[path] = local
            if len(found) > MAX_FILES:
                raise InputError(f"--file: a run begins with at most {MAX_FILES} files; send an archive instead")
    return found


def _files_of(text: str) -> Iterator[tuple[str, Path]]:
    name, equals, target = text.rpartition("=")
    # A file may have a '=' in its name.
    if not equals or os.path.lexists(text):
        name, target = text, ""
    if not name:
        raise InputError(f"--file: '{text}' names no file")
    source = Path(name)
    try:
        if source.is_dir():
            keeps_name = not target and not name.endswith("/") and source.name not in {"", ".."}
            yield from _in_folder(source, target or (source.name if keeps_name else ""))
        elif source.is_file():
            yield (target + source.name if target.endswith("/") else target or source.name), source
        else:
            why = "it is no regular file and no folder" if source.exists() else "No such file or directory"
            raise InputError(f"--file: cannot read {source}: {why}")
    except (OSError, ValueError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "it is no path"
        raise InputError(f"--file: cannot read {source}: {reason}") from None


def _in_folder(folder: Path, target: str) -> Iterator[tuple[str, Path]]:
    """Yield the files of a folder, sorted. Links to folders are not followed: they may lead back."""
    is_empty, entries = True, 0

    def fail(error: OSError) -> None:
        raise error

    for parent, folders, names in os.walk(folder, onerror=fail):
        folders.sort()
        entries += len(folders) + len(names)
        if entries > MAX_ENTRIES:
            raise InputError(f"--file: {folder} has more than {MAX_ENTRIES} entries")
        for name in sorted(names):
            local = Path(parent) / name
            if not local.is_file():
                raise InputError(f"--file: {local} is no regular file")
            is_empty = False
            yield str(PurePosixPath(target) / local.relative_to(folder).as_posix()), local
    if is_empty:
        raise InputError(f"--file: the folder {folder} holds no file")


def send_files(client: "Client", run: Run, files: Mapping[str, Path]) -> None:
    """Upload the files of a created run. If that fails, the run is deleted, because it will not be started."""
    try:
        with progress("sending", sum(local.stat().st_size for local in files.values()), is_bytes=True) as advance:
            for path, local in files.items():
                sent = 0

                def on_bytes(count: int) -> None:
                    nonlocal sent
                    advance(count - sent)
                    sent = count

                try:
                    client.upload(run.run_id, path, local, on_bytes=on_bytes)
                except ApiError as exc:
                    # Of a folder, one does not know which file it is that cannot be sent.
                    if exc.status == HTTPStatus.UNPROCESSABLE_ENTITY:
                        raise InputError(f"--file: '{path}': {exc.detail}") from exc
                    raise
    except BaseException as exc:
        # A command with the same idempotency key may have started the run: then it must stay.
        if not (isinstance(exc, ApiError) and exc.run_status not in {None, "created"}):
            with suppress(ClientError):
                client.delete(run.run_id)
        raise
