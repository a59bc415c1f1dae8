"""Where clients come in: unix sockets, TCP, and sockets that systemd hands over.

Owns parsing of `-H` values and making listening sockets.  Must not know HTTP.

Source: docker/cli `-H`; sd_listen_fds(3); moby daemon/listeners.
"""

from __future__ import annotations

import errno
import grp
import logging
import os
import socket
import stat
from dataclasses import dataclass

from satsuma.base.errors import InvalidParameter, System

_log = logging.getLogger("satsuma.api")

LISTEN_FDS_START = 3
DEFAULT_TCP_PORT = 2375
SOCKET_MODE = 0o660


@dataclass(frozen=True, slots=True)
class Host:
    """One `-H` value: kind unix (address = path), tcp (address = host, port) or fd (address = number or "")."""

    kind: str
    address: str
    port: int = 0

    def __str__(self) -> str:
        if self.kind != "tcp":
            return f"{self.kind}://{self.address}"
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"tcp://{host}:{self.port}"


def parse_host(text: str) -> Host:
    """Parse `unix:///path`, `tcp://host:port`, `fd://`, `fd://3`, or a bare `/path`.

    Raises:
        InvalidParameter: anything else.
    """
    kind, separator, address = text.partition("://")
    if not separator:
        kind, address = ("unix", text) if text.startswith("/") else ("", "")
    if kind == "unix" and address.startswith("/"):
        return Host("unix", address)
    if kind == "fd" and (address in ("", "*") or (address.isascii() and address.isdigit())):
        return Host("fd", "" if address == "*" else address)
    if kind == "tcp":
        return _parse_tcp(text, address.rstrip("/"))
    raise InvalidParameter(f"invalid bind address format: {text}")


def _parse_tcp(text: str, address: str) -> Host:
    if address.startswith("["):
        host, bracket, rest = address[1:].partition("]")
        port_text = rest.removeprefix(":") if bracket and rest[:1] in ("", ":") else "x"
    else:
        host, _, port_text = address.partition(":")
    port_text = port_text or str(DEFAULT_TCP_PORT)
    if not (port_text.isascii() and port_text.isdigit()) or int(port_text) > 65535 or "/" in host:
        raise InvalidParameter(f"invalid bind address format: {text}")
    return Host("tcp", host or "localhost", int(port_text))


def open_sockets(host: Host, *, group: str = "docker") -> list[socket.socket]:
    """Return bound sockets of a host, not yet listening (those of systemd already do).

    Args:
        group: owner group of a unix socket; one that does not exist is passed over if it is the default.
    Raises:
        System: the address cannot be had.
        InvalidParameter: the group does not exist, or systemd passed no socket.
    """
    try:
        if host.kind == "unix":
            return [_bind_unix(host.address, group)]
        if host.kind == "tcp":
            return _bind_tcp(host)
    except OSError as error:
        raise System(f"failed to listen on {host}: {error.strerror or error}") from error
    return _inherited(host)


def _bind_unix(path: str, group: str) -> socket.socket:
    gid = _group_id(group)
    os.makedirs(os.path.dirname(path) or "/", mode=0o755, exist_ok=True)
    try:
        if stat.S_ISSOCK(os.lstat(path).st_mode):
            if _is_alive(path):
                raise OSError(errno.EADDRINUSE, "another process answers there")
            os.unlink(path)
    except FileNotFoundError:
        pass
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(path)
        # Nobody can connect before listen(2), so there is no moment in which the socket is open to more than it
        # shall be, whatever the umask.
        os.chown(path, 0 if os.geteuid() == 0 else -1, gid)
        os.chmod(path, SOCKET_MODE)
    except BaseException:
        sock.close()
        raise
    return sock


def _is_alive(path: str) -> bool:
    """Tell whether somebody listens on a unix socket; that of a dead process refuses."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # a listener whose backlog is full is EAGAIN, and alive
        return probe.connect_ex(path) not in (errno.ECONNREFUSED, errno.ENOENT)


def identity(path: str) -> tuple[int, int] | None:
    """Return what tells the file at *path* from another one there later; None when there is none."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _group_id(group: str) -> int:
    if not group or os.geteuid() != 0:
        return -1
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        if group.isascii() and group.isdigit():
            return int(group)
        if group == "docker":
            return 0
        raise InvalidParameter(f"group {group} not found") from None


def _bind_tcp(host: Host) -> list[socket.socket]:
    _log.warning("the API on %s is open to everyone who can reach it, and with it root on this host", host)
    found = socket.getaddrinfo(
        host.address, host.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_NUMERICSERV
    )
    sockets: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in found:
            sock = socket.socket(family, kind, protocol)
            sockets.append(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind(address)
    except BaseException:
        for sock in sockets:
            sock.close()
        raise
    return sockets


def _inherited(host: Host) -> list[socket.socket]:
    count = os.environ.get("LISTEN_FDS", "") if os.environ.get("LISTEN_PID") == str(os.getpid()) else ""
    fds = (
        list(range(LISTEN_FDS_START, LISTEN_FDS_START + int(count)))
        if count.isascii() and count.isdigit()
        else []
    )
    if host.address:
        fds = [fd for fd in fds if fd == int(host.address)]
    if not fds:
        raise InvalidParameter(
            "no sockets found via socket activation: make sure the service was started by systemd"
        )
    sockets = []
    for fd in fds:
        os.set_inheritable(fd, False)
        sockets.append(socket.socket(fileno=fd))
    return sockets
