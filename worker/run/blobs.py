"""Large values of the journal, which are blobs in the object store."""

import msgspec

from infra.contract.journal import StepRecord, StepTimes, blob_ref
from worker.workspaces import RunFiles


def times_of(text: str) -> StepTimes | None:
    """Return the times of a step, if the JSON is a StepRecord."""
    try:
        return msgspec.json.decode(text, type=StepRecord).times
    except msgspec.ValidationError:
        return None


async def resolve(text: bytes, files: RunFiles) -> bytes:
    """Return the JSON of a journal value, fetched if it is a blob. Raises FileMissing, FilesUnavailable."""
    ref = blob_ref(text)
    return await files.get_blob(ref.name) if ref else text
