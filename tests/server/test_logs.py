"""The log is lines of JSON, whatever is said."""

from __future__ import annotations

import json
import logging

from manifest_server.logs import EVENT, JsonLines


def test_a_record_is_one_line() -> None:
    record = logging.LogRecord("x", logging.INFO, "", 0, "two\nlines %s \x1b\ud800", ("é",), None)
    setattr(record, EVENT, {"status": 200})

    line = JsonLines().format(record)

    assert line.isascii()
    assert line.isprintable()
    said = json.loads(line)
    assert (said["level"], said["status"]) == ("info", 200)
    assert said["message"].startswith("two\nlines é")
