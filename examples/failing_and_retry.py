"""A run that fails, because what it needs is not there yet, and is retried: the finished step is not repeated."""

import time

from swissbrain import Client, RunFailed, shell

READY_IN_S = 3


def main() -> None:
    """Run, fail, retry, succeed."""
    ready = int(time.time()) + READY_IN_S
    plan = [
        shell("date +%s%N > began.txt", name="expensive work"),
        shell(
            f'if [ "$(date +%s)" -lt {ready} ]; then echo "the source is not ready" >&2; exit 75; fi; cat began.txt',
            name="load",
        ),
    ]
    with Client.from_env(notify=print) as client:
        try:
            client.run(plan)
        except RunFailed as failure:
            print(f"{failure}; last words: {failure.stderr}")
            run_id = failure.run.run_id
        else:
            raise SystemExit("the source was ready too early")
        began = client.read_text(run_id, "began.txt")
        time.sleep(READY_IN_S)
        client.retry(run_id)
        run = client.wait(run_id, timeout_s=60)
        if client.read_text(run_id, "began.txt") != began:
            raise SystemExit("the first step was repeated")
        print(f"after the retry: {run.status}; attempts: {[attempt.outcome for attempt in client.attempts(run_id)]}")


if __name__ == "__main__":
    main()
