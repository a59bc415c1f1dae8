"""Named points at which a test makes the engine fail: crash, error or delay.

`SATSUMA_FAILPOINTS="store.commit.renamed=exit;network.allocate=error(ENOSPC);x=sleep(0.5)"`.  A point that
is not named costs one dictionary look-up; without the variable one comparison.
"""

from __future__ import annotations

import errno
import os
import time

VARIABLE = "SATSUMA_FAILPOINTS"
EXIT_STATUS = 86
"""Status of a process that a failpoint ended, so that a test can tell it from every other death."""


def _parse(text: str) -> dict[str, str]:
    return {
        name.strip(): action.strip()
        for name, _, action in (item.partition("=") for item in text.split(";") if item)
    }


_active: dict[str, str] | None = _parse(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None


def failpoint(name: str) -> None:
    """Do what the environment asks at the point *name*: nothing, as a rule.

    Raises:
        OSError: for `error(ENAME)`, with that errno.
    """
    if _active is None:
        return
    action = _active.get(name)
    if action is None:
        return
    verb, _, argument = action.rstrip(")").partition("(")
    if verb == "exit":
        os._exit(EXIT_STATUS)
    if verb == "sleep":
        time.sleep(float(argument))
    elif verb == "error":
        number = getattr(errno, argument or "EIO")
        raise OSError(number, os.strerror(number), f"failpoint {name}")
    else:
        raise ValueError(f"unknown failpoint action {action!r}")
