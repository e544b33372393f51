"""Cron expressions with a time zone, as QStash takes them: `CRON_TZ=Europe/Zurich 0 8 * * 1-5`."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from itertools import islice
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from infra.contract.errors import InvalidInput

MAX_CRON_CHARS = 200
_FIELDS = 5
_ZONE = re.compile(r"(?:CRON_TZ|TZ)=(\S+)\s+(.*)", re.DOTALL)
_ZONE_NAME = re.compile(r"[A-Za-z0-9_+-]+(?:/[A-Za-z0-9_+-]+)*")
# In the database of some hosts alone, or another zone on each of them.
_OF_THIS_HOST = re.compile(r"(?:right|posix)/.*|posixrules|localtime|Factory")
# Only what every implementation of cron reads alike: no `L`, `W`, `#`, `?`, and no field for seconds.
_FIELD = re.compile(r"[0-9A-Za-z*,/-]+")
_MONTHS = {"JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"}
_NAMES = {"SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"} | _MONTHS


@dataclass(frozen=True)
class Cron:
    """Times at which a schedule is due: a cron expression of five fields, read in a time zone (an IANA name).

    A time that the change to summer time skips is due right after the change; one that the change back repeats is due
    once. An expression whose minute or hour begins with `*` follows the hours that pass instead.
    """

    expression: str
    zone: str = "UTC"

    @classmethod
    def parse(cls, text: str) -> "Cron":
        """Return the expression in a text that may begin with `CRON_TZ=`. Raises InvalidInput."""
        found = _ZONE.fullmatch(text.strip())
        cron = cls(found[2].strip(), found[1]) if found else cls(text.strip())
        cron.check()
        return cron

    def check(self, cron_field: str = "cron", zone_field: str = "timezone") -> None:
        """Raise InvalidInput unless the zone exists and the expression is due at some time."""
        self._zone(zone_field)
        fields = self.expression.split()
        if len(self.expression) > MAX_CRON_CHARS or len(fields) != _FIELDS or not all(map(_is_plain, fields)):
            raise InvalidInput(
                f"must be five fields, minute hour day month weekday, of numbers, names and '* , - /', "
                f"such as '0 8 * * MON-FRI'; {self.expression[:100]!r} is not",
                cron_field,
            )
        try:
            next(CronSim(self.expression, datetime.now(UTC)))
        except CronSimError as exc:
            raise InvalidInput(f"the expression '{self.expression}' is not valid: {exc}", cron_field) from None
        except StopIteration:
            raise InvalidInput(f"the expression '{self.expression}' is never due", cron_field) from None

    def after(self, ms: int) -> int:
        """Return the first time after `ms` at which the expression is due; both in ms since the epoch."""
        return next(self._times(ms))

    def following(self, ms: int, count: int) -> list[int]:
        """Return the next `count` times after `ms`, in ms since the epoch."""
        return list(islice(self._times(ms), count))

    def __str__(self) -> str:
        # Any white space may stand between the fields, but a header cannot hold a line end.
        return f"CRON_TZ={self.zone} {' '.join(self.expression.split())}"

    def _times(self, ms: int) -> Iterator[int]:
        last = ms
        for time in CronSim(self.expression, datetime.fromtimestamp(ms / 1000, self._zone("timezone"))):
            at = int(time.timestamp() * 1000)
            # Both readings of an hour that is repeated can give a time that is not after `ms`.
            if at > last:
                yield at
                last = at

    def _zone(self, field: str) -> tzinfo:
        if self.zone == "UTC":
            return UTC  # also where the host has no database of time zones
        # ZoneInfo opens a file of this name, so the name is checked first.
        known = _ZONE_NAME.fullmatch(self.zone) and not _OF_THIS_HOST.fullmatch(self.zone)
        if known and len(self.zone) <= MAX_CRON_CHARS:
            try:
                return ZoneInfo(self.zone)
            except (LookupError, OSError, ValueError):
                pass
        raise InvalidInput(f"must be a name such as 'Europe/Zurich'; {self.zone[:100]!r} is not known here", field)


def _is_plain(field: str) -> bool:
    return bool(_FIELD.fullmatch(field)) and set(re.findall(r"[A-Z]+", field.upper())) <= _NAMES
