"""Health checks without clocks or processes: what one probe's result does to a container's health.

Source: moby daemon/health.go of 28.5.2.
"""

from __future__ import annotations

from msgspec import structs

from satsuma.container.record import Health, ProbeResult
from satsuma.spec.docker import ContainerConfig, HealthConfig

DEFAULT_INTERVAL = 30.0
DEFAULT_TIMEOUT = 30.0
DEFAULT_START_INTERVAL = 5.0
DEFAULT_RETRIES = 3
KEPT_RESULTS = 5
OUTPUT_LIMIT = 4096


def probe_command(config: ContainerConfig) -> list[str] | None:
    """Return the argv of the check, None when there is none."""
    test = config.healthcheck.test if config.healthcheck else []
    if len(test) < 2 or test[0] not in ("CMD", "CMD-SHELL"):
        return None
    if test[0] == "CMD":
        return test[1:]
    return [*(config.shell or ["/bin/sh", "-c"]), *test[1:]]


def pause_before_probe(check: HealthConfig, health: Health, since_start: float) -> float:
    """Return the seconds until the next probe: shorter ones while the container is still starting."""
    if since_start < check.start_period / 1e9 and health.status == "starting":
        return check.start_interval / 1e9 or DEFAULT_START_INTERVAL
    return check.interval / 1e9 or DEFAULT_INTERVAL


def probe_timeout(check: HealthConfig) -> float:
    return check.timeout / 1e9 or DEFAULT_TIMEOUT


def after_probe(health: Health, check: HealthConfig, result: ProbeResult, *, started_ns: int) -> Health:
    """Return the health after *result*; failures within the start period of a starting container do not count."""
    log = [*health.log, result][-KEPT_RESULTS:]
    if result.exit_code == 0:
        return Health(status="healthy", failing_streak=0, log=log)
    if health.status == "starting" and result.start_ns - started_ns < check.start_period:
        return structs.replace(health, log=log)
    streak = health.failing_streak + 1
    retries = check.retries if check.retries > 0 else DEFAULT_RETRIES
    return Health(status="unhealthy" if streak >= retries else health.status, failing_streak=streak, log=log)
