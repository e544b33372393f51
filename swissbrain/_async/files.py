"""Methods of the client for the files of a run."""

import io
from pathlib import Path
from typing import BinaryIO

from swissbrain import endpoints
from swissbrain._async import transfers
from swissbrain._async.transport import AsyncTransport
from swissbrain.callbacks import MAX_READ_BYTES, OnBytes, at_most, ignore
from swissbrain.models import File, FileLink, InputFile


class AsyncFileMethods:
    """Methods for the files in the workspace of a run. The token is never sent to the object store."""

    _api: AsyncTransport

    async def files(self, run_id: str) -> list[File]:
        """Return the files in the workspace of a run, sorted by path."""
        return (await self._api.ask(endpoints.list_files(run_id))).files

    async def upload(
        self,
        run_id: str,
        path: str,
        content: Path | bytes,
        *,
        on_bytes: OnBytes = ignore,
    ) -> InputFile:
        """Store a file at `path` in the workspace of a run that was created with `start=False`.

        A Path is streamed from the disk; it must not change meanwhile. Uploading another content replaces the file.
        `on_bytes` receives the number of bytes sent so far, which decreases when a lost connection restarts the upload.
        Raises OSError too.
        """
        return await transfers.upload(self._api, run_id, path, content, on_bytes)

    async def copy_file(self, run_id: str, path: str, *, from_run: str, source: str | None = None) -> InputFile:
        """Let a run that was created with `start=False` begin with the file `source` (`path` if None) of another run.

        A worker copies it before the first step. If it was deleted until then, the run fails with `input_gone`.
        """
        return await self._api.ask(endpoints.copy_file(run_id, path, from_run, source or path))

    async def file_link(self, run_id: str, path: str, *, inline: bool = False) -> FileLink:
        """Return an address from which anyone can fetch a file until it expires, for a browser for example.

        `inline` lets a browser show the file instead of saving it; the API refuses it (422) for types that are unsafe.
        """
        return await self._api.ask(endpoints.get_file_link(run_id, path, inline=inline))

    async def read_bytes(self, run_id: str, path: str, *, max_bytes: int = MAX_READ_BYTES) -> bytes:
        """Return the content of a file. Raises ClientError if it has more than `max_bytes` bytes."""
        content = io.BytesIO()
        hint = "; save() writes it to a file, and max_bytes allows more"
        await self.download(run_id, path, content, on_bytes=at_most(max_bytes, path, hint))
        return content.getvalue()

    async def read_text(
        self, run_id: str, path: str, *, encoding: str = "utf-8", max_bytes: int = MAX_READ_BYTES
    ) -> str:
        """Return the content of a text file, as `read_bytes` does. Raises UnicodeDecodeError too."""
        return (await self.read_bytes(run_id, path, max_bytes=max_bytes)).decode(encoding)

    async def download(self, run_id: str, path: str, to: BinaryIO, *, on_bytes: OnBytes = ignore) -> None:
        """Write the content of a file to `to`. A lost connection is continued where it broke.

        `on_bytes` receives the number of bytes written so far.
        """
        await transfers.download(self._api, endpoints.get_file(run_id, path), path, to, on_bytes)

    async def save(self, run_id: str, path: str, to: Path, *, on_bytes: OnBytes = ignore) -> None:
        """Write the content of a file to the file `to`, which is replaced as a whole. Raises OSError too."""
        await transfers.save(self._api, endpoints.get_file(run_id, path), path, to, on_bytes)
