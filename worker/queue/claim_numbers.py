"""Numbers of one process's claims, and the limit for the next claim after a reply was lost.

`infra.contract.queue` describes how a lost claim reply is undone. This module keeps the worker's side of it:

| state | next claim | why |
|---|---|---|
| every reply arrived | one run for each free slot | no restriction |
| a reply was lost | no run | the claim only undoes the lost one: all claims after `last_acked` |
| the lost claim is undone | one run | if no reply can carry its record, only that run is affected |
"""

from collections.abc import Sequence

from msgspec.structs import replace

from infra.contract.queue import ClaimSeq


class ClaimNumbers:
    """Sequence number and limit of the next claim. One claim at a time: `start`, then `acknowledge` or `lose_reply`."""

    def __init__(self, slots: int, process: str, dead: Sequence[str] = ()) -> None:
        """`process`: name of this worker process, new at each start. `dead`: names of ended ones, to be recovered."""
        self._slots = slots
        self._limit = slots
        self._seq = ClaimSeq(process, dead=tuple(dead))

    @property
    def has_dead(self) -> bool:
        """True until the reply to a claim that recovers the runs of dead processes arrives."""
        return bool(self._seq.dead)

    @property
    def reply_lost(self) -> bool:
        """True from the loss of a reply that may have granted runs until the next reply arrives."""
        return self._seq.last_acked is not None

    def limit(self, wanted: int) -> int:
        """Return how many of the `wanted` runs the next claim may ask for."""
        return min(wanted, self._limit)

    def start(self) -> ClaimSeq:
        """Return the number of the claim that is sent now."""
        self._seq = replace(self._seq, number=self._seq.number + 1)
        return self._seq

    def acknowledge(self) -> None:
        """Record that the reply to the current claim arrived; lost claims before it are undone."""
        self._seq = replace(self._seq, last_acked=None, dead=())
        self._limit = self._slots if self._limit else 1

    def lose_reply(self, asked_for: int) -> None:
        """Record that the reply to the current claim, for `asked_for` runs, did not arrive."""
        # A claim for no run has granted nothing that would have to be undone. If several replies in a row are lost,
        # everything since the first of them has to be undone, so `last_acked` stays.
        if asked_for and not self.reply_lost:
            self._seq = replace(self._seq, last_acked=self._seq.number - 1)
            self._limit = 0
