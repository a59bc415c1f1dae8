"""`--change` of commit and import: Dockerfile instructions applied to a config.

Owns only the entry; grammar and effect belong to `wire.dockerfile`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from satsuma.wire.dockerfile import apply_changes as _apply_changes


def apply_change(config: dict[str, Any], instruction: str) -> dict[str, Any]:
    """Return a copy of *config* (Docker's JSON shape) changed by one instruction such as `CMD ["sh"]`.

    Raises:
        InvalidParameter: in Docker's words.
    """
    return apply_changes(config, [instruction])


def apply_changes(config: dict[str, Any], instructions: Iterable[str]) -> dict[str, Any]:
    """Return a copy of *config* changed by the instructions, in order."""
    changed: dict[str, Any] = _apply_changes(config, instructions)
    return changed
