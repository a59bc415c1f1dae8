"""Device rules of a v2 cgroup as an eBPF program.

The last rule that matches an access decides, the default is to deny.

Source: Documentation/admin-guide/cgroup-v2.rst "Device controller", include/uapi/linux/bpf.h.
"""

from __future__ import annotations

import ctypes
import os
import struct

from satsuma.linux import syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    # (allow, type "a" "b" "c", major or None, minor or None, access letters of "rwm")
    Rule = tuple[bool, str, int | None, int | None, str]

_BPF_PROG_LOAD, _BPF_PROG_ATTACH, _BPF_PROG_DETACH, _BPF_PROG_QUERY = 5, 8, 9, 16
_BPF_PROG_GET_FD_BY_ID = 13
_PROG_TYPE_CGROUP_DEVICE, _CGROUP_DEVICE = 15, 6
_F_ALLOW_MULTI, _F_REPLACE = 2, 4

_ACCESS = {"m": 1, "r": 2, "w": 4}
_TYPE = {"b": 1, "c": 2}

# Registers: 1 context, 2 device type, 3 access, 4 major, 5 minor, 6 scratch.
_LDX_W, _AND_K, _RSH_K, _MOV_X, _MOV_K = 0x61, 0x54, 0x74, 0xBF, 0xB7
_JNE_K, _JEQ_K, _EXIT = 0x55, 0x15, 0x95


def _instruction(code: int, dst: int = 0, src: int = 0, offset: int = 0, imm: int = 0) -> bytes:
    return struct.pack("<BBhi", code, dst | src << 4, offset, imm if imm < 1 << 31 else imm - (1 << 32))


def compile_rules(rules: list[Rule]) -> bytes:
    """Return the eBPF instructions for *rules*, given in the order in which they count.

    Each letter of an access is decided by the last rule that matches the device and names the letter, so the
    program goes through the rules from the last to the first and strikes out what is allowed.  (The v1
    controller wants a single rule that covers all letters, unless the numbers are the same; who may read and
    write by two rules can open twice as well.)
    """
    program = [
        _instruction(_LDX_W, 2, 1, 0),  # access_type: low half the type, high half the access
        _instruction(_MOV_X, 3, 2),
        _instruction(_AND_K, 2, imm=0xFFFF),
        _instruction(_RSH_K, 3, imm=16),
        _instruction(_LDX_W, 4, 1, 4),
        _instruction(_LDX_W, 5, 1, 8),
    ]
    for rule in reversed(rules):
        tests, verdict = _compile_rule(rule)
        # Every test that fails leads to the next rule.
        for position, (code, register, imm) in enumerate(tests):
            program.append(_instruction(code, register, 0, len(tests) - position - 1 + len(verdict), imm))
        program += verdict
        if rule[1] == "a" and len(verdict) == 2:
            return b"".join(program)
    return b"".join([*program, _instruction(_MOV_K, 0, imm=0), _instruction(_EXIT)])


def _compile_rule(rule: Rule) -> tuple[list[tuple[int, int, int]], list[bytes]]:
    """Return the tests (jump code, register, value) for the device, and what follows when it matches."""
    allow, kind, major, minor, access = rule
    tests = [] if kind == "a" else [(_JNE_K, 2, _TYPE[kind])]
    tests += [
        (_JNE_K, register, number) for register, number in ((4, major), (5, minor)) if number is not None
    ]
    bits = sum(_ACCESS[letter] for letter in set(access))
    answer = [_instruction(_MOV_K, 0, imm=int(allow)), _instruction(_EXIT)]
    if bits == 7:
        return tests, answer
    if allow:
        # Nothing left to decide: allowed.
        return tests, [_instruction(_AND_K, 3, imm=~bits & 7), _instruction(_JNE_K, 3, 0, 2, 0), *answer]
    return tests, [
        _instruction(_MOV_X, 6, 3),
        _instruction(_AND_K, 6, imm=bits),
        _instruction(_JEQ_K, 6, 0, 2, 0),
        *answer,
    ]


def load(instructions: bytes) -> int:
    """Load a program; return its descriptor.

    Needs: CAP_BPF or CAP_SYS_ADMIN in the initial user namespace.
    """
    code = ctypes.create_string_buffer(instructions, len(instructions))
    licence = ctypes.create_string_buffer(b"Apache-2.0")
    attr = struct.pack(
        "<IIQQIIQIIQ",
        _PROG_TYPE_CGROUP_DEVICE,
        len(instructions) // 8,
        ctypes.addressof(code),
        ctypes.addressof(licence),
        0,
        0,
        0,
        0,
        0,
        0,
    )
    fd = syscalls.bpf(_BPF_PROG_LOAD, ctypes.create_string_buffer(attr, 128))
    os.set_inheritable(fd, False)
    return fd


def _attached(cgroup_fd: int) -> list[int]:
    ids = (ctypes.c_uint32 * 64)()
    attr = ctypes.create_string_buffer(
        struct.pack("<IIIIQI", cgroup_fd, _CGROUP_DEVICE, 0, 0, ctypes.addressof(ids), 64), 64
    )
    syscalls.bpf(_BPF_PROG_QUERY, attr)
    count: int = struct.unpack_from("<I", attr.raw, 24)[0]
    return list(ids[:count])


def replace(cgroup_fd: int, rules: list[Rule]) -> None:
    """Make *rules* the only ones of the cgroup itself (those of groups above it hold as well).

    A single program is exchanged in one step.  Otherwise the new one is attached first and the old ones are
    detached second: there is no moment without rules, both must allow meanwhile.
    """
    before = [_program(prog_id) for prog_id in _attached(cgroup_fd)]
    fd = load(compile_rules(rules))
    try:
        if len(before) == 1:
            try:
                _attach(cgroup_fd, fd, _F_ALLOW_MULTI | _F_REPLACE, before[0])
                return
            except OSError:  # before Linux 5.6
                pass
        _attach(cgroup_fd, fd, _F_ALLOW_MULTI, 0)
        for old in before:
            attr = struct.pack("<III", cgroup_fd, old, _CGROUP_DEVICE)
            syscalls.bpf(_BPF_PROG_DETACH, ctypes.create_string_buffer(attr, 64))
    finally:
        for opened in (fd, *before):
            os.close(opened)


def _program(prog_id: int) -> int:
    fd = syscalls.bpf(_BPF_PROG_GET_FD_BY_ID, ctypes.create_string_buffer(struct.pack("<I", prog_id), 64))
    os.set_inheritable(fd, False)
    return fd


def _attach(cgroup_fd: int, fd: int, flags: int, instead_of: int) -> None:
    attr = struct.pack("<IIIII", cgroup_fd, fd, _CGROUP_DEVICE, flags, instead_of)
    syscalls.bpf(_BPF_PROG_ATTACH, ctypes.create_string_buffer(attr, 64))
