"""Content types and dispositions of files. A browser must never run a file, because an agent wrote its content.

S3 cannot send `nosniff` or a CSP, and other users share the host name of the store. So type and disposition are part
of a link's signature and replace the stored ones. A file is an attachment, unless inline is requested and its type
contains no script and is not sniffed by browsers as another type. HTML, SVG, XML and PDF are always attachments.
"""

from urllib.parse import quote

from infra.contract.content_types import DEFAULT_TYPE

PASSIVE = {
    ".avif": "image/avif",
    ".csv": "text/plain; charset=utf-8",
    ".gif": "image/gif",
    ".jpeg": "image/jpeg",
    ".jpg": "image/jpeg",
    ".json": "application/json",
    ".log": "text/plain; charset=utf-8",
    ".md": "text/plain; charset=utf-8",
    ".mp3": "audio/mpeg",
    ".mp4": "video/mp4",
    ".png": "image/png",
    ".txt": "text/plain; charset=utf-8",
    ".wav": "audio/wav",
    ".webm": "video/webm",
    ".webp": "image/webp",
}


def can_be_inline(path: str) -> bool:
    """Return whether a browser may show the file."""
    return served_as(path, inline=True)[1].startswith("inline")


def served_as(path: str, *, inline: bool) -> tuple[str, str]:
    """Return content type and content disposition of a link to the file."""
    name = path.rsplit("/", 1)[-1]
    plain = "".join(c if c.isascii() and c.isprintable() and c not in '"%;' else "_" for c in name)
    filename = f"filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"
    passive = PASSIVE.get(name[name.rfind(".") :].lower()) if "." in name else None
    if inline and passive:
        return passive, f"inline; {filename}"
    return DEFAULT_TYPE, f"attachment; {filename}"
