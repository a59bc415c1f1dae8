"""Scopes of build arguments."""

from __future__ import annotations

from satsuma.build.args import BuildArgs


def test_a_given_value_beats_the_default_beats_the_global_one() -> None:
    args = BuildArgs({"A": "given"})
    args.declare_global("A", "global")
    args.declare_global("B", "global")
    args.declare_global("C", "global")
    stage = args.stage()
    stage.declare("A", "own")
    stage.declare("B", "own")
    stage.declare("C", None)
    assert stage.for_stage({}) == {"A": "given", "B": "own", "C": "global"}


def test_nothing_is_visible_in_a_stage_that_it_did_not_declare() -> None:
    args = BuildArgs({"A": "given"})
    args.declare_global("B", "1")
    assert args.stage().for_stage({}) == {}


def test_a_declaration_ends_with_its_stage() -> None:
    args = BuildArgs({"A": "1"})
    args.stage().declare("A", None)
    assert args.stage().for_stage({}) == {}


def test_from_sees_global_arguments_only() -> None:
    args = BuildArgs({"V": "2", "W": "3"})
    args.declare_global("V", "1")
    assert args.for_from() == {"V": "2"}


def test_an_env_hides_an_arg_of_the_same_name() -> None:
    stage = BuildArgs({"A": "1", "B": "2"}).stage()
    stage.declare("A", None)
    stage.declare("B", None)
    assert stage.for_stage({"A": "env"}) == {"B": "2"}


def test_an_argument_without_any_value_is_not_set() -> None:
    stage = BuildArgs({"A": None}).stage()
    stage.declare("A", None)
    stage.declare("B", "")
    assert stage.for_stage({}) == {"B": ""}


def test_proxies_need_no_arg_and_leave_no_trace() -> None:
    args = BuildArgs({"HTTP_PROXY": "http://p", "no_proxy": "x"})
    stage = args.stage()
    values = stage.for_stage({})
    assert values == {"HTTP_PROXY": "http://p", "no_proxy": "x"}
    assert stage.for_history(values) == ["|0"]
    assert args.unused() == []
    stage.declare("HTTP_PROXY", None)
    assert stage.for_history(values) == ["|1", "HTTP_PROXY=http://p"]


def test_the_history_shows_arguments_sorted() -> None:
    stage = BuildArgs({}).stage()
    stage.declare("B", "2")
    stage.declare("A", "1 x")
    assert stage.for_history(stage.for_stage({})) == ["|2", "A=1 x", "B=2"]
    assert stage.for_history({}) == []


def test_unused_arguments_are_named() -> None:
    args = BuildArgs({"Z": "1", "A": "2", "M": "3"})
    args.stage().declare("M", None)
    assert args.unused() == ["A", "Z"]


def test_platform_arguments_must_be_declared_in_a_stage() -> None:
    args = BuildArgs({}, {"TARGETARCH": "amd64"})
    assert args.for_from() == {"TARGETARCH": "amd64"}
    stage = args.stage()
    assert stage.for_stage({}) == {}
    stage.declare("TARGETARCH", None)
    assert stage.for_stage({}) == {"TARGETARCH": "amd64"}
