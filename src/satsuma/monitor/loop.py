"""The monitor's event loop: epoll, timers and the reaping of children, in one thread.

A handler is called with the ready events of its descriptor.  It may add and remove any descriptor, its own
included: an event of a descriptor that was removed earlier in the same round is dropped.  A handler that is
added for a number that was closed and used again in the same round can see one event of its predecessor, so
every handler must cope with "nothing there" (all our descriptors are non-blocking).

Source: epoll(7), signal(7).
"""

from __future__ import annotations

import heapq
import os
import select
import signal
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

READ = select.EPOLLIN
WRITE = select.EPOLLOUT
HANGUP = select.EPOLLHUP
PEER_DONE = select.EPOLLRDHUP
FAILED = select.EPOLLERR


class Timer:
    """A call that is due at one moment of the monotonic clock; `cancel` takes it back."""

    __slots__ = ("_due", "call")

    def __init__(self, due: float, call: Callable[[], None]) -> None:
        self._due = due
        self.call: Callable[[], None] | None = call

    def __lt__(self, other: Timer) -> bool:
        return self._due < other._due

    def cancel(self) -> None:
        """Forget the call."""
        self.call = None


class Loop:
    """One epoll instance with its handlers.

    Args:
        on_error: called inside an `except` block for every exception that a handler let out.
    """

    __slots__ = ("_epoll", "_handlers", "_on_error", "_running", "_timers")

    def __init__(self, on_error: Callable[[], None]) -> None:
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[int], None]] = {}
        self._timers: list[Timer] = []
        self._running = False
        self._on_error = on_error

    def add(self, fd: int, events: int, handler: Callable[[int], None]) -> None:
        """Watch *fd*; EPOLLHUP and EPOLLERR are always among the events."""
        self._epoll.register(fd, events)
        self._handlers[fd] = handler

    def modify(self, fd: int, events: int) -> None:
        """Change what *fd* is watched for."""
        self._epoll.modify(fd, events)

    def remove(self, fd: int) -> None:
        """Stop watching *fd*; call it before the descriptor is closed."""
        if self._handlers.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def forget(self, fd: int) -> None:
        """Drop the handler of a descriptor that was closed while it was watched."""
        self._handlers.pop(fd, None)

    def call_later(self, delay: float, call: Callable[[], None]) -> Timer:
        """Run *call* after *delay* seconds."""
        timer = Timer(time.monotonic() + delay, call)
        heapq.heappush(self._timers, timer)
        return timer

    def watch_children(self, on_exit: Callable[[int, int], None], on_death: Callable[[int], None]) -> None:
        """Reap every child of this process; *on_exit* gets its pid and its wait status.

        Children that nobody asked for are reaped too: a subreaper inherits orphans.

        Args:
            on_death: gets the pid before that, while it cannot be reused.
        """
        read_end, write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, _ignore_signal)

        def reap(_events: int) -> None:
            try:
                os.read(read_end, 512)
            except BlockingIOError:
                pass
            while True:
                try:
                    dead = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                except ChildProcessError:
                    return
                if dead is None:
                    return
                on_death(dead.si_pid)
                try:
                    pid, status = os.waitpid(dead.si_pid, os.WNOHANG)
                except ChildProcessError:
                    continue  # somebody has waited for it meanwhile
                on_exit(pid, status)

        self.add(read_end, READ, reap)
        # A child may have ended before the handler was in place: its SIGCHLD is gone.
        self.call_later(0, lambda: reap(0))

    def stop(self) -> None:
        """Make `run` return after the current round."""
        self._running = False

    def run(self) -> None:
        """Serve until `stop`."""
        self._running = True
        while self._running:
            for fd, events in self._poll():
                handler = self._handlers.get(fd)
                if handler is not None:
                    self._guard(handler, events)
            now = time.monotonic()
            while self._timers and self._timers[0]._due <= now:
                call = heapq.heappop(self._timers).call
                if call is not None:
                    self._guard(lambda _events, call=call: call(), 0)  # type: ignore[misc]

    def _poll(self) -> list[tuple[int, int]]:
        while self._timers and self._timers[0].call is None:
            heapq.heappop(self._timers)
        timeout = max(0.0, self._timers[0]._due - time.monotonic()) if self._timers else None
        return self._epoll.poll(timeout, 64)

    def _guard(self, handler: Callable[[int], None], events: int) -> None:
        try:
            handler(events)
        except Exception:
            self._on_error()

    def close(self) -> None:
        """Close the epoll descriptor; the watched descriptors stay open."""
        self._epoll.close()


def _ignore_signal(_signum: int, _frame: object) -> None:
    """Do nothing: the wake-up descriptor carries the news.  SIG_IGN would make the kernel reap."""
