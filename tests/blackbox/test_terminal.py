"""The command line on a real terminal: raw mode, window size, detach keys, signals, end of input."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time

import pytest

import harness


class Terminal:
    """A program on a pseudo-terminal of its own."""

    def __init__(self, client: harness.Client, *arguments: str, rows: int = 30, columns: int = 100) -> None:
        self.master, worker = pty.openpty()
        self.resize(rows, columns)
        self.before = termios.tcgetattr(worker)
        self.worker = worker
        self.process = subprocess.Popen(
            [client.argv0, *arguments],
            stdin=worker,
            stdout=worker,
            stderr=worker,
            env=client.environment | {"TERM": "xterm"},
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        self.seen = ""

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def expect(self, text: str, limit: float = 20.0) -> str:
        """Wait until *text* appears; return what came up to it."""
        deadline = time.monotonic() + limit
        while text not in self.seen:
            ready, _, _ = select.select([self.master], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"{text!r} did not appear in {self.seen!r}"
            try:
                data = os.read(self.master, 65536)
            except OSError:
                data = b""
            assert data, f"{text!r} did not appear before the end of {self.seen!r}"
            self.seen += data.decode("utf-8", "replace")
        head, _, self.seen = self.seen.partition(text)
        return head

    def wait(self) -> int:
        """Return the exit status; the terminal must be as it was."""
        end = time.monotonic() + 20
        while self.process.poll() is None and time.monotonic() < end:
            ready, _, _ = select.select([self.master], [], [], 0.05)
            if ready:
                with contextlib.suppress(OSError):
                    self.seen += os.read(self.master, 65536).decode("utf-8", "replace")
        assert self.process.poll() is not None, f"still running; saw {self.seen!r}"
        assert termios.tcgetattr(self.worker)[:4] == self.before[:4], "the terminal was left in raw mode"
        return self.process.returncode

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.master)
        os.close(self.worker)


@pytest.fixture
def terminals(client: harness.Client):
    opened: list[Terminal] = []

    def start(*arguments: str, **size: int) -> Terminal:
        opened.append(Terminal(client, *arguments, **size))
        return opened[-1]

    yield start
    for terminal in opened:
        terminal.close()


def test_an_interactive_shell_has_a_terminal_of_our_size(terminals) -> None:
    shell = terminals("run", "-it", "--rm", "busybox", "sh", rows=33, columns=101)
    shell.expect("#")
    shell.type("stty size; tty\n")
    shell.expect("33 101")
    shell.expect("/dev/pts/0")
    shell.resize(40, 120)
    # The kernel tells our process (SIGWINCH); it tells the engine, and the shell asks again.
    os.kill(shell.process.pid, signal.SIGWINCH)
    deadline = time.monotonic() + 10
    while "40 120" not in shell.seen and time.monotonic() < deadline:
        shell.type("stty size\n")
        with contextlib.suppress(AssertionError):
            shell.expect("40 120", limit=0.5)
            break
    else:
        pytest.fail(f"the new size did not arrive: {shell.seen!r}")
    shell.type("exit 5\n")
    assert shell.wait() == 5


def test_detach_keys_leave_the_container_running(terminals, client: harness.Client) -> None:
    shell = terminals("run", "-it", "--name", "stays", "busybox", "sh")
    shell.expect("#")
    shell.type("\x10\x11")  # ctrl-p ctrl-q
    assert shell.wait() == 0
    assert client("inspect", "-f", "{{.State.Running}}", "stays") == "true"
    again = terminals("attach", "stays")
    again.type("echo back-$((20+3))\n")
    again.expect("back-23")
    again.type("\x10\x11")
    assert again.wait() == 1
    assert "read escape sequence" in again.seen
    again = terminals("attach", "stays")
    again.type("exit 3\n")
    assert again.wait() == 3
    client("rm", "stays")


def test_other_detach_keys(terminals, client: harness.Client) -> None:
    shell = terminals("run", "-it", "--name", "other", "--detach-keys", "ctrl-x,q", "busybox", "sh")
    shell.expect("#")
    shell.type("echo a\x10b-$((1+1))\n")
    shell.expect("b-2")
    shell.type("\x18q")
    assert shell.wait() == 0
    client("rm", "-f", "other")


def test_exec_on_a_terminal(terminals, client: harness.Client) -> None:
    client("run", "-d", "--name", "execs", "busybox", "sleep", "1000")
    shell = terminals("exec", "-it", "execs", "sh", rows=21, columns=77)
    shell.expect("#")
    shell.type("stty size\n")
    shell.expect("21 77")
    other = terminals("exec", "-it", "execs", "sh")
    other.expect("#")
    other.type("\x10\x11")
    assert other.wait() == 1
    assert "read escape sequence" in other.seen
    shell.type("exit 9\n")
    assert shell.wait() == 9
    client("rm", "-f", "execs")


def test_ctrl_c_reaches_the_program(terminals) -> None:
    shell = terminals(
        "run",
        "-it",
        "--rm",
        "busybox",
        "sh",
        "-c",
        "trap 'echo got; exit 4' INT; echo ready; while :; do sleep 0.1; done",
    )
    shell.expect("ready")
    shell.type("\x03")
    shell.expect("got")
    assert shell.wait() == 4


def test_signals_are_proxied_without_a_terminal(client: harness.Client) -> None:
    program = "trap 'echo term; exit 6' TERM; echo ready; while :; do sleep 0.1; done"
    running = subprocess.Popen(
        [client.argv0, "run", "--rm", "busybox", "sh", "-c", program],
        stdout=subprocess.PIPE,
        env=client.environment,
        text=True,
    )
    assert running.stdout is not None
    assert running.stdout.readline() == "ready\n"
    running.terminate()
    assert running.stdout.read() == "term\n"
    assert running.wait(20) == 6


def test_input_is_carried_to_its_end_and_output_comes_back_whole(client: harness.Client) -> None:
    data = os.urandom(1 << 20)
    done = subprocess.run(
        [client.argv0, "run", "-i", "--rm", "busybox", "cat"],
        input=data,
        capture_output=True,
        env=client.environment,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == data


def test_both_output_streams_stay_apart(client: harness.Client) -> None:
    done = client.run("run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2; exit 2", check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("out\n", "err\n", 2)


def test_a_terminal_is_needed_for_it(client: harness.Client) -> None:
    done = client.run("run", "-it", "--rm", "busybox", "true", check=False)
    assert done.returncode == 1
    assert "the input device is not a TTY" in done.stderr
