"""What `satsuma-oci --help` prints, for the program and for each command.

Source: runc's own help texts, whose shape people and scripts know.
"""

from __future__ import annotations

from satsuma.runtime.cliargs import Flags

# command: (what it does, arguments)
_COMMANDS = {
    "checkpoint": ("checkpoint a running container", "<container-id>"),
    "create": ("create a container", "<container-id>"),
    "delete": (
        "delete any resources held by the container often used with detached container",
        "<container-id>",
    ),
    "events": (
        "display container events such as OOM notifications, cpu, memory, and IO usage statistics",
        "<container-id>",
    ),
    "exec": (
        "execute new process inside the container",
        "<container-id> <command> [command options]  || -p process.json <container-id>",
    ),
    "features": ("show the enabled features", ""),
    "kill": (
        "kill sends the specified signal (default: SIGTERM) to the container's init process",
        "<container-id> [signal]",
    ),
    "list": ("lists containers started with the given root", ""),
    "pause": ("pause suspends all processes inside the container", "<container-id>"),
    "plan": ("show each step of a bundle's start with its reason, without doing it", "[<bundle>]"),
    "ps": ("ps displays the processes running inside a container", "<container-id> [ps options]"),
    "restore": ("restore a container from a previous checkpoint", "<container-id>"),
    "resume": ("resumes all processes that have been previously paused", "<container-id>"),
    "run": ("create and run a container", "<container-id>"),
    "spec": ("create a new specification file", ""),
    "start": ("executes the user defined process in a created container", "<container-id>"),
    "state": ("output the state of a container", "<container-id>"),
    "update": ("update container resource constraints", "<container-id>"),
}
_FLAGS = {
    "additional-gids": "additional gids",
    "all": "send the specified signal to all processes inside the container",
    "apparmor": "set the apparmor profile for the process",
    "auto-dedup": "enable auto deduplication of memory images",
    "blkio-weight": "weight of the container's IO, 10 to 1000",
    "bundle": "path to the root of the bundle directory, defaults to the current directory",
    "cap": "add a capability to the bounding set for the process",
    "cgroup": "run the process in an (existing) sub-cgroup(s). Format is [<controller>:]<cgroup>.",
    "console-socket": "path to an AF_UNIX socket which will receive the master end of the console's pseudoterminal",
    "cpu-burst": "time that may be saved up beyond the quota (in usecs)",
    "cpu-idle": "1: run only when nobody else wants the processor",
    "cpu-period": "CPU CFS period to be used for hardcapping (in usecs). 0 to use system default",
    "cpu-quota": "CPU CFS hardcap limit (in usecs). Allowed cpu time in a given period",
    "cpu-rt-period": "CPU realtime period to be used for hardcapping (in usecs). 0 to use system default",
    "cpu-rt-runtime": "CPU realtime hardcap limit (in usecs). Allowed cpu time in a given period",
    "cpu-share": "CPU shares (relative weight vs. other containers)",
    "cpuset-cpus": "CPU(s) to use",
    "cpuset-mems": "Memory node(s) to use",
    "cwd": "current working directory in the container",
    "detach": "detach from the container's process",
    "empty-ns": "create a namespace, but don't restore its properties",
    "env": "set environment variables",
    "explain": "show each step with its reason and the time that it took",
    "ext-unix-sk": "allow external unix sockets",
    "file-locks": "handle file locks, for safety",
    "force": "forcibly deletes the container if it is still running (uses SIGKILL)",
    "format": 'select one of: table or json (default: "table")',
    "help": "show help",
    "ignore-paused": "allow exec in a paused container",
    "image-path": "path of the image files",
    "interval": "set the stats collection interval (default: 5s)",
    "keep": "do not delete the container after it exits",
    "kernel-memory": "obsolete; do not use",
    "kernel-memory-tcp": "obsolete; do not use",
    "l3-cache-schema": "the string of Intel RDT/CAT L3 cache schema",
    "leave-running": "leave the process running after checkpointing",
    "lsm-profile": "specify an LSM profile to be used during restore in the form of TYPE:NAME",
    "manage-cgroups-mode": "cgroups mode: 'soft' (default), 'full' and 'strict'",
    "mem-bw-schema": "the string of Intel RDT/MBA memory bandwidth schema",
    "memory": "memory limit (in bytes)",
    "memory-reservation": "memory reservation or soft_limit (in bytes)",
    "memory-swap": "total memory usage (memory + swap); set '-1' to enable unlimited swap",
    "no-new-keyring": "do not create a new session keyring for the container",
    "no-new-privs": "set the no new privileges value for the process",
    "no-pivot": "do not use pivot root to jail process inside rootfs, for a rootfs on top of a ramdisk",
    "no-subreaper": "disable the use of the subreaper used to reap reparented processes",
    "page-server": "ADDRESS:PORT of the page server",
    "parent-path": "path for previous image files in pre-dump",
    "pid-file": "specify the file to write the process id to",
    "pidfd-socket": "path to an AF_UNIX socket which will receive a file descriptor referencing the process",
    "pids-limit": "maximum number of pids allowed in the container",
    "pre-dump": "dump container's memory information only, leave the container running after this",
    "preserve-fds": "pass N additional file descriptors to the container (stdio + $LISTEN_FDS + N in total)",
    "process": "path to the process.json",
    "process-label": "set the asm process label for the process commonly used with selinux",
    "quiet": "display only container IDs",
    "resources": "path to the file containing the resources to update or '-' to read from the standard input",
    "rootless": "generate a configuration for a rootless container",
    "shell-job": "allow shell jobs",
    "stats": "display the container's stats then exit",
    "tcp-established": "allow open tcp connections",
    "tty": "allocate a pseudo-TTY",
    "user": "UID (format: <uid>[:<gid>])",
    "work-path": "path for saving work files and logs",
}
_GLOBALS = {
    "criu": "ignored, for runc's callers",
    "debug": "enable debug logging",
    "help": "show help",
    "log": "set the log file to write logs to (default is '/dev/stderr')",
    "log-format": "set the log format ('text' (default), or 'json')",
    "missing-lsm": "what an AppArmor profile or SELinux label does on a kernel without: 'refuse' (default), 'warn'",
    "root": "root directory for storage of container state (this should be located in tmpfs)",
    "rootless": "ignore cgroup permission errors ('false' or 'auto')",
    "systemd-cgroup": 'systemd makes the cgroups; cgroupsPath is of the form "slice:prefix:name"',
    "version": "print the version",
}


def _options(flags: Flags, texts: dict[str, str]) -> list[str]:
    rows = []
    for name, kind, aliases in flags.listed():
        value = "" if kind == "bool" else " value"
        names = [f"{'--' if len(word) > 1 else '-'}{word}{value}" for word in (name, *aliases)]
        rows.append((", ".join(names), texts.get(name, "")))
    width = max((len(names) for names, _ in rows), default=0) + 2
    return [f"   {names.ljust(width)}{text}".rstrip() for names, text in rows]


def command_help(program: str, command: str, flags: str) -> str:
    """Return the help of one command."""
    text, arguments = _COMMANDS[command]
    options = _options(Flags(flags), _FLAGS) if flags else []
    usage = " ".join(
        word for word in (program, command, "[command options]" if flags else "", arguments) if word
    )
    lines = ["NAME:", f"   {program} {command} - {text}", "", "USAGE:", f"   {usage}"]
    if options:
        lines += ["", "OPTIONS:", *options]
    return "\n".join(lines)


def program_help(program: str, version: str, flags: Flags, commands: list[str]) -> str:
    """Return the help of the whole program."""
    width = max(map(len, commands)) + 2
    return "\n".join(
        [
            "NAME:",
            f"   {program} - Open Container Initiative runtime",
            "",
            "To start a new instance of a container:",
            "",
            f"    # {program} run [ -b bundle ] <container-id>",
            "",
            "USAGE:",
            f"   {program} [global options] command [command options] [arguments...]",
            "",
            "VERSION:",
            f"   {version}",
            "",
            "COMMANDS:",
            *(f"   {name.ljust(width)}{_COMMANDS[name][0]}" for name in commands),
            "",
            "GLOBAL OPTIONS:",
            *_options(flags, _GLOBALS),
        ]
    )
