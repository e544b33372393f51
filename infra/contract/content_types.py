"""Content types of files, by the ends of their names. A fixed list: what a host knows differs from host to host.

A type says what a file claims to be. Nobody has looked into it, so a browser must not show a file because of its type:
see `infra/workspace/links.py`.
"""

from types import MappingProxyType

DEFAULT_TYPE = "application/octet-stream"
TYPES = MappingProxyType(
    {
        ".avif": "image/avif",
        ".bz2": "application/x-bzip2",
        ".css": "text/css",
        ".csv": "text/csv",
        ".docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        ".epub": "application/epub+zip",
        ".flac": "audio/flac",
        ".gif": "image/gif",
        ".gz": "application/gzip",
        ".htm": "text/html",
        ".html": "text/html",
        ".ics": "text/calendar",
        ".ipynb": "application/x-ipynb+json",
        ".jpeg": "image/jpeg",
        ".jpg": "image/jpeg",
        ".js": "text/javascript",
        ".json": "application/json",
        ".log": "text/plain",
        ".md": "text/markdown",
        ".mp3": "audio/mpeg",
        ".mp4": "video/mp4",
        ".ndjson": "application/x-ndjson",
        ".odt": "application/vnd.oasis.opendocument.text",
        ".ogg": "audio/ogg",
        ".parquet": "application/vnd.apache.parquet",
        ".pdf": "application/pdf",
        ".png": "image/png",
        ".pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
        ".py": "text/x-python",
        ".sh": "application/x-sh",
        ".sqlite": "application/vnd.sqlite3",
        ".svg": "image/svg+xml",
        ".tar": "application/x-tar",
        ".tif": "image/tiff",
        ".tiff": "image/tiff",
        ".tsv": "text/tab-separated-values",
        ".txt": "text/plain",
        ".wasm": "application/wasm",
        ".wav": "audio/wav",
        ".webm": "video/webm",
        ".webp": "image/webp",
        ".xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
        ".xml": "application/xml",
        ".xz": "application/x-xz",
        ".yaml": "application/yaml",
        ".yml": "application/yaml",
        ".zip": "application/zip",
        ".zst": "application/zstd",
    }
)


def content_type(path: str) -> str:
    """Return the content type of a file; DEFAULT_TYPE if its name says nothing."""
    name = path.rsplit("/", 1)[-1]
    return TYPES.get(name[name.rfind(".") :].lower(), DEFAULT_TYPE) if "." in name else DEFAULT_TYPE
