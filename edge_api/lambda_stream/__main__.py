"""`python -m edge_api.lambda_stream`: the application as a Lambda function whose responses stream.

Lambda's own Python runtime sends a response only when it is complete, so this program replaces it: Lambda starts it
through `edge_api/stream-wrapper`, named in `AWS_LAMBDA_EXEC_WRAPPER`. All invocations of the process share one event
loop and one set of clients.
"""

import asyncio
import logging
import os
import sys

from edge_api.handler import build_app
from edge_api.lambda_stream.connection import ConnectionLost
from edge_api.lambda_stream.loop import serve
from edge_api.lambda_stream.runtime_api import RuntimeApi, RuntimeApiRejected
from infra.logging import configure, log
from infra.settings import Env, SettingsError


async def run(api: RuntimeApi) -> int:
    """Build the application and serve it until the Runtime API fails; return the exit code of the process."""
    try:
        try:
            app = build_app(os.environ)
        except Exception as exc:  # noqa: BLE001
            log("lambda.init_failed", level=logging.ERROR, error=exc)
            await api.fail_init(exc)
            return 1
        await serve(app, api)
    except (ConnectionLost, RuntimeApiRejected) as exc:
        log("lambda.ended", level=logging.ERROR, reason=str(exc))
    finally:
        api.close()
    return 1


def main() -> int:
    """Serve until Lambda ends the process."""
    configure()
    try:
        address = Env(os.environ).text("AWS_LAMBDA_RUNTIME_API")
    except SettingsError as exc:
        sys.stderr.write(f"{exc}; this program is started by AWS Lambda, which sets it\n")
        return 2
    return asyncio.run(run(RuntimeApi(address)))


if __name__ == "__main__":
    sys.exit(main())
