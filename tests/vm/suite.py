"""What of the tests depends on the layout of the control groups, in virtual machines that have each of them.

    python tests/vm/suite.py              all sets, one machine after the other
    python tests/vm/suite.py smoke v1     these

    smoke       v2, every controller: a limit of each binds, devices, freezing, an OCI container
    v2          v2, a script is process 1: the runtime, its program, confinement, the engine
    systemd     v2 under systemd: satsuma-oci --systemd-cgroup, the engine with native.cgroupdriver=systemd
    hybrid      systemd with version 1 hierarchies and a v2 tree: both drivers
    v1          version 1 alone

The tree must not be edited meanwhile: the guest sees it as it is.
"""

from __future__ import annotations

import argparse
import compileall
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import machine

PYTEST = ".venv/bin/python -m pytest -q -p no:cacheprovider --timeout 600 --durations 5"
# Emulated, each start of a client takes a second: one command line is enough here.
ONE_CLIENT = "-k 'not [docker]'"

# A clock is the judge, or there are thousands of steps.
TOO_SLOW = "--ignore tests/kernel/runtime/test_runtime_crash.py -k 'not ten_thousand_mounts and not takes_few_milliseconds'"


@dataclass(frozen=True, slots=True, kw_only=True)
class Set:
    """One machine and the arguments of each run of pytest in it.

    Attributes:
        timeout: seconds; several times what it takes with two cores.
    """

    runs: tuple[str, ...]
    layout: str = "v2"
    systemd: bool = False
    timeout: float = 3600


SMOKE = (
    "tests/kernel/linux/test_linux_cgroup.py tests/kernel/runtime/test_runtime_limits.py "
    "-k 'out_of_memory or number_of_processes or cpu_quota or cpu_set or huge_pages or io_limits or device or frozen or "
    "down_to_the_group or unified or pids_limit'"
)
SETS = {
    "smoke": Set(runs=(SMOKE,), timeout=600),
    "v2": Set(
        runs=(
            "tests/kernel/linux tests/kernel/oci",
            f"tests/kernel/runtime {TOO_SLOW}",
            f"tests/kernel/security {ONE_CLIENT}",
            "tests/blackbox/test_limits.py tests/blackbox/test_run.py tests/blackbox/test_look_inside.py "
            f"{ONE_CLIENT}",
        ),
        timeout=7200,
    ),
    "systemd": Set(
        runs=(
            "tests/kernel/runtime/test_runtime_systemd_driver.py tests/blackbox/test_systemd_cgroups.py",
            "SYSTEMD tests/kernel/oci/test_oci_flags.py tests/kernel/oci/test_oci_process.py",
            f"SYSTEMD tests/blackbox/test_limits.py {ONE_CLIENT}",
            "tests/kernel/linux/test_linux_cgroup.py",
        ),
        systemd=True,
    ),
    "hybrid": Set(
        runs=(
            "tests/kernel/runtime/test_runtime_systemd_driver.py tests/blackbox/test_systemd_cgroups.py",
            f"SYSTEMD tests/blackbox/test_limits.py {ONE_CLIENT}",
            f"tests/kernel/linux/test_linux_cgroup.py tests/blackbox/test_limits.py {ONE_CLIENT}",
        ),
        layout="hybrid",
        systemd=True,
    ),
    "v1": Set(
        runs=(
            "tests/kernel/linux/test_linux_cgroup.py tests/kernel/runtime/test_runtime_limits.py",
            f"tests/blackbox/test_limits.py {ONE_CLIENT}",
        ),
        layout="v1",
    ),
}
DRIVERS = (
    "SATSUMA_TEST_OCI_FLAGS=--systemd-cgroup SATSUMA_TEST_FLAGS='--exec-opt native.cgroupdriver=systemd'"
)


def command_of(chosen: Set) -> str:
    """Return the shell command that makes all runs of a set and fails when one of them does."""
    lines = ["failed=0"]
    for run in chosen.runs:
        environment = f"{DRIVERS} " if run.startswith("SYSTEMD ") else ""
        arguments = run.removeprefix("SYSTEMD ")
        lines += [f"echo {shlex.quote(f'+ {run}')}", f"{environment}{PYTEST} {arguments} || failed=1"]
    return "\n".join([*lines, "exit $failed"])


def run(name: str) -> machine.Result:
    """Run one set.

    Raises:
        machine.Unavailable: there can be no machine here.
    """
    for directory in ("src", "tests"):  # compiled once, and not by every process of every guest
        compileall.compile_dir(str(machine.PROJECT / directory), quiet=2)
    chosen = SETS[name]
    return machine.run(
        command_of(chosen),
        layout=chosen.layout,
        systemd=chosen.systemd,
        timeout=chosen.timeout,
        memory=4096,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("sets", nargs="*", metavar="SET", help=f"of {', '.join(SETS)}; all without one")
    chosen = parser.parse_args(arguments).sets or list(SETS)
    if unknown := set(chosen) - SETS.keys():
        parser.error(f"no such set: {', '.join(sorted(unknown))}")
    failed = []
    for name in chosen:
        print(f"=== {name}", flush=True)
        try:
            result = run(name)
        except machine.Unavailable as error:
            print(f"no virtual machine: {error}", file=sys.stderr)
            return 125
        print(result.output, end="")
        if result.status is None:
            print(f"--- the machine did not get to the end; its console:\n{result.console}")
        if result.status != 0:
            failed.append(name)
        print(
            f"=== {name}: {'passed' if result.status == 0 else 'failed'} in {result.seconds:.0f} s",
            flush=True,
        )
    if failed:
        print(f"failed: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
