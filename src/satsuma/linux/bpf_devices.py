"""Device rules of a v2 cgroup as an eBPF program.

Rules are applied like the devices controller of v1: the last one that matches an access decides, the default
is to deny.

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
_F_ALLOW_MULTI = 2

_ACCESS = {"m": 1, "r": 2, "w": 4}
_TYPE = {"b": 1, "c": 2}

# Registers: 1 context, 2 device type, 3 access, 4 major, 5 minor, 6 scratch.
_LDX_W, _AND_K, _RSH_K, _MOV_X, _MOV_K = 0x61, 0x54, 0x74, 0xBF, 0xB7
_JNE_K, _EXIT, _JA = 0x55, 0x95, 0x05


def _instruction(code: int, dst: int = 0, src: int = 0, offset: int = 0, imm: int = 0) -> bytes:
    return struct.pack("<BBhi", code, dst | src << 4, offset, imm if imm < 1 << 31 else imm - (1 << 32))


def compile_rules(rules: list[Rule]) -> bytes:
    """Return the eBPF instructions for *rules*, given in the order in which v1 would apply them."""
    program = [
        _instruction(_LDX_W, 2, 1, 0),  # access_type: low half the type, high half the access
        _instruction(_MOV_X, 3, 2),
        _instruction(_AND_K, 2, imm=0xFFFF),
        _instruction(_RSH_K, 3, imm=16),
        _instruction(_LDX_W, 4, 1, 4),
        _instruction(_LDX_W, 5, 1, 8),
    ]
    for allow, kind, major, minor, access in reversed(rules):
        tests = []
        if kind != "a":
            tests.append(_instruction(_JNE_K, 2, imm=_TYPE[kind]))
        bits = sum(_ACCESS[letter] for letter in set(access))
        if bits != 7 and bits:
            # An allow rule must cover all of the access, a deny rule any of it.
            tests.append(_instruction(_MOV_X, 6, 3))
            tests.append(_instruction(_AND_K, 6, imm=(~bits if allow else bits) & 7))
            tests.append(_instruction(_JNE_K if allow else 0x15, 6, imm=0))
        if major is not None:
            tests.append(_instruction(_JNE_K, 4, imm=major))
        if minor is not None:
            tests.append(_instruction(_JNE_K, 5, imm=minor))
        length = len(tests) + 2
        for position, test in enumerate(tests):
            if test[0] in (_JNE_K, 0x15):
                test = test[:2] + struct.pack("<h", length - position - 1) + test[4:]
            program.append(test)
        program += [_instruction(_MOV_K, 0, imm=int(allow)), _instruction(_EXIT)]
        if not tests:
            return b"".join(program)
    program += [_instruction(_MOV_K, 0, imm=0), _instruction(_EXIT)]
    return b"".join(program)


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
    """Attach a program for *rules* to the cgroup, then detach those that were there.

    Attached first and detached second, so that there is no moment without rules; both must allow meanwhile.
    """
    before = _attached(cgroup_fd)
    fd = load(compile_rules(rules))
    try:
        attr = struct.pack("<IIII", cgroup_fd, fd, _CGROUP_DEVICE, _F_ALLOW_MULTI)
        syscalls.bpf(_BPF_PROG_ATTACH, ctypes.create_string_buffer(attr, 64))
    finally:
        os.close(fd)
    for prog_id in before:
        old = syscalls.bpf(
            _BPF_PROG_GET_FD_BY_ID, ctypes.create_string_buffer(struct.pack("<I", prog_id), 64)
        )
        try:
            attr = struct.pack("<III", cgroup_fd, old, _CGROUP_DEVICE)
            syscalls.bpf(_BPF_PROG_DETACH, ctypes.create_string_buffer(attr, 64))
        finally:
            os.close(old)
