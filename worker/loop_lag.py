"""Lag of the event loop: how much later than asked for a timer fires, because something else holds the loop."""

import asyncio

from infra import metrics

INTERVAL_S = 1.0


async def measure_forever() -> None:
    """Measure the lag every INTERVAL_S until cancelled."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + INTERVAL_S
        await asyncio.sleep(INTERVAL_S)
        metrics.LOOP_LAG.observe(max(0.0, loop.time() - due))
