"""Upstash REST API: commands through `upstash-redis`, subscriptions over SSE."""

from infra.redis_rest.client import RedisRest

__all__ = ["RedisRest"]
