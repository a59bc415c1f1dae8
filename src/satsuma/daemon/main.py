"""Entry point of `satsumad`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import threading

from satsuma import __version__
from satsuma.base import aio, log
from satsuma.base.errors import EngineError
from satsuma.daemon.configure import Configuration, configure
from satsuma.daemon.lock import PidFile, RootLock
from satsuma.daemon.settings import usage

_log = logging.getLogger(__name__)

STOP_LIMIT = 1.8
"""Seconds within which a stop ends, apart from those that containers get with `--live-restore=false`."""


def main() -> int:
    """Run the daemon; return its exit status."""
    try:
        configuration = configure(sys.argv[1:])
    except EngineError as error:
        print(f"satsumad: {error}\nSee 'satsumad --help'.", file=sys.stderr)
        return 1
    match configuration.action:
        case "help":
            print(usage())
            return 0
        case "version":
            print(f"Satsuma version {__version__}")
            return 0
        case "validate":
            print("configuration OK")
            return 0
    if os.geteuid() != 0:
        print("satsumad: the daemon needs to be started with root privileges", file=sys.stderr)
        return 1
    log.set_up(configuration.engine.log_level, format=configuration.engine.log_format)
    try:
        status = _run(configuration)
        if threading.active_count() > 1:
            # Work in a thread, for a client that is cut off; the interpreter would wait for it.
            os._exit(status)
        return status
    except EngineError as error:
        print(f"satsumad: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        # A disk that is full or read-only, a kernel that refuses: the trace is for whoever asked for details.
        _log.debug("failed to start", exc_info=True)
        print(f"satsumad: failed to start daemon: {_os_error(error)}", file=sys.stderr)
        return 1


def _os_error(error: OSError) -> str:
    what = (error.strerror or str(error)).lower()
    return f"{os.fsdecode(error.filename)}: {what}" if error.filename is not None else what


def _run(configuration: Configuration) -> int:
    config = configuration.engine
    os.umask(0o077)
    with contextlib.ExitStack() as stack:
        for root, mode in ((config.data_root, 0o710), (config.exec_root, 0o711)):
            os.makedirs(root, exist_ok=True)
            os.chmod(root, mode)  # makedirs asks the umask; members of the socket's group must get through
            stack.callback(RootLock.acquire(root).release)
        stack.callback(PidFile.write(configuration.pidfile).remove)
        asyncio.run(_serve(configuration))
    return 0


async def _serve(configuration: Configuration) -> None:
    # Imported here, so that --help, --validate and a refused second daemon cost no engine.
    from satsuma import api
    from satsuma.engine import Engine

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop.set)
    for signum in (signal.SIGHUP, signal.SIGUSR1):
        signal.signal(signum, signal.SIG_IGN)  # what comes too early must not end us
    engine = await Engine.open(configuration.engine)
    try:
        loop.add_signal_handler(signal.SIGHUP, lambda: aio.spawn("reload", _reload(engine)))
        loop.add_signal_handler(signal.SIGUSR1, _dump_tasks)
        server = await api.serve(engine, configuration.engine.hosts, group=configuration.engine.group)
        try:
            _notify_ready()
            _log.info("API listen on %s", ", ".join(configuration.engine.hosts))
            await stop.wait()
            _log.info("stopping")
            _end_without_fail(STOP_LIMIT + engine.close_limit, configuration.pidfile)
        finally:
            await server.close()
    finally:
        await engine.close()


def _end_without_fail(limit: float, pidfile: str) -> None:
    """End the process after *limit* seconds, whatever is unfinished: the next start expects that anyway."""

    def end() -> None:
        _log.warning("ended with work unfinished")
        with contextlib.suppress(OSError):
            os.unlink(pidfile)
        os._exit(0)

    timer = threading.Timer(limit, end)
    timer.daemon = True
    timer.start()


async def _reload(engine: object) -> None:
    """Take what may change while the daemon runs from the file again: the log level and the labels."""
    try:
        fresh = configure(sys.argv[1:]).engine
    except EngineError as error:
        _log.error("configuration not reloaded: %s", error)
        return
    logging.getLogger().setLevel(log.LEVELS[fresh.log_level])
    await engine.reload(fresh)  # type: ignore[attr-defined]


def _dump_tasks() -> None:
    for line in aio.describe_tasks():
        _log.info("task %s", line)


def _notify_ready() -> None:
    """Tell systemd that the sockets answer (sd_notify(3))."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as notify:
        with contextlib.suppress(OSError):
            notify.sendto(b"READY=1", "\0" + address[1:] if address.startswith("@") else address)


if __name__ == "__main__":
    sys.exit(main())
