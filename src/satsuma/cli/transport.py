"""Sockets to engines: UNIX, TCP with or without TLS, SSH; uploads that listen while they send."""

from __future__ import annotations

import errno
import os
import select
import socket

from satsuma.cli.errors import CliError, ConnectionFailed
from satsuma.wire.http import encode_chunk

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from satsuma.cli.endpoint import Endpoint
    from satsuma.wire.http_client import ResponseParser

_ABSENT = (errno.ENOENT, errno.ECONNREFUSED)


def connect(endpoint: Endpoint) -> socket.socket:
    """Return a connection to an engine; starts the engine of this machine if nobody named another one.

    Raises:
        ConnectionFailed: with what to do about it.
    """
    try:
        return _open(endpoint)
    except OSError as error:
        if endpoint.is_default and error.errno in _ABSENT and os.geteuid() == 0:
            from satsuma.cli.autostart import start_engine

            start_engine(endpoint.path)
            return _open(endpoint)
        raise _explain(endpoint, error) from None


def _open(endpoint: Endpoint) -> socket.socket:
    scheme = endpoint.scheme
    if scheme == "unix":
        return connect_unix(endpoint.path)
    if scheme == "tcp":
        connection = socket.create_connection(endpoint.address)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return _wrap_tls(connection, endpoint) if endpoint.tls else connection
    if scheme == "ssh":
        return _open_ssh(endpoint)
    raise CliError(f"unable to parse docker host `{endpoint.host}`: {scheme}:// is not supported here")


def connect_unix(path: str) -> socket.socket:
    """Connect to a UNIX socket."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        connection.connect(path)
    except BaseException:
        connection.close()
        raise
    return connection


def _wrap_tls(connection: socket.socket, endpoint: Endpoint) -> socket.socket:
    import ssl

    context = ssl.create_default_context(cafile=endpoint.ca or None)
    if not endpoint.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if endpoint.cert and endpoint.key:
        context.load_cert_chain(endpoint.cert, endpoint.key)
    return context.wrap_socket(connection, server_hostname=endpoint.address[0])


def _open_ssh(endpoint: Endpoint) -> socket.socket:
    """Connect through `ssh HOST docker system dial-stdio`, as docker does."""
    ours, theirs = socket.socketpair()
    where = endpoint.path.partition("/")[0]
    user, at, host = where.rpartition("@")
    host, _, port = host.partition(":")
    argv = ["ssh", "-o", "ConnectTimeout=30", "-T"]
    argv += ["-l", user] if at else []
    argv += ["-p", port] if port else []
    argv += ["--", host, "docker", "system", "dial-stdio"]
    fd = theirs.fileno()
    actions = [(os.POSIX_SPAWN_DUP2, fd, 0), (os.POSIX_SPAWN_DUP2, fd, 1)]
    try:
        os.posix_spawnp("ssh", argv, os.environ, file_actions=actions)
    except FileNotFoundError:
        raise CliError("ssh:// needs the program `ssh`, which is not installed") from None
    finally:
        theirs.close()
    return ours


def _explain(endpoint: Endpoint, error: OSError) -> CliError:
    if error.errno in (errno.EACCES, errno.EPERM):
        return ConnectionFailed(
            f"permission denied while trying to connect to the Satsuma daemon socket at {endpoint.host}: "
            "run it as root, or join the group that owns the socket"
        )
    detail = "" if error.errno in _ABSENT else f" ({error.strerror or error})"
    return ConnectionFailed(
        f"Cannot connect to the Satsuma daemon at {endpoint.host}. Is the satsumad daemon running?{detail}"
    )


def send_chunks(connection: socket.socket, pieces: Iterable[bytes], parser: ResponseParser) -> None:
    """Send a chunked body while taking in what the engine already answers.

    A build answers while the context is still on its way: without reading, both sides could wait for each other
    with full buffers.  An engine that has answered with an error does not get the rest.
    """
    for piece in pieces:
        if piece and not _send_all(connection, encode_chunk(piece), parser):
            return
    _send_all(connection, b"0\r\n\r\n", parser)


def _send_all(connection: socket.socket, data: bytes, parser: ResponseParser) -> bool:
    if type(connection) is not socket.socket:
        connection.sendall(data)  # TLS has records of its own; it cannot be polled like this
        return True
    view = memoryview(data)
    poll = select.poll()
    poll.register(connection, select.POLLIN | select.POLLOUT)
    while view:
        events = poll.poll()[0][1]
        if events & select.POLLIN:
            parser.feed(connection.recv(1 << 16))
        if parser.head is not None and (parser.head.status >= 400 or parser.body_done):
            return False
        if events & (select.POLLERR | select.POLLHUP) and not events & select.POLLIN:
            return False
        if events & select.POLLOUT:
            try:
                view = view[connection.send(view[: 1 << 16], socket.MSG_DONTWAIT) :]
            except BlockingIOError:
                continue
            except (BrokenPipeError, ConnectionResetError):
                # The answer that explains it may still be in the buffer.
                return False
    return True
