"""Capabilities: names, masks, and the five sets of the calling thread.

Source: capabilities(7), include/uapi/linux/capability.h.
"""

from __future__ import annotations

import errno

from satsuma.linux import prctl, syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

# In the order of their numbers.
NAMES = tuple(
    "CAP_" + name
    for name in (
        "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE "
        "NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT "
        "SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE "
        "AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ "
        "PERFMON BPF CHECKPOINT_RESTORE"
    ).split()
)
NUMBERS = {name: number for number, name in enumerate(NAMES)}
SYS_ADMIN = 1 << NUMBERS["CAP_SYS_ADMIN"]
SETPCAP = 1 << NUMBERS["CAP_SETPCAP"]


def mask(names: Iterable[str]) -> tuple[int, list[str]]:
    """Return (bit mask of the known *names*, the unknown names)."""
    bits = 0
    unknown = []
    for name in names:
        number = NUMBERS.get(name)
        if number is None:
            unknown.append(name)
        else:
            bits |= 1 << number
    return bits, unknown


def names(bits: int) -> list[str]:
    """Return the names in a mask, in the order of their numbers."""
    return [name for number, name in enumerate(NAMES) if bits >> number & 1]


def last_cap() -> int:
    """Return the highest capability number of the running kernel."""
    with open("/proc/sys/kernel/cap_last_cap", "rb") as file:
        return int(file.read())


def bounding() -> int:
    """Return the bounding set of the calling thread as a mask."""
    bits = 0
    for number in range(64):
        try:
            if syscalls.prctl(prctl.PR_CAPBSET_READ, number):
                bits |= 1 << number
        except OSError:  # EINVAL: the kernel knows no such capability
            break
    return bits


def drop_bounding(keep: int) -> None:
    """Drop every capability that is not in *keep* from the bounding set.

    Needs: CAP_SETPCAP (only if there is something to drop).
    """
    for number in range(64):
        if keep >> number & 1:
            continue
        try:
            syscalls.prctl(prctl.PR_CAPBSET_DROP, number)
        except OSError as error:
            if error.errno == errno.EINVAL:  # the kernel knows no such capability, nor a higher one
                return
            if syscalls.prctl(prctl.PR_CAPBSET_READ, number):
                raise


def raise_ambient(bits: int) -> list[str]:
    """Put *bits* into the ambient set; return the names which the kernel refused."""
    syscalls.prctl(prctl.PR_CAP_AMBIENT, prctl.PR_CAP_AMBIENT_CLEAR_ALL)
    refused = []
    for name in names(bits):
        try:
            syscalls.prctl(prctl.PR_CAP_AMBIENT, prctl.PR_CAP_AMBIENT_RAISE, NUMBERS[name])
        except OSError:
            refused.append(name)
    return refused
