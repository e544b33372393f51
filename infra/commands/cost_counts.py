"""Redis commands, as Upstash bills them: each one, also inside scripts. Tests count them exactly, on a real Valkey.

The tests are `tests/worker/test_command_counts.py` and `tests/edge/test_command_counts.py`.
"""

RUN = 30
"""A run with one step on an idle worker, from its creation to the worker's next wait, with all events of the run."""
STEP = 5
"""Each further step, with its events."""
BATCH = 5
"""A batch of further events, of any number: what a program prints."""
BATCH_S = 0.1
"""Shortest time between two batches of a run."""
RENEWAL = 4
"""A renewal of the lease of one run."""
RENEWAL_S = 5.0
"""Time between two renewals."""
IDLE_WORKER_HOUR = 120
"""An hour of a worker that waits."""
KEDA_POLL = 9
"""A poll of KEDA: three triggers with three commands each."""
RECOVERY_TICK = 7
"""A recovery tick with nothing to do."""
SCHEDULE_TICK = 8
"""A tick of a schedule, without the run that it creates."""
WEBHOOK = 18
"""An event for a webhook: noted and published, and delivered at the first attempt."""
STREAM = 4
"""Opening a live stream of a log: it is opened again each STREAM_S."""
STREAM_S = 90.0
"""Time for which a function holds a stream."""
READ = 1
"""A request that reads a run."""
