"""The compiler of seccomp profiles, on a simulated machine."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from bpf_machine import run_classic

from satsuma.linux import seccomp
from satsuma.linux.syscall_table import TABLES, numbers
from satsuma.runtime import default_spec

X86_64, X86, AARCH64 = 0xC000003E, 0x40000003, 0xC00000B7
ALLOW, EPERM, ENOSYS, KILL = 0x7FFF0000, 0x00050001, 0x00050026, 0x80000000
NUMBERS = numbers("x86_64")


def _profile(*rules: dict, default: str = "SCMP_ACT_ERRNO", **extra: object) -> dict:
    return {"defaultAction": default, "architectures": ["SCMP_ARCH_X86_64"], "syscalls": list(rules), **extra}


def _allow(*names: str, args: list | None = None) -> dict:
    rule: dict = {"names": list(names), "action": "SCMP_ACT_ALLOW"}
    return rule | {"args": args} if args else rule


def _run(profile: dict, name: str, *args: int) -> int:
    return run_classic(seccomp.compile_profile(profile, "x86_64"), NUMBERS[name], X86_64, args)


def _expected(profile: dict, name: str, arch: str, args: tuple[int, ...]) -> int:
    """The verdict by the text of the profile, without any cleverness."""
    default = seccomp.action_value(profile["defaultAction"], profile.get("defaultErrnoRet"))
    for rule in profile["syscalls"]:
        value = seccomp.action_value(rule["action"], rule.get("errnoRet"))
        if name not in rule["names"] or value == default:
            continue
        if all(_holds(test, args[test["index"]]) for test in rule.get("args", [])):
            return value
    return default


def _holds(test: dict, argument: int) -> bool:
    value = test["value"]
    return {
        "SCMP_CMP_NE": argument != value,
        "SCMP_CMP_LT": argument < value,
        "SCMP_CMP_LE": argument <= value,
        "SCMP_CMP_EQ": argument == value,
        "SCMP_CMP_GE": argument >= value,
        "SCMP_CMP_GT": argument > value,
        "SCMP_CMP_MASKED_EQ": argument & value == test.get("valueTwo", 0),
    }[test["op"]]


@pytest.mark.parametrize("caps", [(), ("CAP_SYS_ADMIN",), ("CAP_SYS_PTRACE", "CAP_BPF", "CAP_SYS_NICE")])
@pytest.mark.parametrize("arch", ["x86_64", "x86", "x32"])
def test_docker_profile_gives_the_verdict_of_its_text_for_every_number(arch: str, caps: tuple) -> None:
    profile = default_spec.default_seccomp(caps, "x86_64")
    program = seccomp.compile_profile(profile, "x86_64")
    assert len(program) // 8 < 2000
    audit, bit = {"x86_64": (X86_64, 0), "x86": (X86, 0), "x32": (X86_64, 0x40000000)}[arch]
    names = {number: name for name, number in numbers(arch).items()}
    known = {name for rule in profile["syscalls"] for name in rule["names"]}
    last = max(number for number, name in names.items() if name in known)
    some = [0, 8, 37, 38, 39, 40, 41, 0x20000, 0x20008, 0xFFFFFFFF, 0x7E020000, 0x10000000, 17, 1 << 32 | 40]
    for number in range(0, max(names) + 40):
        for first in some:
            got = run_classic(program, number | bit, audit, (first,))
            if number > last:
                assert got == ENOSYS
            elif number in names:
                assert got == _expected(profile, names[number], arch, (first, 0, 0, 0, 0, 0)), names[number]
            else:
                assert got == EPERM


def test_docker_profile_for_arm() -> None:
    program = seccomp.compile_profile(default_spec.default_seccomp((), "aarch64"), "aarch64")
    table = numbers("aarch64")
    assert run_classic(program, table["read"], AARCH64) == ALLOW
    assert run_classic(program, table["mount"], AARCH64) == EPERM
    assert run_classic(program, table["clone3"], AARCH64) == ENOSYS
    assert run_classic(program, numbers("arm")["set_tls"], 0x40000028) == ALLOW
    assert run_classic(program, 0, X86_64) == KILL


def test_facts_of_docker() -> None:
    profile = default_spec.default_seccomp(default_spec.DEFAULT_CAPABILITIES, "x86_64")
    for name in "keyctl add_key unshare setns mount bpf io_uring_setup userfaultfd kexec_load swapon".split():
        assert _run(profile, name) == EPERM, name
    for name in "read execve close_range landlock_create_ruleset memfd_secret chroot statmount".split():
        assert _run(profile, name) == ALLOW, name
    assert _run(profile, "clone3") == ENOSYS
    assert _run(profile, "clone", 17) == ALLOW
    assert _run(profile, "clone", 0x10000000) == EPERM  # CLONE_NEWUSER
    assert _run(profile, "socket", 2) == ALLOW
    assert _run(profile, "socket", 38) == EPERM  # AF_ALG
    assert _run(profile, "socket", 40) == EPERM  # AF_VSOCK


def test_foreign_architecture_kills() -> None:
    program = seccomp.compile_profile(_profile(_allow("read")), "x86_64")
    assert run_classic(program, 0, X86) == KILL
    assert run_classic(program, 0x40000000, X86_64) == KILL  # x32 is not listed


def test_first_matching_rule_wins() -> None:
    first = {"names": ["read"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5, "args": [_test(0, "EQ", 3)]}
    profile = _profile(first, _allow("read"))
    assert _run(profile, "read", 3) == 0x00050005
    assert _run(profile, "read", 4) == ALLOW


def _test(index: int, op: str, value: int, two: int = 0) -> dict:
    return {"index": index, "op": f"SCMP_CMP_{op}", "value": value, "valueTwo": two}


def test_all_conditions_of_a_rule_must_hold() -> None:
    profile = _profile(_allow("read", args=[_test(0, "EQ", 3), _test(2, "GT", 9)]))
    assert _run(profile, "read", 3, 0, 10) == ALLOW
    assert _run(profile, "read", 3, 0, 9) == EPERM
    assert _run(profile, "read", 2, 0, 10) == EPERM


def test_two_conditions_on_one_argument_are_alternatives() -> None:
    profile = _profile(_allow("read", args=[_test(0, "EQ", 3), _test(0, "EQ", 4)]))
    assert [_run(profile, "read", value) for value in (3, 4, 5)] == [ALLOW, ALLOW, EPERM]


@pytest.mark.parametrize("op", ["NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"])
def test_comparisons_of_64_bits(op: str) -> None:
    numbers_ = [0, 1, 0xFFFFFFFF, 1 << 32, (1 << 32) + 1, (5 << 32) + 7, (1 << 64) - 1]
    for value in numbers_:
        two = value & 0x1_0000_0001
        profile = _profile(_allow("read", args=[_test(1, op, value, two)]))
        program = seccomp.compile_profile(profile, "x86_64")
        for argument in numbers_:
            want = ALLOW if _holds(_test(1, op, value, two), argument) else EPERM
            assert run_classic(program, 0, X86_64, (0, argument)) == want


def test_random_profiles_with_far_jumps() -> None:
    chance = random.Random(7)
    names = sorted(NUMBERS)
    for _ in range(4):
        rules = []
        for name in chance.sample(names, 250):
            args = [
                _test(i, chance.choice(["EQ", "NE", "GT", "LE"]), chance.randrange(4))
                for i in range(chance.randrange(3))
            ]
            rules.append(
                {
                    "names": [name],
                    "action": "SCMP_ACT_ERRNO",
                    "errnoRet": chance.randrange(2, 99),
                    "args": args,
                }
            )
        profile = _profile(*rules, default="SCMP_ACT_ALLOW")
        program = seccomp.compile_profile(profile, "x86_64")
        for name in names:
            args = tuple(chance.randrange(4) for _ in range(6))
            assert run_classic(program, NUMBERS[name], X86_64, args) == _expected(
                profile, name, "x86_64", args
            )


def test_unknown_numbers_stay_allowed_when_the_default_allows() -> None:
    profile = _profile({"names": ["mount"], "action": "SCMP_ACT_ERRNO"}, default="SCMP_ACT_ALLOW")
    assert run_classic(seccomp.compile_profile(profile, "x86_64"), 999, X86_64) == ALLOW


@pytest.mark.parametrize(
    ("profile", "text"),
    [
        ({"defaultAction": "SCMP_ACT_FOO"}, "string SCMP_ACT_FOO is not a valid action for seccomp"),
        (_profile(_allow("read", args=[_test(0, "FOO", 1)])), "not a valid operator"),
        (_profile(_allow("read", args=[_test(6, "EQ", 1)])), "argument index"),
        ({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_FOO"]}, "not a valid arch"),
        ({"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 1}, "errnoRet"),
        ({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 5000}, "out of range"),
        (_profile({"names": [], "action": "SCMP_ACT_ALLOW"}), "empty string"),
    ],
)
def test_impossible_profiles_are_refused(profile: dict, text: str) -> None:
    with pytest.raises(seccomp.ProfileError, match=text):
        seccomp.compile_profile(profile, "x86_64")


def test_unknown_flag_is_refused_and_absent_flags_mean_spec_allow() -> None:
    assert seccomp.filter_flags({}) == 4
    assert seccomp.filter_flags({"flags": []}) == 0
    with pytest.raises(seccomp.ProfileError):
        seccomp.filter_flags({"flags": ["SECCOMP_FILTER_FLAG_FOO"]})


def test_tables_are_one_to_one() -> None:
    for arch in TABLES:
        table = numbers(arch)
        assert len(set(table.values())) >= len(table) - 4, arch
        assert table["statmount"] == 457
