"""HTTP API (docs/api.md). It keeps no state, and speaks to Redis over REST."""
