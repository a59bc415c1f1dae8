"""A user's seccomp profile, in Docker's form, as the OCI object for one container.

Docker's profiles carry conditions (capabilities, architectures, kernel versions) that are settled when the
container starts; an OCI profile has none and passes through.

Source: moby profiles/seccomp/seccomp_linux.go `setupSeccomp` of 28.5.2.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from satsuma.base.errors import InvalidParameter

Json = dict[str, Any]

_MACHINES = {
    "x86_64": ("amd64", "SCMP_ARCH_X86_64"),
    "aarch64": ("arm64", "SCMP_ARCH_AARCH64"),
    "armv7l": ("arm", "SCMP_ARCH_ARM"),
    "ppc64le": ("ppc64le", "SCMP_ARCH_PPC64LE"),
    "riscv64": ("riscv64", "SCMP_ARCH_RISCV64"),
    "s390x": ("s390x", "SCMP_ARCH_S390X"),
}


def resolve_profile(
    profile: Json, capabilities: Iterable[str], *, machine: str = "", kernel: str = ""
) -> Json | None:
    """Return the OCI `linux.seccomp` object, None for a profile that filters nothing.

    Raises:
        InvalidParameter: the profile contradicts itself.
    """
    names = frozenset(capabilities)
    info = os.uname()
    arch, native = _MACHINES.get(machine or info.machine, ("", ""))
    if not profile.get("defaultAction") and not profile.get("syscalls"):
        return None
    if profile.get("architectures") and profile.get("archMap"):
        raise InvalidParameter(
            "both 'architectures' and 'archMap' are specified in the seccomp profile, use either one"
        )
    answer: Json = {
        key: profile[key]
        for key in ("defaultAction", "defaultErrnoRet", "flags", "listenerPath", "listenerMetadata")
        if profile.get(key) is not None
    }
    answer["architectures"] = profile.get("architectures") or _architectures(profile.get("archMap"), native)
    version = _kernel_version(kernel or info.release)
    answer["syscalls"] = [
        _rule(rule)
        for rule in profile.get("syscalls") or []
        if _applies(rule, names, arch=arch, kernel=version)
    ]
    return answer


def _architectures(arch_map: list[Json] | None, native: str) -> list[str]:
    for item in arch_map or []:
        if item.get("architecture") == native:
            return [native, *(item.get("subArchitectures") or [])]
    return []


def _applies(rule: Json, capabilities: frozenset[str], *, arch: str, kernel: tuple[int, int]) -> bool:
    excludes, includes = rule.get("excludes") or {}, rule.get("includes") or {}
    if arch in (excludes.get("arches") or ()):
        return False
    if any(name in capabilities for name in excludes.get("caps") or ()):
        return False
    if excludes.get("minKernel") and kernel >= _kernel_version(excludes["minKernel"]):
        return False
    if includes.get("arches") and arch not in includes["arches"]:
        return False
    if not all(name in capabilities for name in includes.get("caps") or ()):
        return False
    return not includes.get("minKernel") or kernel >= _kernel_version(includes["minKernel"])


def _rule(rule: Json) -> Json:
    names = list(rule.get("names") or [])
    if rule.get("name"):
        if names:
            raise InvalidParameter(
                "both 'name' and 'names' are specified in the seccomp profile, use either one"
            )
        names = [rule["name"]]
    answer: Json = {"names": names, "action": rule.get("action")}
    if rule.get("errnoRet") is not None:
        answer["errnoRet"] = rule["errnoRet"]
    if rule.get("args"):
        answer["args"] = rule["args"]
    return answer


def _kernel_version(text: str) -> tuple[int, int]:
    major, _, rest = text.partition(".")
    minor = "".join(c for c in rest.partition(".")[0].partition("-")[0] if c in "0123456789")
    return (int(major) if major.isascii() and major.isdigit() else 0), int(minor or 0)
