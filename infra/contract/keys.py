"""Redis keys and channels, each with its time-to-live rule.

A run that has been started and has not ended never expires, so no acknowledged run can be lost. The keys of a run
expire `retention_s` after its end, or after its creation if it was never started.
"""

from dataclasses import dataclass
from datetime import date

DEFAULT_RETENTION_S = 30 * 24 * 3600
USAGE_DAYS = 400
"""Days for which the usage of a user's day is kept, also if the runs are deleted."""
TICK_DAYS = 3
"""Days for which the decision about a tick is kept: longer than QStash delivers a message again."""
EXPIRIES = "*expiries"
"""Member of the set of delayed runs that stands for the first expiry of the requests of waiting runs, so that a claim
learns of it from a set that it looks at anyway."""


OVERDUE_EVENTS = "*webhooks"
"""Member of the same set that stands for the first entry of the outbox of webhooks."""


@dataclass(frozen=True)
class Keys:
    """Builder of key names. `prefix` is empty by default; on Redis Cluster it is a hash tag such as `{sb}:`."""

    prefix: str = ""

    @property
    def pending(self) -> str:
        """List: one wake token for each ready run; its length is the queue depth. No TTL: emptied by `claim`."""
        return f"{self.prefix}jobs:pending"

    @property
    def ready(self) -> str:
        """Sorted set: ready runs in scheduling order. No TTL: members leave with claim or cancel."""
        return f"{self.prefix}jobs:ready"

    @property
    def delayed(self) -> str:
        """Sorted set: runs not yet due, score = due time in ms. No TTL: members leave when due or cancelled."""
        return f"{self.prefix}jobs:delayed"

    @property
    def waiting(self) -> str:
        """Sorted set: waiting runs, score = first expiry of their open requests in ms.

        No TTL: members leave when they no longer wait. While there are any, EXPIRIES in `delayed` has the first score.
        """
        return f"{self.prefix}jobs:waiting"

    @property
    def leases(self) -> str:
        """Sorted set: running runs, score = lease expiry in ms of server time. No TTL: members leave with the run."""
        return f"{self.prefix}jobs:leases"

    @property
    def dead(self) -> str:
        """Sorted set: dead letters, score = when in ms. No TTL: members leave with retry, deletion or expiry."""
        return f"{self.prefix}jobs:dead"

    @property
    def unreadable(self) -> str:
        """Sorted set: active runs with damaged records, score = time in ms of the claim that set them aside.

        No TTL: at most 10,000 members, which leave after the retention.
        """
        return f"{self.prefix}jobs:unreadable"

    @property
    def workers(self) -> str:
        """Sorted set: worker processes that have asked for work, score = time in ms until which they count as alive.

        No TTL: at most 10,000 members. A process leaves when it drains; others leave when a new one joins.
        """
        return f"{self.prefix}jobs:workers"

    @property
    def outbox(self) -> str:
        """Sorted set: entries of events for webhooks, score = time in ms from which whoever looks publishes them.

        No TTL: at most MAX_OUTBOX members, which leave when QStash has them. While there are any, OVERDUE_EVENTS in
        `delayed` is due at the first score or later.
        """
        return f"{self.prefix}webhooks:outbox"

    @property
    def outbox_users(self) -> str:
        """Hash: number of entries of each user in the outbox. No TTL: a field is removed at 0."""
        return f"{self.prefix}webhooks:users"

    @property
    def sweep(self) -> str:
        """Hash: the store's id, position and times of the sweeper. No TTL: a handful of fields."""
        return f"{self.prefix}sweep"

    @property
    def probe(self) -> str:
        """Key of readiness checks, which find out whether it could be written. No TTL: it never exists."""
        return f"{self.prefix}probe"

    @property
    def run_prefix(self) -> str:
        """Prefix of run keys: `claim` picks run ids itself and derives their keys."""
        return f"{self.prefix}run:"

    @property
    def channel_prefix(self) -> str:
        """Prefix of log channels, for the runs that `claim` picks."""
        return f"{self.prefix}agent:logs:"

    @property
    def control(self) -> str:
        """Channel: nudges for workers, as text.

        `cancel <run id>`, `interrupt <run id>`: stop this run. `next <ms>`: time until the next lease expiry or due
        run. `due <ms>`: time until a run is due, or until a ready run should have been claimed. `recover <ms>`: time
        until the lease of a cancelled run expires, unless a worker renews it. `ended <run id>`: this run has ended
        without a worker, and its program may still run. Nudges are hints: a worker that misses one finds the same fact
        at its next claim, renewal or subscription.
        """
        return f"{self.prefix}agent:control"

    def run(self, run_id: str) -> str:
        """Hash: the run record and, in fields `journal:*`, its completed steps. TTL: retention after the finish."""
        return f"{self.run_prefix}{run_id}"

    def log(self, run_id: str) -> str:
        """Stream: the run's events; an entry's id is `<seq of its last event>-0`. TTL: retention after the finish."""
        return f"{self.run_prefix}{run_id}:log"

    def channel(self, run_id: str) -> str:
        """Channel: the batches of the log stream, published as they are appended."""
        return f"{self.channel_prefix}{run_id}"

    def user_runs(self, user_id: str) -> str:
        """Sorted set: a user's run ids, score = creation in ms. TTL: twice the retention, renewed by each create."""
        return f"{self.prefix}user:{user_id}:runs"

    @property
    def unconfirmed_schedules(self) -> str:
        """Sorted set: `<schedule id>:<revision>` of changes that QStash has not confirmed, score = when in ms.

        No TTL: members leave when the change is confirmed, or the schedule deleted.
        """
        return f"{self.prefix}schedules:unconfirmed"

    def schedule(self, schedule_id: str) -> str:
        """Hash: a schedule. No TTL: deleted by its user; at most MAX_SCHEDULES of each user."""
        return f"{self.prefix}schedule:{schedule_id}"

    def user_schedules(self, user_id: str) -> str:
        """Sorted set: ids of a user's schedules, score = creation in ms. No TTL: members leave with their schedules."""
        return f"{self.prefix}user:{user_id}:schedules"

    def tick(self, schedule_id: str, tick: str) -> str:
        """String: the decision about a tick of a schedule. TTL: TICK_DAYS."""
        return f"{self.prefix}schedule:{schedule_id}:tick:{tick}"

    def usage(self, user_id: str, day: date) -> str:
        """Hash: usage of models in the user's runs on a UTC day, by Redis's clock. TTL: USAGE_DAYS after its last."""
        return f"{self.prefix}usage:{user_id}:{day.isoformat()}"
