"""Limits of an answer with events that is not streamed."""

from typing import Final

ENOUGH_BYTES: Final = 1024 * 1024
"""Size above which a response that is not streamed is complete. Lambda allows 6 MB, and the text can become three times
as long, because Lambda encodes it as JSON once more."""
MAX_READS: Final = 32
"""Number of reads after which a page ends, also if few events match its filters. A read is a command to Redis, or
256 KB of an archived segment."""
TAIL_PAGES: Final = 20
"""Pages in which a stream with `tail` looks for its first event: enough for 1000 events of the largest size."""
