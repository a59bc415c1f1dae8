"""Time `satsuma-oci` beside Debian's runc (and crun) on one bundle in one run; print minima and medians.

The runtimes take turns, command by command, so that a busy moment of the machine hits all of them.  A call is timed
from posix_spawn(3) to the end of the process.  Only what was measured is printed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CYCLE = ("create", "start", "state", "exec", "kill", "delete")
APPLETS = ("sh", "true", "sleep", "cat")
WARM_UP = 3


class Runtime:
    """One runtime with a root directory of its own."""

    def __init__(self, name: str, program: str, root: Path) -> None:
        self.name = name
        self.argv = [program, "--root", str(root / name)]
        self.samples: dict[str, list[float]] = {}
        self._counter = 0
        self._null = os.open(os.devnull, os.O_RDWR)

    def call(self, command: str, *arguments: str, counted: bool = True) -> float:
        """Run one command and return how long it took, in milliseconds."""
        argv = [*self.argv, command, *arguments]
        streams = [(os.POSIX_SPAWN_DUP2, self._null, fd) for fd in (0, 1)]
        started = time.perf_counter()
        pid = os.posix_spawn(argv[0], argv, os.environ, file_actions=streams)
        _, status = os.waitpid(pid, 0)
        elapsed = (time.perf_counter() - started) * 1000
        if status:
            raise RuntimeError(f"{' '.join(argv)}: status {os.waitstatus_to_exitcode(status)}")
        if counted:
            self.samples.setdefault(command, []).append(elapsed)
        return elapsed

    def new_id(self) -> str:
        """Return an id that was not used yet."""
        self._counter += 1
        return f"bench-{self.name}-{os.getpid()}-{self._counter}"

    def works(self, bundle: Path) -> bool:
        """Tell whether it can run the bundle on this machine at all."""
        argv = [*self.argv, "run", "-b", str(bundle), self.new_id()]
        return subprocess.run(argv, capture_output=True, check=False).returncode == 0

    def cycle(self, bundle: Path, *, counted: bool) -> None:
        """Create, start, state, exec, kill, delete; the sum is counted as "sum"."""
        name = self.new_id()
        total = 0.0
        for command in CYCLE:
            arguments = [name]
            if command == "create":
                arguments = ["-b", str(bundle), name]
            elif command == "exec":
                arguments = [name, "/bin/true"]
            elif command == "kill":
                arguments = [name, "KILL"]
            total += self.call(command, *arguments, counted=counted)
            if command == "kill":
                self._wait_stopped(name)
        if counted:
            self.samples.setdefault("sum", []).append(total)

    def _wait_stopped(self, name: str) -> None:
        while json.loads(self.output("state", name))["status"] != "stopped":
            time.sleep(0.002)

    def output(self, *arguments: str) -> bytes:
        """Return what a command prints."""
        return subprocess.run([*self.argv, *arguments], capture_output=True, check=True).stdout

    def memory(self, bundle: Path) -> tuple[float, float]:
        """Return MiB of a `run` that waits for its container: (private, highest resident size)."""
        name = self.new_id()
        argv = [*self.argv, "run", "-b", str(bundle), name]
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL)
        time.sleep(0.5)
        rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()
        private = sum(int(line.split()[1]) for line in rollup if line.startswith("Private_"))
        status = Path(f"/proc/{process.pid}/status").read_text().splitlines()
        highest = next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))
        self.output("kill", name, "KILL")
        process.wait()
        return private / 1024, highest / 1024


def make_bundle(directory: Path, args: list[str]) -> Path:
    """Make a bundle with busybox, runc's default configuration and the host's network."""
    rootfs = directory / "rootfs"
    for name in ("bin", "dev", "proc", "sys", "tmp", "etc"):
        (rootfs / name).mkdir(parents=True)
    shutil.copy("/bin/busybox", rootfs / "bin/busybox")
    for applet in APPLETS:
        (rootfs / "bin" / applet).symlink_to("busybox")
    subprocess.run([shutil.which("runc") or own_program(), "spec"], cwd=directory, check=True)
    config = json.loads((directory / "config.json").read_text())
    config["process"] |= {"args": args, "terminal": False}
    config["linux"]["namespaces"] = [
        entry for entry in config["linux"]["namespaces"] if entry["type"] != "network"
    ]
    (directory / "config.json").write_text(json.dumps(config))
    return directory


def own_program() -> str:
    """Return the satsuma-oci of this environment."""
    return str(Path(sys.executable).with_name("satsuma-oci"))


def print_table(runtimes: list[Runtime], base: list[float]) -> None:
    """Print minimum / median of each command and the ratio to runc."""
    reference = next((runtime for runtime in runtimes if runtime.name == "runc"), None)
    print(f"{os.cpu_count()} CPUs, kernel {os.uname().release}, load {os.getloadavg()[0]:.1f}")
    for runtime in runtimes:
        version = runtime.output("--version").decode().splitlines()[0]
        print(f"  {runtime.name:<8} {version}  ({runtime.argv[0]})")
    print(f"  a bare python3 -ISB: {min(base):.1f} / {statistics.median(base):.1f}\n")
    print("ms, minimum / median" + (", ratio to runc of both" if reference else ""))
    print(f"{'':<8}" + "".join(f"{runtime.name:^32}" for runtime in runtimes))
    for command in ("run", *CYCLE, "sum"):
        row = f"{command:<8}"
        for runtime in runtimes:
            values = runtime.samples[command]
            low, middle = min(values), statistics.median(values)
            cell = f"{low:6.1f} /{middle:6.1f}"
            if reference is not None and runtime is not reference:
                theirs = reference.samples[command]
                cell += f"  {low / min(theirs):4.2f}x {middle / statistics.median(theirs):4.2f}x"
            row += f"{cell:^32}"
        print(row.rstrip())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", "--rounds", type=int, default=30, help="counted rounds (default 30)")
    parser.add_argument("--json", metavar="FILE", help="write all samples there as well")
    arguments = parser.parse_args()
    if os.getuid() or not Path("/bin/busybox").exists():
        raise SystemExit("the benchmark needs root and the static /bin/busybox")
    root = Path(tempfile.mkdtemp(prefix="satsuma-bench-oci-"))
    base: list[float] = []
    try:
        short = make_bundle(root / "true", ["/bin/true"])
        long = make_bundle(root / "sleep", ["/bin/sleep", "1000"])
        programs = {"satsuma": own_program(), "runc": shutil.which("runc"), "crun": shutil.which("crun")}
        found = [Runtime(name, path, root) for name, path in programs.items() if path]
        runtimes = [runtime for runtime in found if runtime.works(short)]
        for turn in range(arguments.rounds + WARM_UP):
            counted = turn >= WARM_UP
            started = time.perf_counter()
            subprocess.run([sys.executable, "-ISB", "-c", ""], check=True)
            if counted:
                base.append((time.perf_counter() - started) * 1000)
            for runtime in runtimes:
                runtime.call("run", "-b", str(short), runtime.new_id(), counted=counted)
            for runtime in runtimes:
                runtime.cycle(long, counted=counted)
        print_table(runtimes, base)
        print("\nMiB of a waiting `run`: private / highest resident size")
        for runtime in runtimes:
            private, highest = runtime.memory(long)
            print(f"{runtime.name:<8}{private:6.1f} /{highest:6.1f}")
        if arguments.json:
            samples = {runtime.name: runtime.samples for runtime in runtimes}
            Path(arguments.json).write_text(json.dumps(samples) + "\n")
    finally:
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    main()
