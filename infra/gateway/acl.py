"""ACL rules for the Redis user of the gateway."""

from __future__ import annotations

ACL_RULES = "~* &* +@all -@admin -@dangerous +flushall +flushdb +info +keys +lastsave +monitor +restore +sort +sort_ro"
"""Rules for everything that the gateway serves.

Scripts run inside Redis, where the gateway's policy does not apply. With these rules a script cannot reach another
server (MIGRATE), exchange databases (SWAPDB) or administer Redis.
"""
