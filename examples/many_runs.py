"""Create many runs in one call, wait for them, and list those that failed."""

import sys
import time

from swissbrain import ApiError, Client, NewRun, shell


def main(count: int) -> None:
    """Let every run check one number; multiples of 7 fail."""
    batch = f"numbers-{time.time_ns()}"
    wanted = [
        NewRun(
            plan=shell(f"test $(({number} % 7)) -ne 0"),
            max_attempts=1,
            metadata={"batch": batch, "number": str(number)},
            idempotency_key=f"{batch}-{number}",
        )
        for number in range(1, count + 1)
    ]
    with Client.from_env(notify=print) as client:
        created = client.create_many(wanted)
        for answer in created:
            if isinstance(answer, ApiError):
                print(f"refused: {answer}")
            else:
                client.wait(answer.run_id)
        failed = [*client.runs(status="failed", metadata={"batch": batch})]
        print(f"{len(created)} runs, {len(failed)} failed:", *sorted(int(run.metadata["number"]) for run in failed))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
