"""No-op job in other task queues, executed in the environment that `bench.queue` creates for them.

`python noop.py NAME enqueue COUNT` or `python noop.py NAME work SLOTS`, with REDIS_URL and DONE_FILE set. Each job adds
one byte to DONE_FILE, so that progress is measured without commands to Redis. Every library has its default settings,
except for the concurrency, and except for job results, which are not stored if the library allows that.
"""

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

URL = os.environ.get("REDIS_URL", "")
BIN = Path(sys.executable).parent
CONCURRENT = 50
"""Number of concurrent enqueue calls, if the library is asynchronous."""


def done() -> None:
    """Execute the job: add a byte to DONE_FILE."""
    file = os.open(os.environ["DONE_FILE"], os.O_WRONLY | os.O_APPEND)
    os.write(file, b".")
    os.close(file)


def run(*command: str) -> None:
    """Run a command of the library, which imports this module by name; exit with its code."""
    sys.exit(subprocess.call([BIN / command[0], *command[1:]]))


async def call_concurrently(count: int, enqueue: Callable[[], object]) -> None:
    """Call `enqueue` `count` times, up to CONCURRENT calls at a time."""
    remaining = iter(range(count))

    async def call_some() -> None:
        for _ in remaining:
            await enqueue()

    await asyncio.gather(*(call_some() for _ in range(CONCURRENT)))


def arq(action: str, number: int) -> None:
    """Enqueue or work with arq."""
    from arq import create_pool
    from arq.connections import RedisSettings
    from arq.worker import func, run_worker

    settings = RedisSettings.from_dsn(URL)

    async def noop(_: object) -> None:
        done()

    async def enqueue() -> None:
        pool = await create_pool(settings)
        await call_concurrently(number, lambda: pool.enqueue_job("noop"))

    if action == "enqueue":
        asyncio.run(enqueue())
    else:
        options = {
            "functions": [func(noop, name="noop")],
            "redis_settings": settings,
            "max_jobs": number,
            "keep_result": 0,
        }
        run_worker(type("Settings", (), options))


def saq(action: str, number: int) -> None:
    """Enqueue or work with saq."""
    from saq import Queue, Worker

    async def noop(_: object) -> None:
        done()

    async def main() -> None:
        queue = Queue.from_url(URL)
        await queue.connect()
        if action == "enqueue":
            await call_concurrently(number, lambda: queue.enqueue("noop", ttl=-1))
        else:
            await Worker(queue, functions=[("noop", noop)], concurrency=number).start()

    asyncio.run(main())


def taskiq(action: str, number: int) -> None:
    """Enqueue or work with taskiq over taskiq-redis streams."""
    if action == "work":
        run("taskiq", "worker", "noop:taskiq_broker", "--workers", "1", "--max-async-tasks", str(number))

    async def enqueue() -> None:
        broker = taskiq_broker()
        await broker.startup()
        task = broker.find_task("noop")
        await call_concurrently(number, task.kiq)
        await broker.shutdown()

    asyncio.run(enqueue())


def taskiq_broker():
    """Return the broker; the command `taskiq worker` loads it by this name."""
    from taskiq_redis import RedisStreamBroker

    broker = RedisStreamBroker(url=URL)

    @broker.task(task_name="noop")
    async def noop() -> None:
        done()

    return broker


def dramatiq(action: str, number: int) -> None:
    """Enqueue or work with dramatiq."""
    if action == "work":
        run("dramatiq", "noop:dramatiq_broker", "--processes", "1", "--threads", str(number))
    actor = dramatiq_broker().get_actor("noop")
    for _ in range(number):
        actor.send()


def dramatiq_broker():
    """Return the broker; the command `dramatiq` calls this function by name."""
    import dramatiq
    from dramatiq.brokers.redis import RedisBroker

    broker = RedisBroker(url=URL)
    dramatiq.set_broker(broker)
    dramatiq.actor(actor_name="noop")(done)
    return broker


def celery(action: str, number: int) -> None:
    """Enqueue or work with celery."""
    from celery import Celery

    app = Celery("noop", broker=URL, broker_connection_retry_on_startup=True)
    task = app.task(name="noop", ignore_result=True)(done)
    if action == "work":
        app.worker_main(["worker", "--pool", "threads", "--concurrency", str(number)])
    for _ in range(number):
        task.delay()


def rq(action: str, number: int) -> None:
    """Enqueue or work with rq, which executes one job at a time, each in a new process."""
    from redis import Redis
    from rq import Queue, Worker

    queue = Queue(connection=Redis.from_url(URL))
    if action == "work":
        Worker([queue], connection=queue.connection).work()
    for _ in range(number):
        queue.enqueue("noop.done", result_ttl=0)


PEERS = {peer.__name__: peer for peer in (taskiq, dramatiq, saq, celery, arq, rq)}

if __name__ == "__main__":
    PEERS[sys.argv[1]](sys.argv[2], int(sys.argv[3]))
