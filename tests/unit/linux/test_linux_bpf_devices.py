"""Device programs give the verdicts of the v1 controller."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from bpf_machine import run_device

from satsuma.linux.bpf_devices import compile_rules
from satsuma.runtime.default_spec import DEVICE_RULES
from satsuma.runtime.devices import parse_devices


def test_docker_rules() -> None:
    program = compile_rules(parse_devices(list(DEVICE_RULES)))
    for major, minor in ((1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2), (10, 200), (136, 7)):
        assert run_device(program, "c", "rwm", major, minor), (major, minor)
    assert run_device(program, "b", "m", 8, 0)
    assert not run_device(program, "b", "r", 8, 0)
    assert not run_device(program, "c", "r", 1, 1)
    assert not run_device(program, "c", "rw", 10, 229)


def test_last_rule_wins_and_an_allow_must_cover_the_access() -> None:
    rules = [(False, "a", None, None, "rwm"), (True, "c", 1, None, "rw"), (False, "c", 1, 5, "w")]
    program = compile_rules(rules)
    assert run_device(program, "c", "r", 1, 5)
    assert not run_device(program, "c", "w", 1, 5)
    assert not run_device(program, "c", "rw", 1, 5)
    assert run_device(program, "c", "rw", 1, 6)
    assert not run_device(program, "c", "rwm", 1, 6)
    assert not run_device(program, "b", "r", 1, 6)


def test_allow_all_and_no_rules() -> None:
    assert run_device(compile_rules([(True, "a", None, None, "rwm")]), "b", "rwm", 8, 0)
    assert not run_device(compile_rules([]), "c", "r", 1, 3)
