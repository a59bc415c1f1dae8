"""Interfaces of the host that a container gets (`linux.netDevices`).

The parent moves them when the container's network namespace exists, with their permanent addresses, and sets them
up.  Nobody moves them back: when the namespace ends, the kernel returns hardware to the host and removes the rest.

Source: runtime-spec config-linux.md#network-devices; rtnetlink(7).
"""

from __future__ import annotations

import errno
import os
import socket
import struct

from satsuma.linux import netlink, ns
from satsuma.linux.netlink import NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, Message, attr, attrs_dict
from satsuma.linux.rtnetlink import (
    IFA_ADDRESS,
    IFA_BROADCAST,
    IFA_LABEL,
    IFA_LOCAL,
    RT_SCOPE_UNIVERSE,
    RTM_GETADDR,
    RTM_NEWADDR,
    Route,
    set_link,
)
from satsuma.runtime.errors import StartFailed, error_text

_IFADDR = struct.Struct("=BBBBI")
_IFA_F_PERMANENT = 0x80
_KEPT = (IFA_LOCAL, IFA_ADDRESS, IFA_BROADCAST)
assert IFA_LABEL not in _KEPT  # a label starts with the old name


def move(pid: int, devices: dict[str, str]) -> None:
    """Move interfaces into the network namespace of *pid*.

    Args:
        devices: name on the host -> name in the container, which may contain "%d" for a free number.
    Raises:
        StartFailed: one of them is not there, or its new name is taken.
    """
    netns = ns.open_ns(pid, "net")
    try:
        with Route() as outside, _route_inside(netns) as inside:
            for name, new in devices.items():
                try:
                    _move(outside, inside, netns, name, new)
                except OSError as error:
                    text = (
                        f"unable to move network device {name} to the container as {new}: {error_text(error)}"
                    )
                    raise StartFailed(f"unable to start container process: {text}") from error
    finally:
        os.close(netns)


def _route_inside(netns: int) -> Route:
    """Return a socket that belongs to another namespace; a socket stays in the one where it was made."""
    own = ns.open_ns("self", "net")
    try:
        ns.setns(netns, "net")
        try:
            return Route()
        finally:
            ns.setns(own, "net")
    finally:
        os.close(own)


def _move(outside: Route, inside: Route, netns: int, name: str, new: str) -> None:
    link = outside.link(name)
    if link is None:
        raise OSError(errno.ENODEV, "no such device")
    addresses = _permanent_addresses(outside, link.index)
    before = {entry.name for entry in inside.links()}
    if new in before:
        # The kernel would move it first and refuse the name then.
        raise OSError(errno.EEXIST, "file exists")
    outside.run(set_link(link.index, name=new, netns_fd=netns))
    arrived = next(entry for entry in inside.links() if entry.name not in before)
    inside.run(*(_again(arrived.index, payload) for payload in addresses), set_link(arrived.index, up=True))


def _permanent_addresses(route: Route, index: int) -> list[bytes]:
    """Return the messages of the addresses that somebody has configured, of both families."""
    found = []
    for family in (socket.AF_INET, socket.AF_INET6):
        request = Message(RTM_GETADDR, _IFADDR.pack(family, 0, 0, 0, 0), NLM_F_DUMP)
        for kind, payload in route.socket.dump(request):
            _, _, flags, scope, owner = _IFADDR.unpack_from(payload)
            permanent = flags & _IFA_F_PERMANENT and scope == RT_SCOPE_UNIVERSE
            if kind == RTM_NEWADDR and owner == index and permanent:
                found.append(payload)
    return found


def _again(index: int, payload: bytes) -> netlink.Message:
    family, length, _, scope, _ = _IFADDR.unpack_from(payload)
    body = _IFADDR.pack(family, length, 0, scope, index)
    for kind, data in attrs_dict(payload[_IFADDR.size :]).items():
        if kind in _KEPT:
            body += attr(kind, data)
    return Message(RTM_NEWADDR, body, NLM_F_CREATE | NLM_F_EXCL)
