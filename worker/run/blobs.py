"""Large values of the journal, which are blobs in the object store."""

from infra.contract.journal import blob_ref
from worker.workspaces import RunFiles


async def resolve(text: bytes, files: RunFiles) -> bytes:
    """Return the JSON of a journal value, fetched if it is a blob. Raises FileMissing, FilesUnavailable."""
    ref = blob_ref(text)
    return await files.get_blob(ref.name) if ref else text
