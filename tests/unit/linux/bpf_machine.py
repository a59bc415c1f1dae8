"""A machine for classic BPF and for the few eBPF instructions of a device program."""

from __future__ import annotations

import struct


def run_classic(program: bytes, nr: int, arch: int, args: tuple[int, ...] = ()) -> int:
    """Run a seccomp filter on one call; return its verdict."""
    padded = (*args, *(0,) * (6 - len(args)))
    data = struct.pack("<IIQ6Q", nr & 0xFFFFFFFF, arch, 0, *(a & (1 << 64) - 1 for a in padded))
    code = [struct.unpack_from("<HBBI", program, offset) for offset in range(0, len(program), 8)]
    pc = accumulator = 0
    while True:
        op, true, false, k = code[pc]
        pc += 1
        if op == 0x20:
            accumulator = struct.unpack_from("<I", data, k)[0]
        elif op == 0x06:
            return k
        elif op == 0x05:
            pc += k
        elif op == 0x54:
            accumulator &= k
        elif op in (0x15, 0x25, 0x35):
            hit = {0x15: accumulator == k, 0x25: accumulator > k, 0x35: accumulator >= k}[op]
            pc += true if hit else false
        else:
            raise AssertionError(f"unknown instruction {op:#x}")


def run_device(program: bytes, kind: str, access: str, major: int, minor: int) -> bool:
    """Run a device program on one access."""
    bits = sum({"m": 1, "r": 2, "w": 4}[letter] for letter in access)
    context = struct.pack("<III", {"b": 1, "c": 2}[kind] | bits << 16, major, minor)
    registers = [0] * 11
    pc = 0
    while True:
        op, regs, offset, imm = struct.unpack_from("<BBhi", program, pc * 8)
        dst, src = regs & 15, regs >> 4
        pc += 1
        if op == 0x61:
            registers[dst] = struct.unpack_from("<I", context, offset)[0]
        elif op == 0xBF:
            registers[dst] = registers[src]
        elif op == 0xB7:
            registers[dst] = imm
        elif op == 0x54:
            registers[dst] &= imm & 0xFFFFFFFF
        elif op == 0x74:
            registers[dst] >>= imm
        elif op == 0x55:
            pc += offset if registers[dst] != imm else 0
        elif op == 0x15:
            pc += offset if registers[dst] == imm else 0
        elif op == 0x95:
            return bool(registers[0])
        else:
            raise AssertionError(f"unknown instruction {op:#x}")
