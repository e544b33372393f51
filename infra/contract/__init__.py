"""Contract between API and worker: records, events, Redis keys, scripts, and the ports of adapters. Pure Python."""
