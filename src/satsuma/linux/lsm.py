"""Which of the two security modules that containers name are at work in this kernel.

Source: apparmor(7), selinux(8); runc and crun ask the same files.
"""

from __future__ import annotations

import os


def has_apparmor() -> bool:
    """Tell whether AppArmor is built in and enabled."""
    try:
        with open("/sys/module/apparmor/parameters/enabled", "rb") as parameter:
            return parameter.read(1) == b"Y"
    except OSError:
        return False


def has_selinux() -> bool:
    """Tell whether SELinux is enabled, enforcing or not."""
    return os.path.exists("/sys/fs/selinux/enforce")
