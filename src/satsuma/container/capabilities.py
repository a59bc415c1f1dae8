"""`--cap-add` and `--cap-drop`: names as people write them, and the set that results.

Source: moby daemon/pkg/oci/caps/utils.go of 28.5.2; capabilities(7).
"""

from __future__ import annotations

from collections.abc import Iterable

from satsuma.base.errors import InvalidParameter

ALL_CAPABILITIES = tuple(
    "CAP_" + name
    for name in (
        "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE "
        "NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO "
        "SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME "
        "SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG "
        "WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"
    ).split()
)
DEFAULT_CAPABILITIES = tuple(
    "CAP_" + name
    for name in (
        "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE "
        "SYS_CHROOT KILL AUDIT_WRITE"
    ).split()
)
_KNOWN = frozenset(ALL_CAPABILITIES)


def normalize(names: Iterable[str] | None) -> list[str]:
    """Return kernel names for what a client wrote: any case, with or without `CAP_`, or `ALL`.

    Raises:
        InvalidParameter: `unknown capability: "CAP_X"`.
    """
    answer = []
    for name in names or ():
        upper = name.upper()
        if upper in ("ALL", "CAP_ALL"):
            answer.append("ALL")
            continue
        full = upper if upper.startswith("CAP_") else "CAP_" + upper
        if full not in _KNOWN:
            raise InvalidParameter(f'unknown capability: "{full}"')
        answer.append(full)
    return answer


def check_capabilities(add: list[str] | None, drop: list[str] | None) -> None:
    for words, names in (("CapAdd", add), ("CapDrop", drop)):
        try:
            normalize(names)
        except InvalidParameter as error:
            raise InvalidParameter(f"invalid {words}: {error}")


def effective_capabilities(
    add: list[str] | None,
    drop: list[str] | None,
    *,
    privileged: bool,
    available: Iterable[str] = ALL_CAPABILITIES,
) -> list[str]:
    """Return the capability set of a container.

    Args:
        available: what the daemon's own bounding set has; a container cannot get more, and `--privileged` means
            all of these.
    """
    have = [name for name in ALL_CAPABILITIES if name in frozenset(available)]
    added, dropped = normalize(add), normalize(drop)
    if privileged:
        return have
    if "ALL" in added:
        return [name for name in have if name not in dropped]
    base = [] if "ALL" in dropped else [name for name in DEFAULT_CAPABILITIES if name not in dropped]
    base += [name for name in added if name not in base]
    return base
