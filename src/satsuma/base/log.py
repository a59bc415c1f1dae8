"""Log set-up of the daemon: logfmt lines on stderr, as dockerd writes them."""

from __future__ import annotations

import json
import logging
import sys

from satsuma.base.clock import format_rfc3339nano

LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "error": logging.ERROR,
    "fatal": logging.CRITICAL,
}


class LogfmtFormatter(logging.Formatter):
    """`time="…" level=info msg="…" logger=satsuma.engine`."""

    def format(self, record: logging.LogRecord) -> str:
        text = record.getMessage()
        if record.exc_info:
            text = f"{text}\n{self.formatException(record.exc_info)}"
        stamp = format_rfc3339nano(int(record.created * 1e9))
        level = {"WARNING": "warning", "CRITICAL": "fatal"}.get(record.levelname, record.levelname.lower())
        return f'time="{stamp}" level={level} msg={json.dumps(text, ensure_ascii=False)} logger={record.name}'


class JsonFormatter(logging.Formatter):
    """One JSON object per line: level, msg, time."""

    def format(self, record: logging.LogRecord) -> str:
        text = record.getMessage()
        if record.exc_info:
            text = f"{text}\n{self.formatException(record.exc_info)}"
        level = {"WARNING": "warning", "CRITICAL": "fatal"}.get(record.levelname, record.levelname.lower())
        stamp = format_rfc3339nano(int(record.created * 1e9))
        return json.dumps(
            {"level": level, "msg": text, "time": stamp, "logger": record.name}, ensure_ascii=False
        )


def set_up(level: str, *, format: str = "text") -> None:
    """Send the package's log to stderr at *level*, one of `LEVELS`; *format* is `text` or `json`."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if format == "json" else LogfmtFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(LEVELS[level])
