"""Let a model repair a program whose test fails, and run the test again where the model cannot change it."""

import difflib
from pathlib import Path

from swissbrain import Client, ClientError, shell

BROKEN = Path(__file__).parent / "broken"
PROMPT = """A test of median.py fails; `python3 -m unittest -v` runs the tests. Find the cause and repair median.py,
with the smallest change that makes all tests pass. Do not change test_median.py."""


def main() -> None:
    """Print the repair."""
    files = {name: (BROKEN / name).read_bytes() for name in ("median.py", "test_median.py")}
    with Client.from_env(notify=print) as client:
        run = client.run(
            prompt=PROMPT, files=files, limits={"turns": 40}, wait_s=1800, metadata={"example": "fix_script"}
        )
        for call in client.steps(run.run_id):
            print(f"{call.tool}: {call.status}")
        repaired = client.read_bytes(run.run_id, "median.py")
        # A model may change the test instead of the program, or say that it passes: run the original test.
        client.run(
            shell("python3 -m unittest"), files={**files, "median.py": repaired}, metadata={"example": "fix_script"}
        )
    before, after = (text.decode().splitlines(keepends=True) for text in (files["median.py"], repaired))
    print(*difflib.unified_diff(before, after, "median.py", "median.py, repaired"), sep="", end="")
    print("all tests pass")


if __name__ == "__main__":
    try:
        main()
    except ClientError as exc:
        raise SystemExit(str(exc)) from None
