"""Stand-in for Upstash QStash: the same HTTP calls, signatures, schedules and retries, over any Redis or Valkey.

For installations without QStash: the development stack, a single machine, and wherever no data may leave the country.
"""
