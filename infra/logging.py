"""Log lines as JSON: one object per line on standard error, each with a stable `action`."""

import json
import logging
import sys
import time
from typing import Any

import msgspec

LOGGER_NAME = "swissbrain"
_logger = logging.getLogger(LOGGER_NAME)


class JsonFormatter(logging.Formatter):
    """Formats a record as one JSON object: time, level, action, the fields passed to `log`, and a traceback if any."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as JSON. Values that JSON cannot represent are converted by `str`."""
        when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {
            "time": f"{when}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "action": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        try:
            return msgspec.json.encode(line, enc_hook=str).decode()
        except UnicodeEncodeError:  # a name of a file, or what a damaged key holds
            return json.dumps(line, default=str)


def configure() -> None:
    """Send log records from INFO to standard error as JSON; those of chatty libraries from WARNING."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    for name in ("httpx", "httpcore", "botocore", "boto3", "urllib3", "s3transfer", "uvicorn.access", "mangum"):
        logging.getLogger(name).setLevel(logging.WARNING)


def log(action: str, *, level: int = logging.INFO, error: BaseException | None = None, **fields: Any) -> None:
    """Write one log line. Never pass a token, a secret, or a URL that may contain one."""
    if not _logger.isEnabledFor(level):
        return
    # Not by `Logger.log`: a third of its time is the search for the caller's file and line, which no line shows.
    raised = (type(error), error, error.__traceback__) if error else None
    _logger.handle(_logger.makeRecord(LOGGER_NAME, level, "", 0, action, (), raised, extra={"fields": fields}))
