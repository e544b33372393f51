"""The product's worker, which also measures the lag of its event loop and the times between renewals of its leases."""

import asyncio
import json
import os
import sys
import time
from pathlib import Path
from unittest.mock import patch

from bench.agent import LAG_FILE
from worker import __main__ as root
from worker.lease import LeaseKeeper

PAUSE_S = 0.01


class MeasuredKeeper(LeaseKeeper):
    """Keeper that writes the measurements to the file LAG_FILE at each renewal: lists `lags` and `gaps`, in s."""

    async def renew_forever(self) -> None:
        """Renew the leases, and sample the lag meanwhile."""
        self._lags: list[float] = []
        self._renewed: list[float] = []
        sampler = asyncio.create_task(self._sample())
        try:
            await super().renew_forever()
        finally:
            sampler.cancel()

    async def _sample(self) -> None:
        while True:
            began = time.monotonic()
            await asyncio.sleep(PAUSE_S)
            if len(self):
                self._lags.append(time.monotonic() - began - PAUSE_S)

    async def _renew(self) -> bool:
        renewed = await super()._renew()
        if renewed:
            self._renewed.append(time.monotonic())
        if len(self._renewed) > 1:
            gaps = [after - before for before, after in zip(self._renewed, self._renewed[1:], strict=False)]
            file = Path(os.environ[LAG_FILE])
            new = file.with_suffix(".new")
            new.write_text(json.dumps({"lags": self._lags, "gaps": gaps}))
            new.replace(file)
        return renewed


if __name__ == "__main__":
    with patch.object(root, "LeaseKeeper", MeasuredKeeper):
        sys.exit(root.main())
