"""Decompression of a body within a limit, so that a small body never becomes gigabytes."""

import zlib

_GZIP = 16 + zlib.MAX_WBITS


class DamagedGzip(Exception):
    """Data that is not gzip, or that ends before its end."""


class GzipBody:
    """Incremental decompressor of one gzip body, which may have several members, and padding after the last."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(_GZIP)
        self._is_needed = False
        """Whether the current member has begun for certain, so that its end must follow."""
        self._is_first = True
        self._is_padding = False

    def feed(self, data: bytes, limit: int) -> bytes:
        """Return what the data unpacks to, at most `limit` bytes; what is beyond is lost. Raises DamagedGzip."""
        unpacked = bytearray()
        while data and len(unpacked) < limit and not self._is_padding:
            try:
                part = self._member.decompress(data, limit - len(unpacked))
            except zlib.error:
                if self._is_first or self._is_needed:
                    raise DamagedGzip("the body is not valid gzip") from None
                self._is_padding = True
                break
            unpacked += part
            self._is_needed = self._is_first or self._is_needed or bool(part)
            data = self._member.unused_data or self._member.unconsumed_tail
            if self._member.eof:
                self._member = zlib.decompressobj(_GZIP)
                self._is_first = self._is_needed = False
        return bytes(unpacked)

    def end(self) -> None:
        """Raise DamagedGzip if the body has ended too early."""
        if self._is_needed:
            raise DamagedGzip("the gzip body ends too early")
