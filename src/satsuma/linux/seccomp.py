"""Compiler from the OCI seccomp profile to classic BPF, and the call that loads it.

Filter layout: check the architecture, then for each architecture a binary search over ranges of system call
numbers that share one outcome.  Rules of one system call are tried in the order of the profile, the first
match wins; a rule whose action equals the default is dropped, as libseccomp does it.

Jumps of BPF reach 255 instructions forwards only.  The program is therefore assembled from its end, where
every target already has a place, and a far target gets a `ja` of its own.

Source: seccomp(2), Documentation/userspace-api/seccomp_filter.rst, runtime-spec config-linux.md#seccomp, runc
libcontainer/seccomp/patchbpf (why numbers above those of the profile give ENOSYS).
"""

from __future__ import annotations

import ctypes
import struct

from satsuma.linux import syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Profile = dict[str, Any]
    # (argument index, operator, value, second value)
    Condition = tuple[int, str, int, int]
    # (conditions which must all hold, return value of the filter), tried in order
    Rule = tuple[tuple[Condition, ...], int]
    Body = tuple[Rule, ...]

ACTIONS = {
    "SCMP_ACT_KILL": 0x00000000,
    "SCMP_ACT_KILL_THREAD": 0x00000000,
    "SCMP_ACT_KILL_PROCESS": 0x80000000,
    "SCMP_ACT_TRAP": 0x00030000,
    "SCMP_ACT_ERRNO": 0x00050000,
    "SCMP_ACT_NOTIFY": 0x7FC00000,
    "SCMP_ACT_TRACE": 0x7FF00000,
    "SCMP_ACT_LOG": 0x7FFC0000,
    "SCMP_ACT_ALLOW": 0x7FFF0000,
}
FLAGS = {
    "SECCOMP_FILTER_FLAG_TSYNC": 1,
    "SECCOMP_FILTER_FLAG_LOG": 2,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": 4,
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": 32,
}
NEW_LISTENER = 8
_TSYNC_ESRCH = 16
OPERATORS = (
    "SCMP_CMP_NE",
    "SCMP_CMP_LT",
    "SCMP_CMP_LE",
    "SCMP_CMP_EQ",
    "SCMP_CMP_GE",
    "SCMP_CMP_GT",
    "SCMP_CMP_MASKED_EQ",
)
# Architectures of the profile -> (our table, AUDIT_ARCH_*, bit in the number); include/uapi/linux/audit.h.
ARCHITECTURES = {
    "SCMP_ARCH_X86_64": ("x86_64", 0xC000003E, 0),
    "SCMP_ARCH_X86": ("x86", 0x40000003, 0),
    "SCMP_ARCH_X32": ("x32", 0xC000003E, 0x40000000),
    "SCMP_ARCH_AARCH64": ("aarch64", 0xC00000B7, 0),
    "SCMP_ARCH_ARM": ("arm", 0x40000028, 0),
}
# Valid in a profile, but programs of theirs cannot run on the machines we run on.
FOREIGN_ARCHITECTURES = frozenset(
    "SCMP_ARCH_" + name
    for name in (
        "MIPS MIPS64 MIPS64N32 MIPSEL MIPSEL64 MIPSEL64N32 PPC PPC64 PPC64LE S390 S390X PARISC PARISC64 "
        "RISCV64 LOONGARCH64 M68K SH SHEB"
    ).split()
)
NATIVE = {"x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64"}
_X32_BIT = 0x40000000
_EPERM, _ENOSYS = 1, 38
_MAX_ERRNO = 4095
_MAX_INSTRUCTIONS = 4096

_LD_W_ABS = 0x20
_JA = 0x05
_JEQ = 0x15
_JGT = 0x25
_JGE = 0x35
_AND = 0x54
_RET = 0x06
_INSTRUCTION = struct.Struct("<HBBI")  # struct sock_filter
# struct seccomp_data
_NR, _ARCH, _ARGS = 0, 4, 16


class ProfileError(ValueError):
    """A profile that says something impossible; the text is runc's where it has one."""


class _Assembler:
    """Builds a program backwards; a label is the distance of an instruction from the end."""

    __slots__ = ("instructions",)

    def __init__(self) -> None:
        self.instructions: list[tuple[int, int, int, int]] = []

    def add(self, code: int, k: int) -> int:
        self.instructions.append((code, 0, 0, k & 0xFFFFFFFF))
        return len(self.instructions)

    def _near(self, label: int) -> int:
        """Return a label that a conditional jump emitted within the next two steps can reach."""
        if len(self.instructions) - label < 254:
            return label
        distance = len(self.instructions) - label
        return self.add(_JA, distance)

    def branch(self, code: int, k: int, true: int, false: int) -> int:
        true = self._near(true)
        false = self._near(false)
        here = len(self.instructions)
        self.instructions.append((code, here - true, here - false, k & 0xFFFFFFFF))
        return here + 1

    def encode(self) -> bytes:
        if len(self.instructions) > _MAX_INSTRUCTIONS:
            raise ProfileError("seccomp profile needs more than 4096 instructions")
        out = bytearray()
        for code, true, false, k in reversed(self.instructions):
            out += code.to_bytes(2, "little") + bytes((true, false)) + k.to_bytes(4, "little")
        return bytes(out)


def action_value(action: str, errno_ret: int | None) -> int:
    """Return the filter's return value for an action of the profile."""
    value = ACTIONS.get(action)
    if value is None:
        raise ProfileError(f"string {action} is not a valid action for seccomp")
    if action not in ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE"):
        if errno_ret is not None:
            raise ProfileError(f"errnoRet is not allowed with action {action}")
        return value
    errno_ret = _EPERM if errno_ret is None else errno_ret
    if not 0 <= errno_ret <= (_MAX_ERRNO if action == "SCMP_ACT_ERRNO" else 0xFFFF):
        raise ProfileError(f"errnoRet {errno_ret} is out of range")
    return value | errno_ret


def compile_profile(profile: Profile, machine: str = syscalls.MACHINE) -> bytes:
    """Return the BPF program (8 bytes an instruction) of the OCI `linux.seccomp` object.

    The native architecture is always filtered; those of other machines are skipped.

    Raises:
        ProfileError: unknown action, operator or architecture, or a program that is too long.
    """
    default = action_value(profile["defaultAction"], profile.get("defaultErrnoRet"))
    listed = [NATIVE[machine]]
    for name in profile.get("architectures") or []:
        if name in ARCHITECTURES:
            if name not in listed:
                listed.append(name)
        elif name not in FOREIGN_ARCHITECTURES:
            raise ProfileError(f"string {name} is not a valid arch for seccomp")
    rules = _parse_rules(profile, default)
    asm = _Assembler()
    # libseccomp's answer to a foreign architecture is to kill; KILL_PROCESS leaves no half-dead program.
    kill = asm.add(_RET, ACTIONS["SCMP_ACT_KILL_PROCESS"])
    sections: dict[int, int] = {}
    for name in listed:
        if name == "SCMP_ARCH_X32":
            continue
        table, audit, _ = ARCHITECTURES[name]
        if table == "x86_64":
            _x86_64_section(asm, rules, default, with_x32="SCMP_ARCH_X32" in listed)
        else:
            _section(asm, table, rules, default)
        # Falls through into the section's first instruction, which is the last that was assembled.
        sections[audit] = asm.add(_LD_W_ABS, _NR)
    entry = kill
    for audit, section in reversed(sections.items()):
        entry = asm.branch(_JEQ, audit, section, entry)
    asm.add(_LD_W_ABS, _ARCH)
    return asm.encode()


def _x86_64_section(asm: _Assembler, rules: dict[str, list[Rule]], default: int, *, with_x32: bool) -> int:
    # x32 shares AUDIT_ARCH_X86_64 and is told apart by a bit of the number; unlisted it is a foreign one.
    other = asm.add(_RET, ACTIONS["SCMP_ACT_KILL_PROCESS"])
    if with_x32:
        other = _section(asm, "x32", rules, default)
    native = _section(asm, "x86_64", rules, default)
    return asm.branch(_JGE, _X32_BIT, other, native)


def _parse_rules(profile: Profile, default: int) -> dict[str, list[Rule]]:
    """Return for each system call name its rules in order; those equal to the default are left out."""
    rules: dict[str, list[Rule]] = {}
    for entry in profile.get("syscalls") or []:
        value = action_value(entry["action"], entry.get("errnoRet"))
        if not entry.get("names"):
            raise ProfileError("empty string is not a valid syscall")
        alternatives = _alternatives(entry.get("args") or [])
        if value == default:
            continue
        for name in entry["names"]:
            rules.setdefault(name, []).extend((conditions, value) for conditions in alternatives)
    return rules


def _alternatives(args: list[dict[str, Any]]) -> list[tuple[Condition, ...]]:
    conditions: list[Condition] = []
    for arg in args:
        if arg["op"] not in OPERATORS:
            raise ProfileError(f"string {arg['op']} is not a valid operator for seccomp")
        if not 0 <= arg["index"] <= 5:
            raise ProfileError(f"argument index {arg['index']} is out of range for seccomp")
        conditions.append((arg["index"], arg["op"], arg["value"], arg.get("valueTwo") or 0))
    if len({condition[0] for condition in conditions}) < len(conditions):
        # libseccomp cannot test an argument twice in one rule; runc makes it one rule per test, so do we.
        return [(condition,) for condition in conditions]
    return [tuple(conditions)]


def _ranges(table: str, rules: dict[str, list[Rule]], default: int) -> list[tuple[int, Body]]:
    """Return [(first number, body)] in ascending order; a body reaches to the next entry."""
    _, _, bit = next(entry for entry in ARCHITECTURES.values() if entry[0] == table)
    from satsuma.linux.syscall_table import numbers

    table_numbers = numbers(table)
    bodies: dict[int, Body] = {}
    last = -1
    for name, found in rules.items():
        number = table_numbers.get(name)
        if number is None:  # not a system call of this architecture
            continue
        last = max(last, number)
        body: list[Rule] = []
        for rule in found:
            body.append(rule)
            if not rule[0]:
                break
        bodies[number] = tuple(body)
    ranges: list[tuple[int, Body]] = [(bit, ())]
    for number, rest in sorted(bodies.items()):
        _append_range(ranges, number | bit, rest)
        if number + 1 not in bodies:
            _append_range(ranges, (number + 1) | bit, ())
    # A call that the author of the profile could not know must look like an old kernel: glibc falls back on
    # ENOSYS, not on EPERM.  Only for filters that refuse by default (runc patchbpf).
    action = default & 0xFFFF0000
    if (
        last >= 0
        and (action == ACTIONS["SCMP_ACT_ERRNO"] or default in _KILLS)
        and default & 0xFFFF != _ENOSYS
    ):
        _append_range(ranges, (last + 1) | bit, (((), ACTIONS["SCMP_ACT_ERRNO"] | _ENOSYS),))
    return ranges


_KILLS = (ACTIONS["SCMP_ACT_KILL"], ACTIONS["SCMP_ACT_KILL_PROCESS"], ACTIONS["SCMP_ACT_TRAP"])


def _append_range(ranges: list[tuple[int, Body]], start: int, body: Body) -> None:
    if ranges[-1][0] == start:
        ranges[-1] = (start, body)
        if len(ranges) > 1 and ranges[-2][1] == body:
            ranges.pop()
    elif ranges[-1][1] != body:
        ranges.append((start, body))


def _section(asm: _Assembler, table: str, rules: dict[str, list[Rule]], default: int) -> int:
    """Assemble the search over one architecture; return its label.  The number is in the accumulator."""
    ranges = _ranges(table, rules, default)
    labels: dict[Body, int] = {}

    def body_label(body: Body) -> int:
        # Bodies are shared, unless the common one is too far away: a `ret` is as short as a `ja` to it.
        if body in labels and len(asm.instructions) - labels[body] < 240:
            return labels[body]
        labels[body] = _assemble_body(asm, body, default)
        return labels[body]

    def search(low: int, high: int) -> int:
        if high - low == 1:
            return body_label(ranges[low][1])
        middle = (low + high) // 2
        above = search(middle, high)
        below = search(low, middle)
        return asm.branch(_JGE, ranges[middle][0], above, below)

    return search(0, len(ranges))


def _assemble_body(asm: _Assembler, body: Body, default: int) -> int:
    label = 0
    if not body or body[-1][0]:
        label = asm.add(_RET, default)
    for conditions, value in reversed(body):
        miss = label
        label = asm.add(_RET, value)
        for condition in reversed(conditions):
            label = _assemble_condition(asm, condition, label, miss)
    return label


def _assemble_condition(asm: _Assembler, condition: Condition, hit: int, miss: int) -> int:
    """64-bit comparison of an argument by its two halves, high one first."""
    index, op, value, value_two = condition
    low, high = _ARGS + 8 * index, _ARGS + 8 * index + 4
    if op == "SCMP_CMP_MASKED_EQ":
        lower = asm.branch(_JEQ, value_two & value, hit, miss)
        asm.add(_AND, value)
        lower = asm.add(_LD_W_ABS, low)
        asm.branch(_JEQ, (value_two & value) >> 32, lower, miss)
        asm.add(_AND, value >> 32)
        return asm.add(_LD_W_ABS, high)
    if op in ("SCMP_CMP_NE", "SCMP_CMP_LT", "SCMP_CMP_LE"):
        # The opposite test with the outcomes exchanged.
        op = {"SCMP_CMP_NE": "SCMP_CMP_EQ", "SCMP_CMP_LT": "SCMP_CMP_GE", "SCMP_CMP_LE": "SCMP_CMP_GT"}[op]
        hit, miss = miss, hit
    code = {"SCMP_CMP_EQ": _JEQ, "SCMP_CMP_GE": _JGE, "SCMP_CMP_GT": _JGT}[op]
    asm.branch(code, value, hit, miss)
    lower = asm.add(_LD_W_ABS, low)
    equal = asm.branch(_JEQ, value >> 32, lower, miss)
    if code != _JEQ:
        asm.branch(_JGT, value >> 32, hit, equal)
    return asm.add(_LD_W_ABS, high)


def verdict(program: bytes, number: int, args: tuple[int, ...] = ()) -> int:
    """Return what a compiled filter answers to one call by our own architecture's number.

    Raises:
        ProfileError: the program is not one of ours.
    """
    data = [number, ARCHITECTURES[NATIVE[syscalls.MACHINE]][1], 0, 0]
    for arg in (*args, 0, 0, 0, 0, 0, 0)[:6]:
        data += (arg & 0xFFFFFFFF, arg >> 32 & 0xFFFFFFFF)
    position = accumulator = 0
    while position < len(program) // 8:
        code, true, false, k = _INSTRUCTION.unpack_from(program, position * 8)
        position += 1
        if code == _LD_W_ABS:
            accumulator = data[k // 4]
        elif code == _RET:
            return int(k)
        elif code == _JA:
            position += k
        elif code == _AND:
            accumulator &= k
        else:
            holds = {_JEQ: accumulator == k, _JGT: accumulator > k, _JGE: accumulator >= k}.get(code)
            if holds is None:
                break
            position += true if holds else false
    raise ProfileError("not a seccomp filter of ours")


def filter_flags(profile: Profile) -> int:
    """Return the flag bits for seccomp(2).

    Raises:
        ProfileError: unknown ones, or one that says how an agent is waited for, and no agent is asked.
    """
    flags = profile.get("flags")
    if flags is None:
        # runc sets it when the kernel knows it (4.17): without it every filter costs a slower machine mode.
        return FLAGS["SECCOMP_FILTER_FLAG_SPEC_ALLOW"]
    bits = 0
    for flag in flags:
        if flag not in FLAGS:
            raise ProfileError(f"seccomp flag {flag!r} is not known or not supported")
        bits |= FLAGS[flag]
    if bits & FLAGS["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"] and not asks(profile):
        raise ProfileError("SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV without an action SCMP_ACT_NOTIFY")
    return bits


def asks(profile: Profile) -> bool:
    """Tell whether an agent must be asked, as the profile's `listenerPath` says.

    Raises:
        ProfileError: there is no agent, or it would be asked about what we need ourselves.
    """
    rules = [rule for rule in profile.get("syscalls") or [] if rule.get("action") == "SCMP_ACT_NOTIFY"]
    path = profile.get("listenerPath") or ""
    if profile.get("listenerMetadata") and not path:
        raise ProfileError("listenerMetadata without listenerPath")
    if profile["defaultAction"] == "SCMP_ACT_NOTIFY":
        raise ProfileError("SCMP_ACT_NOTIFY cannot be used as default action")
    if any("write" in rule.get("names", ()) for rule in rules):
        # Whoever waits for the container would wait for the agent (runc has the same rule).
        raise ProfileError("SCMP_ACT_NOTIFY cannot be used for the write syscall")
    if rules and not path:
        raise ProfileError("SCMP_ACT_NOTIFY without listenerPath")
    if path and (not isinstance(path, str) or not path.startswith("/")):
        raise ProfileError("listenerPath must be absolute")
    return bool(rules)


class _Fprog(ctypes.Structure):
    _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.c_void_p)]


class Program:
    """A filter ready to load; holds the memory which the kernel reads."""

    __slots__ = ("_buffer", "_fprog", "address")

    def __init__(self, bpf: bytes) -> None:
        if len(bpf) % 8 or not bpf:
            raise ProfileError("a BPF program is a multiple of 8 bytes")
        self._buffer = ctypes.create_string_buffer(bpf, len(bpf))
        self._fprog = _Fprog(len(bpf) // 8, ctypes.addressof(self._buffer))
        self.address = ctypes.addressof(self._fprog)

    def load(self, flags: int = 0) -> int:
        """SECCOMP_SET_MODE_FILTER; return the listener's descriptor if *flags* has NEW_LISTENER, else 0.

        Needs: CAP_SYS_ADMIN, or no_new_privs set.
        """
        if flags & NEW_LISTENER and flags & FLAGS["SECCOMP_FILTER_FLAG_TSYNC"]:
            flags |= _TSYNC_ESRCH  # both return a number otherwise
        return syscalls.seccomp(1, flags, self.address)
