"""What a seccomp filter answers to a system call, asked of the kernel, without ever doing the call.

A second filter is laid over the one in question: it sends every call whose sixth argument is a magic number to a
listener (seccomp_unotify(2)), which answers it with an error that no system call has.  The kernel takes the
strictest answer, and an error of the first filter is stricter than a notification: what comes back is either the
first filter's errno, or the listener's "would be allowed".  So all numbers can be tried, reboot(2) included.

Run as a program it prints the vector of its own process, for the architectures in its arguments or for all, one
line a call: architecture, number, first argument, second argument, errno (0: allowed).  It needs nothing but
Python's standard library.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import struct
import sys
import threading
from collections.abc import Iterable, Iterator

MAGIC = 0x5EC0C0DE
ALLOWED = 777
"""The listener's answer; errno values end at 133."""
X32 = 0x40000000
ARCHITECTURES = ("x86_64", "x86", "x32")
UNFILTERED = {("x86_64", 335), ("x86_64", 336)}
"""uretprobe and uprobe: trampolines of the kernel, which no filter ever sees (kernel/seccomp.c)."""
MOST = {"x86_64": 600, "x86": 600, "x32": 600}

_NR_SECCOMP, _NR_PRCTL = 317, 157
_IOCTL_RECV, _IOCTL_SEND = 0xC0502100, 0xC0182101
_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_libc.ioctl.argtypes = [ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p]

Question = tuple[str, int, int, int]
"""(architecture, number without the bit of x32, first argument, second argument)"""


def overlay_filter() -> bytes:
    """NOTIFY for calls with the magic sixth argument, ALLOW for all others."""
    return b"".join(
        struct.pack("<HBBI", *instruction)
        for instruction in (
            (0x20, 0, 0, 16 + 5 * 8),
            (0x15, 0, 1, MAGIC),
            (0x06, 0, 0, 0x7FC00000),
            (0x06, 0, 0, 0x7FFF0000),
        )
    )


def install(program: bytes, flags: int = 0) -> int:
    """seccomp(2) SECCOMP_SET_MODE_FILTER."""

    class Fprog(ctypes.Structure):
        _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.c_void_p)]

    buffer = ctypes.create_string_buffer(program, len(program))
    fprog = Fprog(len(program) // 8, ctypes.addressof(buffer))
    result = _libc.syscall(
        ctypes.c_long(_NR_SECCOMP), ctypes.c_long(1), ctypes.c_long(flags), ctypes.byref(fprog)
    )
    if result < 0:
        raise OSError(ctypes.get_errno(), "seccomp")
    return int(result)


class _Int80:
    """int $0x80 with the number and arguments in registers: a call of the 32-bit architecture."""

    CODE = bytes.fromhex(
        "53"  # push rbx
        "55"  # push rbp
        "89f8"  # mov eax, edi
        "89f3"  # mov ebx, esi
        "89d1"  # mov ecx, edx
        "31d2"  # xor edx, edx
        "31f6"  # xor esi, esi
        "31ff"  # xor edi, edi
        "bd"
        + struct.pack("<I", MAGIC).hex()  # mov ebp, MAGIC
        + "cd80"  # int 0x80
        "4863c0"  # movsxd rax, eax
        "5d"  # pop rbp
        "5b"  # pop rbx
        "c3"  # ret
    )

    def __init__(self) -> None:
        self._page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        self._page.write(self.CODE)
        address = ctypes.addressof(ctypes.c_char.from_buffer(self._page))
        prototype = ctypes.CFUNCTYPE(ctypes.c_long, ctypes.c_uint, ctypes.c_uint, ctypes.c_uint)
        self.call = prototype(address)


def _serve(listener: int) -> None:
    notification = ctypes.create_string_buffer(80)
    while True:
        ctypes.memset(notification, 0, 80)
        if _libc.ioctl(listener, _IOCTL_RECV, notification) < 0:
            return
        identity = struct.unpack_from("<Q", notification, 0)[0]
        answer = ctypes.create_string_buffer(struct.pack("<QqiI", identity, 0, -ALLOWED, 0), 24)
        _libc.ioctl(listener, _IOCTL_SEND, answer)


def ask(questions: Iterable[Question]) -> Iterator[tuple[Question, int]]:
    """Yield each question with the errno of this process's filters, 0 for "allowed".

    The process must run the listener in a thread of its own, started before the filter that notifies is laid.
    """
    ready = threading.Event()
    listener: list[int] = []

    def supervise() -> None:
        ready.wait()
        _serve(listener[0])

    # The filter is of the thread that lays it: the supervisor, which exists already, is free of it.
    threading.Thread(target=supervise, daemon=True).start()
    int80 = _Int80()
    _libc.syscall(ctypes.c_long(_NR_PRCTL), *(ctypes.c_long(a) for a in (38, 1, 0, 0, 0)))
    listener.append(install(overlay_filter(), 8))
    ready.set()
    long = ctypes.c_long
    for question in questions:
        arch, number, first, second = question
        if arch == "x86":
            result = int80.call(number, first & 0xFFFFFFFF, second & 0xFFFFFFFF)
            error = -result if result < 0 else 0
        else:
            full = number | (X32 if arch == "x32" else 0)
            ctypes.set_errno(0)
            args = (full, first, second, 0, 0, 0, MAGIC)
            result = _libc.syscall(*(long(a - (1 << 64) if a >= 1 << 63 else a) for a in args))
            error = ctypes.get_errno() if result == -1 else 0
        assert error, question
        yield question, 0 if error == ALLOWED else error


def every_number() -> Iterator[Question]:
    """Yield all numbers of all architectures with arguments of zero, then the calls that have rules on arguments."""
    for arch in ARCHITECTURES:
        for number in range(MOST[arch]):
            if (arch, number) not in UNFILTERED:
                yield arch, number, 0, 0
    # socket, personality, clone by architecture.
    for arch, socket, personality, clone in (
        ("x86_64", 41, 135, 56),
        ("x86", 359, 136, 120),
        ("x32", 41, 135, 56),
    ):
        for domain in (1, 2, 10, 16, 17, 37, 38, 39, 40, 41, 45, 99, 1 << 31):
            yield arch, socket, domain, 0
        for persona in (0, 1, 8, 9, 0x20000, 0x20001, 0x20008, 0x40000, 0xFFFFFFFE, 0xFFFFFFFF):
            yield arch, personality, persona, 0
        for flags in (
            *(17, 0x1200011, 0x3D0F00, 0x8000, 0x00020000, 0x02000000, 0x04000000, 0x08000000),
            *(0x10000000, 0x20000000, 0x40000000, 0x7E020000, 0x80000000, 0x80),
        ):
            yield arch, clone, flags, 0
            yield arch, clone, 0, flags


def in_child(questions: list[Question], filters: Iterable[bytes], *, nice: int = 30) -> dict[Question, int]:
    """Ask in a child process that has loaded *filters*."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(read)
            signal.alarm(nice)
            # The supervising thread must be free of the filters in question as well: it is started by `ask`,
            # so they are laid afterwards, by a generator that is entered first.
            with os.fdopen(write, "w") as out:
                for (arch, number, first, second), error in ask(_after(filters, questions)):
                    out.write(f"{arch} {number} {first} {second} {error}\n")
            os._exit(0)
        except BaseException as error:
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
            os._exit(1)
    os.close(write)
    with os.fdopen(read) as lines:
        answers = parse(lines)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    return answers


def _after(filters: Iterable[bytes], questions: list[Question]) -> Iterator[Question]:
    for program in filters:
        install(program)
    yield from questions


def parse(lines: Iterable[str]) -> dict[Question, int]:
    """Read what the program prints."""
    answers = {}
    for line in lines:
        arch, *numbers = line.split()
        number, first, second, error = map(int, numbers)
        answers[(arch, number, first, second)] = error
    return answers


if __name__ == "__main__":
    wanted = sys.argv[1:] or ARCHITECTURES
    for (arch_, number_, first_, second_), error_ in ask(q for q in every_number() if q[0] in wanted):
        sys.stdout.write(f"{arch_} {number_} {first_} {second_} {error_}\n")
