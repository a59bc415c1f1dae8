"""Pseudo terminals: opened from a given devpts, sized, made the controlling terminal, set to raw mode.

Source: pty(7), ioctl_tty(2), CVE-2025-52565 (why the slave is never opened by path).
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import termios

from satsuma.linux import syscalls

_TIOCGPTPEER = 0x5441
_TIOCSPTLCK = 0x40045431
_TIOCGPTN = 0x80045430


def open_pair(ptmx: int) -> tuple[int, int]:
    """Return (slave descriptor, pty number) of the master that is open as *ptmx*.

    Raises:
        OSError: ENODEV when *ptmx* is not a master on a devpts file system.
    """
    if syscalls.fstatfs(ptmx)[0] != syscalls.DEVPTS_SUPER_MAGIC:
        raise OSError(errno.ENODEV, "ptmx is not on a devpts file system")
    fcntl.ioctl(ptmx, _TIOCSPTLCK, struct.pack("i", 0))
    number: int = struct.unpack("I", fcntl.ioctl(ptmx, _TIOCGPTN, bytes(4)))[0]
    slave = fcntl.ioctl(ptmx, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    return slave, number


def open_host_pair() -> tuple[int, int]:
    """Open a new pty of the caller's own devpts: (master, slave)."""
    master = os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        return master, open_pair(master)[0]
    except OSError:
        os.close(master)
        raise


def set_size(fd: int, height: int, width: int) -> None:
    """TIOCSWINSZ: rows and columns."""
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", height & 0xFFFF, width & 0xFFFF, 0, 0))


def get_size(fd: int) -> tuple[int, int]:
    """TIOCGWINSZ: (height, width)."""
    height, width, _, _ = struct.unpack("HHHH", fcntl.ioctl(fd, termios.TIOCGWINSZ, bytes(8)))
    return height, width


def set_controlling(fd: int) -> None:
    """TIOCSCTTY: make *fd* the controlling terminal; the caller must be a session leader."""
    fcntl.ioctl(fd, termios.TIOCSCTTY, 0)


def set_raw(fd: int) -> list[object]:
    """cfmakeraw(3); return the former attributes for `restore`."""
    before = termios.tcgetattr(fd)
    mode = termios.tcgetattr(fd)
    mode[0] &= ~(
        termios.IGNBRK
        | termios.BRKINT
        | termios.PARMRK
        | termios.ISTRIP
        | termios.INLCR
        | termios.IGNCR
        | termios.ICRNL
        | termios.IXON
    )
    mode[1] &= ~termios.OPOST
    mode[2] = mode[2] & ~(termios.CSIZE | termios.PARENB) | termios.CS8
    mode[3] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
    mode[6][termios.VMIN], mode[6][termios.VTIME] = 1, 0
    termios.tcsetattr(fd, termios.TCSANOW, mode)
    return list(before)


def restore(fd: int, attributes: list[object]) -> None:
    """Set the attributes which `set_raw` returned."""
    termios.tcsetattr(fd, termios.TCSANOW, attributes)  # type: ignore[arg-type]
