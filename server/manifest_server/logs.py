"""What the service says of itself: a line of JSON for each event."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Any, Final

EVENT: Final = "event"
"""The attribute of a log record that holds its fields."""


class JsonLines(logging.Formatter):
    """One JSON object a line, whatever is in the texts."""

    def format(self, record: logging.LogRecord) -> str:
        """A record as a line; a traceback is one of its fields."""
        moment = datetime.fromtimestamp(record.created, UTC)
        said: dict[str, Any] = {
            "at": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **getattr(record, EVENT, {}),
        }
        if record.exc_info:
            said["trace"] = self.formatException(record.exc_info)
        return json.dumps(said, default=str)


LOGGING: Final[dict[str, Any]] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"lines": {"()": JsonLines}},
    "handlers": {"lines": {"class": "logging.StreamHandler", "formatter": "lines"}},
    "loggers": {
        name: {"handlers": ["lines"], "level": "INFO", "propagate": False}
        for name in ("manifest_server", "uvicorn")
    },
}
"""To standard error: standard output is for people."""
