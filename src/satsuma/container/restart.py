"""Restart policies: whether a container that ended starts again, and after which pause.

Pure arithmetic; the engine sleeps and starts.  Source: moby restartmanager/restartmanager.go.
"""

from __future__ import annotations

from satsuma.spec.docker import RestartPolicy

FIRST_PAUSE = 0.1
LONGEST_PAUSE = 60.0
STEADY = 10.0
"""A container that ran this many seconds has recovered: the next pause is the first one again."""


def should_restart(
    policy: RestartPolicy, *, exit_code: int, restart_count: int, stopped_by_hand: bool
) -> bool:
    """Tell whether *policy* wants a container that ended with *exit_code* to run again."""
    if stopped_by_hand:
        return False
    if policy.name in ("always", "unless-stopped"):
        return True
    if policy.name == "on-failure" and exit_code != 0:
        return policy.maximum_retry_count == 0 or restart_count < policy.maximum_retry_count
    return False


def next_pause(previous: float, ran_for: float) -> float:
    """Return the seconds to wait: 0.1, doubled on each quick death up to a minute; *previous* 0 means none yet."""
    if previous == 0 or ran_for >= STEADY:
        return FIRST_PAUSE
    return min(previous * 2, LONGEST_PAUSE)


def should_start_at_boot(
    policy: RestartPolicy, *, exit_code: int, restart_count: int, stopped_by_hand: bool
) -> bool:
    """Tell whether a daemon that starts should bring this container up.

    A manual stop counts for `unless-stopped` only: `always` comes up, and so does `on-failure` after any code but 0,
    which is what a stopped container usually has (observed on dockerd 28.5).
    """
    return should_restart(
        policy,
        exit_code=exit_code,
        restart_count=restart_count,
        stopped_by_hand=stopped_by_hand and policy.name == "unless-stopped",
    )
