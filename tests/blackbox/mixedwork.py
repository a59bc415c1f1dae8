"""Mixed work against an engine that may die at any moment, and a ledger of what it has acknowledged.

A `Worker` has containers, volumes, images and networks of its own, does one random thing after the other over
the bare API, and notes each answer.  An answer that does not come leaves two outcomes possible, never more; what
it really was is looked up when the engine answers again.  All that was acknowledged must be found then.
"""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import io
import json
import os
import random
import signal
import socket
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import harness

NAMES = 5
"""Containers that one worker has at most; so names are used again and again."""
KILLED = 137


class Lost(Exception):
    """The engine died before it answered: what was asked may have been done, or not."""


class NotUp(Exception):
    """There was no engine: nothing was asked."""


@dataclasses.dataclass
class Held:
    """A container as the answers so far describe it."""

    name: str
    kind: str
    env: str
    states: set[str]
    """What it may be now; one state only, as soon as somebody has looked.  "gone" is one of them."""
    id: str = ""
    pid: int = 0
    exit_codes: set[int] = dataclasses.field(default_factory=lambda: {0})
    lines: int = 0
    """How many lines a talker writes; 0 when what it wrote is not known any more."""

    def body(self) -> dict[str, Any]:
        """Return the body of its create request."""
        if self.kind == "talker":
            (code,) = self.exit_codes
            script = f'i=0; while [ $i -lt {self.lines} ]; do i=$((i+1)); echo "line $i"; sleep 0.02; done; exit {code}'
        elif self.kind == "brief":
            script = "exit 0"
        else:
            script = "exec sleep 100000"
        host = {"AutoRemove": self.kind == "brief"}
        if self.kind == "sleeper":
            host["PortBindings"] = {"80/tcp": [{"HostIp": "127.0.0.1"}]}
        return {"Image": "busybox", "Cmd": ["sh", "-c", script], "Env": [self.env], "HostConfig": host}


def numbered(text: str) -> int:
    """Return how many lines `line 1`, `line 2`, … there are; assert that none is missing, doubled or torn."""
    lines = text.splitlines()
    assert lines == [f"line {n}" for n in range(1, len(lines) + 1)], f"gap in the log: {lines}"
    return len(lines)


def unframe(data: bytes) -> str:
    """Return the payload of whole stdcopy frames."""
    text = bytearray()
    while len(data) >= 8 and len(data) >= 8 + (size := int.from_bytes(data[4:8], "big")):
        text += data[8 : 8 + size]
        data = data[8 + size :]
    return text.decode()


class Worker:
    """One client with things of its own; runs in a thread until `stop`."""

    def __init__(self, daemon: harness.Daemon, number: int, seed: int, tag: str) -> None:
        self.daemon = daemon
        self.prefix = f"w{number}"
        self.random = random.Random(f"{seed}/{number}")
        self.env = f"SATSUMA_TEST_WORK={tag}"
        self.held: dict[str, Held] = {}
        self.ids: set[str] = set()
        """Every container that there ever was."""
        self.volumes: dict[str, set[bool]] = {}
        """Whether a volume may be there, and may be absent."""
        self.images: dict[str, set[bool]] = {}
        self.networks: dict[str, set[bool]] = {}
        self.alive = threading.Event()
        self.stop = threading.Event()
        self.done: dict[str, int] = {}
        self.failure: BaseException | None = None
        self.generation = 0
        """Counts kills of the engine."""
        self.disturbed = 0
        """Counts kills of the launcher and its spare: a start that was under way may fail."""
        self._thread = threading.Thread(target=self._run, name=self.prefix)
        self.start = self._thread.start

    def join(self) -> None:
        """Wait for its end."""
        self._thread.join()

    # Requests

    def call(
        self, method: str, path: str, body: object = None, *, data: bytes | None = None
    ) -> tuple[int, Any]:
        """Send one request to the engine.

        Raises:
            NotUp: nobody listens.
            Lost: it died before the answer was whole.
        """
        connection = harness.UnixConnection(str(self.daemon.socket))
        try:
            connection.connect()
        except (ConnectionError, FileNotFoundError) as error:
            raise NotUp(path) from error
        try:
            kind = "application/x-tar" if data is not None else "application/json"
            payload = json.dumps(body).encode() if data is None and body is not None else data
            connection.request(method, path, payload, {"Content-Type": kind} if payload is not None else {})
            response = connection.getresponse()
            raw = response.read()
        except (ConnectionError, http.client.HTTPException) as error:
            raise Lost(path) from error
        finally:
            connection.close()
        if response.headers.get("Content-Type", "").startswith("application/vnd.docker"):
            return response.status, raw
        try:
            return response.status, json.loads(raw)
        except ValueError:
            return response.status, raw.decode()

    def must(
        self, expected: int | tuple[int, ...], method: str, path: str, body: object = None, **more: Any
    ) -> Any:
        """Send one request that has to succeed and return the answer."""
        status, answer = self.call(method, path, body, **more)
        wanted = expected if isinstance(expected, tuple) else (expected,)
        assert status in wanted, f"{method} {path}: {status} {answer}"
        return answer

    # The loop

    def _run(self) -> None:
        operations = [getattr(self, name) for name in sorted(dir(self)) if name.startswith("do_")]
        weights = [operation.__func__.weight for operation in operations]
        try:
            while not self.stop.is_set():
                self.alive.wait()
                try:
                    (operation,) = self.random.choices(operations, weights)
                    operation()
                    name = operation.__name__
                    self.done[name] = self.done.get(name, 0) + 1
                except (Lost, NotUp):
                    self.look()
        except BaseException as error:
            self.failure = error

    def pick(self, *states: str, kind: str = "") -> Held | None:
        """Return one of its containers that is surely in one of *states*."""
        found = [
            held
            for held in self.held.values()
            if held.states <= set(states) and (not kind or held.kind == kind)
        ]
        return self.random.choice(found) if found else None

    # What there has to be

    def look(self) -> None:
        """Compare all that was acknowledged with what the engine says, as soon as it says anything."""
        while not self.stop.is_set():
            self.alive.wait()
            with contextlib.suppress(Lost, NotUp):
                self.verify()
                return

    def verify(self) -> None:
        """Compare all that was acknowledged with what the engine says, and settle what was open."""
        for held in list(self.held.values()):
            self._verify_container(held)
        for kind, ledger in (("volumes", self.volumes), ("images", self.images), ("networks", self.networks)):
            for name, present in list(ledger.items()):
                status, answer = self.call("GET", f"/{kind}/{name}" + ("/json" if kind == "images" else ""))
                assert status in (200, 404), answer
                assert (status == 200) in present, f"{kind[:-1]} {name}: {status}, {present} acknowledged"
                ledger[name] = {status == 200}
                if kind == "volumes" and status == 200 and (Path(answer["Mountpoint"]) / "f").exists():
                    assert (Path(answer["Mountpoint"]) / "f").read_text() == f"{name}\n"

    def _verify_container(self, held: Held) -> None:
        status, answer = self.call("GET", f"/containers/{held.name}/json")
        if status == 404:
            assert "gone" in held.states, f"lost: {held}"
            del self.held[held.name]
            return
        assert status == 200, answer
        state = answer["State"]
        if state["Pid"] and not Path(f"/proc/{state['Pid']}").exists():
            # It ended between our two looks; the engine has to notice.
            harness.eventually(
                lambda: self._state(held).get("Pid") != state["Pid"], message=f"{held}: {state}"
            )
            self._verify_container(held)
            return
        assert not held.id or answer["Id"] == held.id, f"another container: {held} {answer['Id']}"
        held.id = answer["Id"]
        self.ids.add(held.id)
        assert state["Status"] in held.states, f"{held} is {state}"
        if state["Status"] in ("running", "paused"):
            assert held.pid in (0, state["Pid"]), f"{held} has another process {state}"
            held.pid = state["Pid"]
        else:
            held.pid = 0
        if state["Status"] == "exited":
            assert state["ExitCode"] in held.exit_codes, f"{held}: {state}"
        held.states = {state["Status"]} | _goes_on(held, state["Status"])
        if held.kind == "talker" and held.lines:
            self._read_log(held, ended=state["Status"] == "exited")

    def _state(self, held: Held) -> dict[str, Any]:
        status, answer = self.call("GET", f"/containers/{held.name}/json")
        return answer["State"] if status == 200 else {}

    def _read_log(self, held: Held, *, ended: bool) -> None:
        found = numbered(unframe(self.must(200, "GET", f"/containers/{held.name}/logs?stdout=1")))
        assert found <= held.lines and (not ended or found == held.lines), f"{found} of {held.lines} lines"

    # Operations: each one may end in Lost at any request

    def do_create(self) -> None:
        free = [name for n in range(NAMES) if (name := f"{self.prefix}-{n}") not in self.held]
        if not free:
            return
        kind = self.random.choice(["sleeper", "sleeper", "talker", "talker", "brief"])
        held = Held(name=self.random.choice(free), kind=kind, env=self.env, states={"created", "gone"})
        if kind == "talker":
            held.lines = self.random.randint(5, 60)
            held.exit_codes = {self.random.randint(0, 100)}
        elif kind == "sleeper":
            held.exit_codes = {KILLED}
        self.held[held.name] = held
        try:
            held.id = self.must(201, "POST", f"/containers/create?name={held.name}", held.body())["Id"]
        except NotUp:
            del self.held[held.name]
            raise
        self.ids.add(held.id)
        held.states = {"created"}

    def do_start(self) -> None:
        held = self.pick("created", "exited")
        if held is None:
            return
        disturbed = self.disturbed
        before, lines = held.states, held.lines
        if "exited" in before:
            held.lines = 0
        try:
            held.states = before | {"running"} | _goes_on(held, "running")
            status, answer = self.call("POST", f"/containers/{held.name}/start")
        except NotUp:
            held.states, held.lines = before, lines
            raise
        except Lost:
            # Of a start that nobody heard of, the next engine ends what runs; some of its output is there.
            held.lines = 0
            raise
        if status == 500 and self.disturbed != disturbed:
            held.states, held.lines = before | {"gone"} if held.kind == "brief" else before, 0
            held.exit_codes = held.exit_codes | {128}
            return
        assert status == 204, f"start of {held}: {status} {answer}"
        held.states = {"running"} | _goes_on(held, "running")
        held.pid = 0
        self._verify_container(held)

    def do_stop(self) -> None:
        verb, more = self.random.choice([("stop", "?t=0"), ("kill", ""), ("restart", "?t=0")])
        self._end("running", f"{verb}{more}", again=verb == "restart")

    def do_remove(self) -> None:
        held = self.pick("running", "exited", "created")
        if held is None:
            return
        before = held.states
        try:
            held.states = before | {"gone", "exited"}
            held.exit_codes = held.exit_codes | {KILLED}
            held.lines = 0
            self.must(204, "DELETE", f"/containers/{held.name}?force=1&v=1")
        except NotUp:
            held.states = before
            raise
        del self.held[held.name]
        assert not held.pid or not _is_alive(held.pid, self.env), f"{held} runs on after its removal"

    def do_kill_monitor(self) -> None:
        held = self.pick("running", kind="sleeper")
        if held is None or not held.pid:
            return
        monitor = parent_of(held.pid)
        held.states = {"exited"}
        os.kill(monitor, signal.SIGKILL)
        self.must(200, "POST", f"/containers/{held.name}/wait")
        held.pid = 0

    def _end(self, state: str, action: str, *, again: bool) -> None:
        held = self.pick(state, kind="sleeper")
        if held is None:
            return
        pid = held.pid
        disturbed = self.disturbed
        try:
            held.states = {state, "exited"}
            held.pid = 0 if again else pid
            status, answer = self.call("POST", f"/containers/{held.name}/{action}")
        except NotUp:
            held.states, held.pid = {state}, pid
            raise
        if status == 500 and again and self.disturbed != disturbed:
            held.states = {"exited"}
            held.exit_codes = held.exit_codes | {128}
            return
        assert status == 204, f"{action} of {held}: {status} {answer}"
        if action == "kill":
            # It answers when the signal is sent.
            self.must(200, "POST", f"/containers/{held.name}/wait?condition=not-running")
        held.states = {"running"} if again else {"exited"}
        held.pid = 0

    def do_pause(self) -> None:
        verb, before, after = self.random.choice(
            [("pause", "running", "paused"), ("unpause", "paused", "running")]
        )
        held = self.pick(before, kind="sleeper")
        if held is None:
            return
        try:
            held.states = {before, after}
            self.must(204, "POST", f"/containers/{held.name}/{verb}")
        except NotUp:
            held.states = {before}
            raise
        held.states = {after}

    def do_exec(self) -> None:
        held = self.pick("running", kind="sleeper")
        if held is None:
            return
        code = self.random.randint(0, 100)
        command = {"AttachStdout": True, "Cmd": ["sh", "-c", f"echo said; exit {code}"]}
        generation = self.generation
        session = self.must(201, "POST", f"/containers/{held.name}/exec", command)["Id"]
        status, answer = self.call("POST", f"/exec/{session}/start", {"Detach": False})
        if self.generation == generation:
            assert status == 200 and unframe(answer) == "said\n", answer
        status, answer = self.call("GET", f"/exec/{session}/json")
        # The engine that knew of the session may be dead; the end of its stream cannot be told from a whole one.
        if self.generation == generation:
            assert (status, answer["ExitCode"]) == (200, code), answer

    def do_follow(self) -> None:
        held = self.pick("running", "exited", kind="talker")
        if held is None or not held.lines:
            return
        total = numbered(unframe(self.must(200, "GET", f"/containers/{held.name}/logs?stdout=1&follow=1")))
        assert total == held.lines, f"{total} of {held.lines} lines followed"

    def do_wait(self) -> None:
        held = self.pick("running", "exited", kind="talker")
        if held is not None:
            code = self.must(200, "POST", f"/containers/{held.name}/wait")["StatusCode"]
            assert code in held.exit_codes, f"{held}: {code}"
            held.states = {"exited"}

    def do_volume(self) -> None:
        name = f"{self.prefix}-data"
        if self.volumes.get(name, {False}) == {True}:
            harness.eventually(lambda: self._without_users(name))
            self._toggle(self.volumes, name, False, "DELETE", f"/volumes/{name}", 204)
            return
        self._toggle(self.volumes, name, True, "POST", "/volumes/create", 201, {"Name": name})
        mountpoint = Path(self.must(200, "GET", f"/volumes/{name}")["Mountpoint"])
        host = {"Binds": [f"{name}:/data"], "NetworkMode": "none", "AutoRemove": True}
        if self._once(["sh", "-c", f"echo {name} >/data/g && mv /data/g /data/f"], host):
            assert (mountpoint / "f").read_text() == f"{name}\n"

    def _without_users(self, volume: str) -> bool:
        """Remove what is left of runs that nobody heard the end of; whether nothing was."""
        users = self.must(200, "GET", f'/containers/json?all=1&filters={{"volume":["{volume}"]}}')
        for user in users:
            self.call("DELETE", f"/containers/{user['Id']}?force=1")
        return not users

    def do_network(self) -> None:
        name = f"{self.prefix}-net"
        if self.networks.get(name, {False}) == {True}:
            # A container of a start that nobody heard of may just be ending on it.
            harness.eventually(lambda: not self.must(200, "GET", f"/networks/{name}")["Containers"])
            self._toggle(self.networks, name, False, "DELETE", f"/networks/{name}", 204)
            return
        self._toggle(self.networks, name, True, "POST", "/networks/create", 201, {"Name": name})
        self._once(["true"], {"NetworkMode": name, "AutoRemove": True})

    def do_build(self) -> None:
        name = f"{self.prefix}-built"
        if self.images.get(name, {False}) == {True} and self.random.random() < 0.5:
            self._toggle(self.images, name, False, "DELETE", f"/images/{name}", 200)
            return
        number = self.random.randint(0, 10**9)
        context = io.BytesIO()
        with tarfile.open(fileobj=context, mode="w") as archive:
            text = f"FROM busybox\nENV {self.env}\nRUN echo {number} >/number\n".encode()
            entry = tarfile.TarInfo("Dockerfile")
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text))
        disturbed = self.disturbed
        with self._may_become(self.images, name, True):
            answer = self.must(200, "POST", f"/build?t={name}&rm=1&forcerm=1", data=context.getvalue())
        if "Successfully tagged" in str(answer):
            self.images[name] = {True}
        else:
            assert "error" in str(answer) and self.disturbed != disturbed, answer

    def do_import_image(self) -> None:
        name = f"{self.prefix}-imported"
        root = io.BytesIO()
        with tarfile.open(fileobj=root, mode="w") as archive:
            data = self.random.randbytes(100_000)
            entry = tarfile.TarInfo("data")
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
        with self._may_become(self.images, name, True):
            answer = self.must(200, "POST", f"/images/create?fromSrc=-&repo={name}", data=root.getvalue())
        assert "sha256:" in str(answer) and "error" not in str(answer), answer
        self.images[name] = {True}
        if self.random.random() < 0.5:
            self._toggle(self.images, name, False, "DELETE", f"/images/{name}", 200)

    def do_commit(self) -> None:
        held = self.pick("running", "exited", "created")
        if held is None or held.kind == "brief":
            return
        name = f"{self.prefix}-committed"
        before = self.images.get(name, {False})
        self.images[name] = before | {True}
        try:
            self.must(201, "POST", f"/commit?container={held.name}&repo={name}", {})
        except NotUp:
            self.images[name] = before
            raise
        self.images[name] = {True}
        self._toggle(self.images, name, False, "DELETE", f"/images/{name}", 200)

    def _toggle(
        self,
        ledger: dict[str, set[bool]],
        name: str,
        present: bool,
        method: str,
        path: str,
        status: int,
        body: Any = None,
    ) -> None:
        with self._may_become(ledger, name, present):
            self.must(status, method, path, body)
        ledger[name] = {present}

    @contextlib.contextmanager
    def _may_become(self, ledger: dict[str, set[bool]], name: str, present: bool) -> Iterator[None]:
        """Count with both outcomes while a request is on its way; one that reached nobody changes nothing."""
        before = ledger.get(name, {False})
        ledger[name] = before | {present}
        try:
            yield
        except NotUp:
            ledger[name] = before
            raise

    def _once(self, command: list[str], host: dict[str, Any]) -> bool:
        """Run a nameless container with --rm to its end; False when it could not be started."""
        body = {"Image": "busybox", "Cmd": command, "Env": [self.env], "HostConfig": host}
        answer = self.must(201, "POST", "/containers/create", body)
        self.ids.add(answer["Id"])
        disturbed = self.disturbed
        status, text = self.call("POST", f"/containers/{answer['Id']}/start")
        assert status == 204 or (status == 500 and self.disturbed != disturbed), text
        if status != 204:
            return False
        status, text = self.call("POST", f"/containers/{answer['Id']}/wait?condition=removed")
        assert status in (200, 404), text
        return True


def _weigh(**weights: int) -> None:
    for name, weight in weights.items():
        getattr(Worker, f"do_{name}").weight = weight


_weigh(
    create=8,
    start=8,
    stop=4,
    remove=4,
    exec=4,
    follow=2,
    wait=1,
    pause=2,
    volume=2,
    network=1,
    build=1,
    commit=1,
    import_image=1,
    kill_monitor=1,
)


def _goes_on(held: Held, state: str) -> set[str]:
    """Return what becomes of a container in *state* without any help."""
    if state != "running":
        return {"gone"} if held.kind == "brief" and state == "exited" else set()
    return {"talker": {"exited"}, "brief": {"exited", "gone"}, "sleeper": set()}[held.kind]


def parent_of(pid: int) -> int:
    """Return the parent of a process."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def _is_alive(pid: int, env: str) -> bool:
    try:
        return env.encode() in Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False


def processes(mark: str) -> list[str]:
    """Return the processes whose environment or command line contains *mark*."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid():
            with contextlib.suppress(OSError):
                base = Path("/proc") / entry
                if (
                    mark.encode()
                    in base.joinpath("environ").read_bytes() + base.joinpath("cmdline").read_bytes()
                ):
                    found.append(f"{entry} {base.joinpath('cmdline').read_bytes()!r}")
    return found


def answers(port: int) -> bool:
    """Whether a web server behind a published port answers."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 10) as sock:
        sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
        return sock.recv(4096).startswith(b"HTTP/1.")
    return False
