"""Lua scripts of the stand-in, one file per atomic step, in the form of `infra.contract.redis_store.scripts`."""
