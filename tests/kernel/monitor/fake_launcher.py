"""A launcher whose containers are plain child processes: the streams and the protocol without the runtime."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import sys
import termios
import warnings  # noqa: F401  os.execvpe imports it, when imports are shut off already

if __name__ == "__main__":
    sys.path.append(sys.argv[1])

from satsuma.linux import pidfd, pty
from satsuma.monitor.backend import StartError


class _Started:
    def __init__(self, pid, console):
        self.pid = pid
        self.pidfd = os.pidfd_open(pid)
        self.start_time = pidfd.start_time(pid)
        self.console = console


class _Starting:
    def __init__(self, pid, console, failed, name):
        self.pid = pid
        self.result = _Started(pid, console)
        self.failed = failed
        self.name = name

    def fileno(self):
        return self.failed

    def step(self):
        error = os.read(self.failed, 16)
        os.close(self.failed)
        if error:
            with contextlib.suppress(ChildProcessError):  # the loop, which reaps every child, was faster
                os.waitpid(self.pid, 0)
            os.close(self.result.pidfd)
            raise StartError(f'exec: "{self.name}": executable file not found in $PATH', 127)
        return True

    def started(self):
        return self.result

    def steps(self):
        return {}


class FakeBackend:
    """Forks the program named in the OCI config, in the host's own namespaces."""

    def __init__(self):
        self.pids = []

    def start(self, config, extras, stdio, size):
        for fd in extras.get("hold_fds", ()):
            os.fstat(fd)
        starting = self._spawn(config["process"], stdio, size)
        starting.step()
        return starting.started()

    def exec(self, process, stdio, size, *, explain):
        return self._spawn(process, stdio, size)

    def _spawn(self, process, stdio, size):
        console = None
        if stdio is None:
            console, slave = os.openpty()
            if size:
                pty.set_size(console, *size)
            stdio = (slave, slave, slave)
        failed, report = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                os.setsid()
                null = os.open("/dev/null", os.O_RDWR)
                for target, fd in enumerate(stdio):
                    os.dup2(fd if fd >= 0 else null, target)
                if console is not None:
                    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
                for signum in range(1, 32):
                    if signum not in (signal.SIGKILL, signal.SIGSTOP):
                        signal.signal(signum, signal.SIG_DFL)
                os.execvpe(process["args"][0], process["args"], {"PATH": "/bin:/usr/bin", "TERM": "xterm"})
            except OSError as error:
                os.write(report, str(error.errno).encode())
            os._exit(127)
        os.close(report)
        if console is not None:
            os.close(slave)
        self.pids.append(pid)
        return _Starting(pid, console, failed, process["args"][0])

    def warm_up(self):
        pass

    def kill_all(self):
        for pid in self.pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass

    def oom_killed(self, status):
        return False

    def cgroup_dirs(self):
        return {}

    def expect_exec(self, process, *, created):
        return False

    def forget_exec(self):
        pass

    def release(self):
        pass

    def remove(self):
        pass


if __name__ == "__main__":
    from satsuma.monitor import launcher

    sock = socket.socket(fileno=int(sys.argv[2]))
    os.set_inheritable(sock.fileno(), False)
    launcher.main(sock, sys.argv[3], FakeBackend)
