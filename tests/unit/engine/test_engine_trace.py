"""The log line that says where the milliseconds go."""

from __future__ import annotations

import logging
import re
import time

from satsuma.engine.trace import Trace


def line(caplog) -> str:
    return caplog.records[-1].getMessage()


def test_steps_of_two_processes_in_time_order(caplog):
    with caplog.at_level(logging.DEBUG, "satsuma.trace"):
        trace = Trace("start", "0123456789abcdef")
        trace.step("network")
        now = time.monotonic_ns()
        trace.add_rows(
            [["init", "pivot", [], now, 2_000_000, ""], ["monitor", "open", [], now, 1_000_000, ""]]
        )
        time.sleep(0.003)
        trace.step("answered")
        trace.end()
    assert re.findall(r"(\w+)=", line(caplog)) == ["ms", "at", "network", "open", "pivot", "answered"]
    assert line(caplog).startswith("start 0123456789ab ms=")


def test_a_beginning_on_the_wall_clock(caplog):
    with caplog.at_level(logging.DEBUG, "satsuma.trace"):
        trace = Trace("end", "x")
        trace.since(time.time_ns() - 5_000_000)
        trace.step("news")
        trace.end()
    assert 5 <= float(re.search(r"news=([\d.]+)", line(caplog))[1]) < 50


def test_nothing_is_written_when_nobody_wants_it(caplog):
    trace = Trace("start", "x")
    trace.step("network")
    trace.end()
    assert not trace.wanted
    assert not caplog.records
