"""Configuration of the Redis behind the gateway: rules for its user, and limits for its clients."""

from __future__ import annotations

ACL_RULES = "~* &* +@all -@admin -@dangerous +flushall +flushdb +info +keys +lastsave +monitor +restore +sort +sort_ro"
"""Rules for everything that the gateway serves.

Scripts run inside Redis, where the gateway's policy does not apply. With these rules a script cannot reach another
server (MIGRATE), exchange databases (SWAPDB) or administer Redis.
"""

CLIENT_LIMITS = ("client-output-buffer-limit normal 128mb 0 0", "maxmemory-clients 256mb")
"""Lines of the configuration that bound what Redis holds for clients, because a short request can ask for gigabytes.

Redis closes the connection of a request whose answer is larger, and the gateway answers 503.
"""
