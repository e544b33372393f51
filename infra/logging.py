"""Log lines as JSON, one object a line on standard error, each with a stable `action`."""

import logging
import sys
import time
from typing import Any

import msgspec

LOGGER_NAME = "swissbrain"


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, action, the fields given to `log`, and the error if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """Render a record; what JSON cannot hold is shown by its `str`."""
        when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {
            "time": f"{when}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "action": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line, enc_hook=str).decode()


def configure(level: str = "INFO") -> None:
    """Send everything from INFO up to standard error as JSON; chatty libraries from WARNING up."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name in ("httpx", "httpcore", "botocore", "boto3", "urllib3", "s3transfer", "uvicorn.access"):
        logging.getLogger(name).setLevel(logging.WARNING)


def log(action: str, *, level: int = logging.INFO, error: BaseException | None = None, **fields: Any) -> None:
    """Write one log line. Never give it a token, a secret, or a URL that may hold one."""
    logging.getLogger(LOGGER_NAME).log(level, action, exc_info=error, extra={"fields": fields})
