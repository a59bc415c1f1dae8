"""`--explain`: every step has words, and the drawing keeps what it is given."""

from __future__ import annotations

import inspect

import pytest

from satsuma.runtime import explain, stage
from satsuma.runtime.config import parse
from satsuma.runtime.features import example_spec
from satsuma.runtime.plan import Extras, plan_init
from satsuma.runtime.trace import Trace, timeline
from satsuma.wire.steps import Drawer, wrap


def spec() -> dict:
    """Return the example without its cgroup mount, which needs a real group."""
    example = example_spec()
    example["mounts"] = [entry for entry in example["mounts"] if entry["type"] != "cgroup"]
    return example


OF_EXEC = {"setns_init", "enter_root"}


def test_every_operation_of_a_plan_has_words():
    missing = set(stage.OPERATIONS) - set(explain._STEPS) - OF_EXEC
    assert not missing, f"add to runtime/explain.py: {missing}"


def test_every_step_of_the_last_part_is_announced_by_it():
    from satsuma.runtime import finish

    source = inspect.getsource(finish)
    plan = plan_init(parse(spec()), Extras(exec_fifo_fd=9, death_signal=9), held_caps=-1)
    last = [step.name for step in timeline(plan)[1 + len(plan.steps) :]]
    assert last[-1] == "execve"
    for name in last:
        assert f'stage.at("{name}")' in source


def test_a_plan_is_explained_without_times():
    plan = plan_init(parse(spec()), Extras(bundle="/b"), held_caps=-1)
    steps = explain.planned(plan)
    names = [step["Step"] for step in steps]
    assert names[0] == "clone3"
    assert (
        names.index("pivot_root") < names.index("setresuid") < names.index("capset") < names.index("execve")
    )
    assert all(step["Reason"] and step["Duration"] is None for step in steps)
    assert "/b/rootfs" in steps[names.index("open_tree")]["Arguments"]


def test_trace_orders_both_sides_and_leaves_out_what_was_not_reached():
    plan = plan_init(parse(spec()), Extras(), held_caps=-1)
    trace = Trace()
    trace.at("config", "/x")
    trace.bind(plan)
    trace.rest()
    trace.reached("prepare")
    trace.reached("unknown")
    trace.reached("pivot")
    trace.end(failed=True)
    rows = trace.rows()
    assert [row[1] for row in rows] == ["config", "prepare", "pivot"]
    assert [row[5] for row in rows] == ["", "", "failed"]
    assert all(row[4] >= 0 for row in rows)


@pytest.mark.parametrize(
    ("paths", "shown"),
    [
        (["/c/a/x", "/c/b/x"], "/c/{a,b}/x"),
        (["/c/a/x"], "/c/a/x"),
        (["/c/a/x", "/d/b/x"], "/c/a/x /d/b/x"),
        (["/c/a", "/c/b/x"], "/c/a /c/b/x"),
        ([], ""),
    ],
)
def test_directories_are_written_with_braces(paths: list[str], shown: str):
    assert explain._directories(paths) == shown


def test_drawing():
    step = {
        "Process": "p",
        "Step": "mount",
        "Arguments": "a b",
        "Reason": "why",
        "Start": 0,
        "Duration": 1499,
    }
    drawer = Drawer({"p": "the process"}, 80)
    lines = drawer.draw([step, step | {"Step": "execve", "Failed": True}])
    assert lines[0].strip() == "-- the process --"
    assert lines[1] == f"{1:>9}  {'mount':<17}  a b"
    assert lines[2].strip() == "# why"
    assert "failed here" in lines[4]
    assert drawer.total([step]) == f"{1:>9}  in all, 1 steps"


def test_wrap_keeps_every_word_and_shows_control_characters():
    text = "x" * 30 + " a b\x1b[31m c"
    assert wrap(text, 11) == ["x" * 30, "a b\\x1b[31m", "c"]


def test_a_clock_that_the_filter_refuses_does_not_end_the_start(monkeypatch: pytest.MonkeyPatch):
    trace = Trace()
    trace.bind(plan_init(parse(spec()), Extras(), held_caps=-1))
    trace.reached("prepare")

    def refused() -> int:
        raise PermissionError

    monkeypatch.setattr("satsuma.runtime.trace.time.perf_counter_ns", refused)
    trace.reached("chdir")
    assert [(name, took) for _, name, _, _, took, _ in trace.rows() if name == "prepare"] == [("prepare", 0)]
