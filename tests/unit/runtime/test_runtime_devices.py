"""Device rules: v1's files, v2's program, and that both mean what the list says."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[1] / "linux"))

from bpf_machine import run_device

from satsuma.linux.bpf_devices import compile_rules
from satsuma.runtime import devices
from satsuma.runtime.default_spec import DEVICE_RULES
from satsuma.runtime.errors import ConfigError

DENY_ALL = {"allow": False, "access": "rwm"}
ALLOW_ALL = {"allow": True, "access": "rwm"}


def _rule(allow: bool, kind: str, major: int, minor: int, access: str) -> dict:
    return {"allow": allow, "type": kind, "major": major, "minor": minor, "access": access}


class V1:
    """The devices controller of version 1 (security/device_cgroup.c): a default and a list of exceptions."""

    def __init__(self) -> None:
        self.allow = True
        self.exceptions: dict[tuple, set[str]] = {}

    def write(self, name: str, line: str) -> None:
        allow = name == "devices.allow"
        if line == "a":
            self.allow, self.exceptions = allow, {}
            return
        kind, pair, access = line.split()
        key = (kind, *pair.split(":"))
        if allow != self.allow:
            self.exceptions.setdefault(key, set()).update(access)
        elif key in self.exceptions:
            self.exceptions[key] -= set(access)

    def text(self) -> str:
        if self.allow:
            return "a *:* rwm\n"
        return "".join(
            f"{k} {a}:{b} {''.join(access)}\n" for (k, a, b), access in self.exceptions.items() if access
        )

    def allows(self, kind: str, access: str, major: int, minor: int) -> bool:
        matching = [
            held
            for (k, a, b), held in self.exceptions.items()
            if k == kind and a in ("*", str(major)) and b in ("*", str(minor))
        ]
        if self.allow:
            return not any(held & set(access) for held in matching)
        return any(set(access) <= held for held in matching)


def _oracle(rules: list, kind: str, letter: str, major: int, minor: int) -> bool:
    """The last rule that matches decides."""
    for allow, k, a, b, access in reversed(rules):
        if k in ("a", kind) and a in (None, major) and b in (None, minor) and letter in access:
            return allow
    return False


NUMBERS = st.sampled_from([-1, 1, 3, 5, 136])
RULES = st.lists(
    st.one_of(
        st.builds(
            _rule,
            st.booleans(),
            st.sampled_from("bc"),
            NUMBERS,
            NUMBERS,
            st.sampled_from(["r", "w", "m", "rw", "rm", "wm", "rwm"]),
        ),
        st.sampled_from([DENY_ALL, ALLOW_ALL]),
    ),
    max_size=8,
)
DEVICES = list(itertools.product("bc", (1, 3, 5, 136, 7), (1, 3, 5, 136, 7)))


@settings(max_examples=150, deadline=None)
@given(RULES)
def test_the_program_gives_the_verdict_of_the_list(entries: list) -> None:
    rules = devices.parse_devices(entries)
    program = compile_rules(rules)
    for kind, major, minor in DEVICES:
        for access in ("r", "w", "m", "rw", "rwm"):
            expected = all(_oracle(rules, kind, letter, major, minor) for letter in access)
            assert run_device(program, kind, access, major, minor) == expected, (kind, access, major, minor)


@settings(max_examples=150, deadline=None)
@given(RULES, RULES)
def test_v1_gives_the_verdict_of_the_list_or_refuses_it(first: list, second: list) -> None:
    kernel = V1()
    fresh = True
    for entries in (first, second):
        rules = devices.parse_devices(entries)
        try:
            writes = devices.plan_devices_v1(rules, kernel.text(), fresh=fresh)
        except ConfigError as error:
            assert "cannot punch hole" in str(error)
            continue
        fresh = False
        for name, line in writes:
            kernel.write(name, line)
        for kind, major, minor in DEVICES:
            for letter in "rwm":
                assert kernel.allows(kind, letter, major, minor) == _oracle(
                    rules, kind, letter, major, minor
                ), writes


def test_docker() -> None:
    writes = devices.plan_devices_v1(devices.parse_devices(list(DEVICE_RULES)))
    assert writes[0] == ("devices.deny", "a")
    assert {name for name, _ in writes[1:]} == {"devices.allow"}
    lines = [line for _, line in writes[1:]]
    assert sorted(lines) == sorted(
        [
            *(
                "b *:* m",
                "c *:* m",
                "c 1:3 rwm",
                "c 1:5 rwm",
                "c 1:7 rwm",
                "c 1:8 rwm",
                "c 1:9 rwm",
                "c 5:0 rwm",
            ),
            *("c 5:1 rwm", "c 5:2 rwm", "c 10:200 rwm", "c 136:* rwm"),
        ]
    )


def test_a_list_without_a_beginning_starts_from_nothing() -> None:
    for entries in ([], [_rule(True, "c", 1, 11, "r")], [DENY_ALL, _rule(True, "c", 1, 11, "r")]):
        rules = devices.parse_devices(entries)
        assert rules[0] == (False, "a", None, None, "rwm")
        program = compile_rules(rules)
        assert run_device(program, "c", "rw", 1, 3)
        assert not run_device(program, "b", "r", 8, 0)
        assert run_device(program, "c", "r", 1, 11) == bool(entries)


def test_privileged_needs_no_write() -> None:
    rules = devices.parse_devices([ALLOW_ALL])
    assert devices.plan_devices_v1(rules) == []
    # A restricted parent cannot give more than it has: let the kernel say so.
    assert devices.plan_devices_v1(rules, "c 1:3 rwm\n") == [("devices.allow", "a")]


def test_a_standard_node_can_be_taken_away() -> None:
    rules = devices.parse_devices([DENY_ALL, _rule(False, "c", 1, 5, "r")])
    assert ("devices.allow", "c 1:5 wm") in devices.plan_devices_v1(rules)
    program = compile_rules(rules)
    assert not run_device(program, "c", "r", 1, 5)
    assert run_device(program, "c", "w", 1, 5)


def test_v1_refuses_a_hole_and_v2_makes_it() -> None:
    rules = devices.parse_devices(
        [DENY_ALL, _rule(True, "c", 10, -1, "rw"), _rule(False, "c", 10, 229, "rw")]
    )
    with pytest.raises(ConfigError) as caught:
        devices.plan_devices_v1(rules)
    assert str(caught.value) == (
        "requested rule [deny c 10:229 rw] not supported by devices cgroupv1 "
        "(cannot punch hole in existing wildcard rule [c 10:* rw])"
    )
    program = compile_rules(rules)
    assert not run_device(program, "c", "r", 10, 229)
    assert run_device(program, "c", "rw", 10, 228)


def test_an_update_writes_only_the_difference() -> None:
    before = devices.parse_devices([DENY_ALL, _rule(True, "c", 5, 1, "rwm"), _rule(True, "c", 1, 11, "rw")])
    kernel = V1()
    for write in devices.plan_devices_v1(before):
        kernel.write(*write)
    after = devices.parse_devices([DENY_ALL, _rule(True, "c", 1, 11, "r"), _rule(True, "b", 8, 0, "r")])
    assert devices.plan_devices_v1(after, kernel.text(), fresh=False) == [
        ("devices.allow", "b 8:0 r"),
        ("devices.deny", "c 5:1 rwm"),
        ("devices.deny", "c 1:11 w"),
    ]
    assert devices.plan_devices_v1(before, kernel.text(), fresh=False) == []


@pytest.mark.parametrize(
    "rule",
    [
        {"allow": True, "type": "x"},
        {"allow": True, "access": "q"},
        {"allow": True, "access": 5},
        {"allow": True, "type": "c", "major": "1"},
        {"allow": True, "type": "c", "major": -2},
        {"allow": True, "type": "c", "major": 1 << 40},
    ],
)
def test_rules_that_mean_nothing(rule: dict) -> None:
    with pytest.raises(ConfigError):
        devices.parse_devices([rule])
