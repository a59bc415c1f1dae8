"""The launcher: a program that imports everything once and then only forks.

    python -I -S -B …/monitor/launcher.py CGROUP_DRIVER FD EXEC_ROOT

FD is one end of a SOCK_SEQPACKET pair; the daemon holds the other.  Three requests, each with one descriptor,
the socket on which the answer goes back, so that any number can be under way:

    {"op": "launch"}   a child becomes a monitor, which reads the launch request from that socket
    {"op": "spare"}    the same ahead of time: the request comes when there is a container to start, or never.
                       Fork, the first touch of a few hundred shared pages and the settling take as long as the
                       rest of the monitor's share of a start; the next container does not wait for them
    {"op": "netns"}    the child makes a network namespace with lo up and sends two descriptors: the
                       namespace, and a NETLINK_ROUTE socket that was opened inside it

One process, one thread, no state: when it dies the daemon starts another, and no monitor notices.  It ends
when the daemon's end of the pair is closed.  Collected garbage is frozen and the collector is off, so that
the monitors share its pages; imports are shut off, so that nothing can be loaded later, by whoever's path.
"""

from __future__ import annotations

import fcntl
import gc
import os
import select
import signal
import socket
import struct
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from satsuma.monitor.backend import Backend

_SIOCGIFFLAGS = 0x8913
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 0x1
_NETLINK_ROUTE = 0
_IFREQ = struct.Struct("16sh14x")


def serve(sock: socket.socket, exec_root: str, new_backend: Callable[[], Backend]) -> None:
    """Fork for every request until the daemon has closed its end."""
    from satsuma.monitor import monitor, protocol, settle

    def launch(reply: socket.socket) -> None:
        settle.settle(exec_root)
        monitor.run(exec_root, reply, new_backend())

    def spare(reply: socket.socket) -> None:
        settle.settle(exec_root)
        backend = new_backend()
        if not _has_news(reply):
            monitor.warm_up(exec_root, backend)
        monitor.run(exec_root, reply, backend)

    operations = {"launch": launch, "spare": spare, "netns": make_netns}
    assembler = protocol.Assembler()
    while True:
        message = protocol.receive(sock, assembler)
        if message is None:
            return
        operation = operations[message.body["op"]]
        with socket.socket(fileno=message.take_fd(0)) as reply:
            message.close()
            if os.fork() == 0:
                sock.close()
                _finish(operation, reply)


def _has_news(sock: socket.socket) -> bool:
    return bool(select.select((sock,), (), (), 0)[0])


def _finish(operation: Callable[[socket.socket], None], reply: socket.socket) -> None:
    """Run *operation* in the child and end it."""
    status = 1
    try:
        operation(reply)
        status = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(status)


def make_netns(reply: socket.socket) -> None:
    """Send a new network namespace and a routing socket inside it.  Runs in a child."""
    from satsuma.linux import ns
    from satsuma.monitor import protocol

    ns.unshare("net")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as control:
        _, flags = _IFREQ.unpack(fcntl.ioctl(control, _SIOCGIFFLAGS, _IFREQ.pack(b"lo", 0)))
        fcntl.ioctl(control, _SIOCSIFFLAGS, _IFREQ.pack(b"lo", flags | _IFF_UP))
    netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_ROUTE)
    netlink.bind((0, 0))
    namespace = ns.open_ns("self", "net")
    protocol.send(reply, {"id": 0}, fds=(namespace, netlink.fileno()))


def seal() -> None:
    """Freeze what is loaded, and refuse to load more."""
    sys.path.clear()
    sys.meta_path.clear()
    sys.path_hooks.clear()
    gc.collect()
    gc.disable()
    gc.freeze()


def main(sock: socket.socket, exec_root: str, new_backend: Callable[[], Backend]) -> None:
    """Be the launcher on *sock*, from readiness to the end of the daemon."""
    from satsuma.linux import ns  # noqa: F401
    from satsuma.linux.prctl import set_dumpable
    from satsuma.monitor import monitor, protocol  # noqa: F401
    from satsuma.monitor.title import set_title

    set_dumpable(dumpable=False)
    set_title("satsuma-launch", f"satsuma-launcher {exec_root}")
    os.umask(0o022)
    # A terminal's ^C goes to the whole foreground group; the launcher's life is its daemon's.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Ended monitors need no burial here; each monitor takes SIGCHLD back for itself.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    seal()
    try:
        protocol.send(sock, {"ready": os.getpid()})
    except ConnectionError:
        return  # The daemon has ended meanwhile.
    serve(sock, exec_root, new_backend)


def _program() -> None:
    # -I and -S leave only the standard library; the package is added by where this file is.
    sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
    from satsuma.linux.syscalls import close_range
    from satsuma.monitor.runtime_backend import RuntimeBackend, load

    cgroup_driver, fd, exec_root = sys.argv[1:]
    load(cgroup_driver)
    sock = socket.socket(fileno=int(fd))
    os.set_inheritable(sock.fileno(), False)
    # The descriptor that we were started from (`linux.sealed`), and whatever else the daemon may have let slip.
    if sock.fileno() > 3:
        close_range(3, sock.fileno() - 1)
    close_range(sock.fileno() + 1)
    main(sock, exec_root, RuntimeBackend)


if __name__ == "__main__":
    _program()
