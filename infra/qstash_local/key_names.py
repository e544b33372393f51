"""Names of the keys of the stand-in in Redis."""

from infra.qstash_local.parsing import new_id


class QStashKeys:
    """Names of keys, with one hash tag for all. Undelivered messages and schedules have no TTL."""

    prefix = "{qstash}:"
    due = f"{prefix}due"  # sorted set: messages, score = due time in ms
    ticks = f"{prefix}ticks"  # sorted set: schedules that are not paused, score = next time in ms
    schedules = f"{prefix}schedules"  # hash: schedules by id
    dead = f"{prefix}dead"  # sorted set: dead letters, score = when in ms; leaves with its next member after seven days
    events = f"{prefix}events"  # stream of at most about MAX_EVENTS
    message_prefix = f"{prefix}message:"  # hash each

    @staticmethod
    def dead_message(message_id: str) -> str:
        """Hash: a dead letter. TTL: DEAD_S."""
        return f"{QStashKeys.prefix}dead:{message_id}"

    @staticmethod
    def duplicates(text: str | None) -> str:
        """String: id of the message that was published with this deduplication id. TTL: DUPLICATES_S."""
        return f"{QStashKeys.prefix}duplicates:{new_id('key', text)}"
