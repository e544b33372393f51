"""Responses about files. The same types encode the responses and describe them in `/openapi.json`."""

import msgspec
from msgspec import UNSET, UnsetType


class File(msgspec.Struct, frozen=True, kw_only=True):
    """A file of a run's workspace; `href` redirects to its content."""

    path: str
    size_bytes: int
    modified_ms: int
    href: str


class FileLink(msgspec.Struct, frozen=True, kw_only=True):
    """URL with which anybody can fetch a file until `expires_ms`, and the content type with which it is served."""

    url: str
    expires_ms: int
    content_type: str
    size_bytes: int


class FileList(msgspec.Struct, frozen=True, kw_only=True):
    """The files of a run's workspace, sorted by path."""

    files: list[File]


class UploadTarget(msgspec.Struct, frozen=True, kw_only=True):
    """Request that uploads an input file: exactly these headers, the file as the body, until `expires_ms`."""

    method: str
    url: str
    headers: dict[str, str]
    expires_ms: int


class InputFile(msgspec.Struct, frozen=True, kw_only=True):
    """Input file of a run: to be uploaded with `upload`, or to be copied from the run `from_run`."""

    path: str
    size_bytes: int | UnsetType = UNSET
    sha256: str | UnsetType = UNSET
    from_run: str | UnsetType = UNSET
    source_path: str | UnsetType = UNSET
    upload: UploadTarget | None
