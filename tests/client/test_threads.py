"""Clients in several threads, whose first answers come at the same time."""

import subprocess
import sys

import pytest

# msgspec examines a type at its first use, so each race needs a new process. Without care, most of them end by SIGSEGV.
RACE = """
import sys, threading
from swissbrain.decoding import from_json
from swissbrain.models import Event, Run

ANSWERS = {
    "Run": (Run, b'''{"run_id": "r", "status": "failed", "prompt": "p", "plan": [{"tool": "t", "args": {}}],
        "priority": 4,
        "max_attempts": 3, "timeout_s": 1.0, "metadata": {}, "attempt": 1, "cancel_requested": false, "last_seq": 1,
        "created_ms": 1, "queued_ms": 1, "started_ms": 1, "finished_ms": 1, "result": null,
        "error": {"code": "c", "message": "m", "step": 0}, "links": {}, "fork_of": {"run_id": "r", "from_step": 0}}'''),
    "Event": (Event, b'{"seq": 1, "ts": 1, "type": "tool.output", "step": 0, "data": {}}'),
}
kind, body = ANSWERS[sys.argv[1]]
sys.setswitchinterval(1e-6)
together = threading.Barrier(16)
decoded = []

def use():
    together.wait()
    for _ in range(50):
        decoded.append(from_json(body, kind))

threads = [threading.Thread(target=use) for _ in range(16)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert len(decoded) == 800
"""


@pytest.mark.parametrize("kind", ["Run", "Event"])
def test_threads_may_decode_their_first_answers_at_the_same_time(kind: str) -> None:
    ended = subprocess.run([sys.executable, "-c", RACE, kind], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (0, "")
