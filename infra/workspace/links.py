"""How a linked file is served: its content was made by an agent, so a browser must never run it.

Nothing in S3 can send `nosniff` or a CSP, and the storage host is shared. So a link names type and disposition in its
signature, whatever was stored: attachment, unless inline was asked for and the type is one that holds no script and
that browsers do not sniff into another. HTML, SVG, XML and PDF are always attachments.
"""

import mimetypes
from urllib.parse import quote

DEFAULT_TYPE = "application/octet-stream"

_PASSIVE = {
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


def stored_type(path: str) -> str:
    """The content type that a file is stored with, guessed from its name."""
    guessed, encoding = mimetypes.guess_type(path)
    return guessed if guessed and not encoding else DEFAULT_TYPE


def served_as(path: str, *, inline: bool) -> tuple[str, str]:
    """Content type and content disposition of a link."""
    name = path.rsplit("/", 1)[-1]
    plain = "".join(c if c.isascii() and c.isprintable() and c not in '"%;' else "_" for c in name)
    filename = f"filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"
    passive = _PASSIVE.get(name[name.rfind(".") :].lower()) if "." in name else None
    if inline and passive:
        return passive, f"inline; {filename}"
    return DEFAULT_TYPE, f"attachment; {filename}"
