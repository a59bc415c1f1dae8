"""Filters of `GET /networks` and `POST /networks/prune`.

Source: moby v28.5.2 daemon/network/filter.go, api/types/filters/parse.go.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from satsuma.base.clock import parse_time
from satsuma.base.errors import InvalidParameter
from satsuma.network.model import NetworkRecord

Filters = Mapping[str, Sequence[str]]

_LIST_KEYS = frozenset(("dangling", "driver", "id", "label", "name", "scope", "type"))
_PRUNE_KEYS = frozenset(("label", "label!", "until"))


def select(
    records: Iterable[NetworkRecord], filters: Filters, in_use: Callable[[NetworkRecord], bool]
) -> list[NetworkRecord]:
    """Return the networks that a list request wants.

    Raises:
        InvalidParameter: an unknown filter or value.
    """
    _check_keys(filters, _LIST_KEYS)
    dangling = _dangling(filters.get("dangling", ()))
    kinds = filters.get("type", ())
    for kind in kinds:
        if kind not in ("builtin", "custom"):
            raise InvalidParameter(f"invalid filter: 'type'='{kind}'")
    found = []
    for record in records:
        wanted = (
            _exact(filters.get("driver", ()), record.driver)
            and _match(filters.get("name", ()), record.name)
            and _match(filters.get("id", ()), record.id)
            and _exact(filters.get("scope", ()), "local")
            and matches_labels(filters.get("label", ()), record.labels)
            and (not kinds or ("builtin" if record.is_predefined else "custom") in kinds)
        )
        if wanted and (dangling is None or dangling == (not record.is_predefined and not in_use(record))):
            found.append(record)
    return found


def select_prunable(
    records: Iterable[NetworkRecord], filters: Filters, in_use: Callable[[NetworkRecord], bool], now_ns: int
) -> list[NetworkRecord]:
    """Return the unused, not predefined networks that a prune request wants to be gone."""
    _check_keys(filters, _PRUNE_KEYS)
    until = filters.get("until", ())
    if len(until) > 1:
        raise InvalidParameter("more than one until filter specified")
    limit: int | None = None
    if until:
        try:
            limit = parse_time(until[0], now=now_ns)
        except ValueError as error:
            raise InvalidParameter(str(error)) from None
    unwanted = filters.get("label!", ())
    return [
        record
        for record in records
        if not record.is_predefined
        and not in_use(record)
        and (limit is None or record.created_ns <= limit)
        and matches_labels(filters.get("label", ()), record.labels)
        and not (unwanted and matches_labels(unwanted, record.labels))
    ]


def matches_labels(wanted: Sequence[str], labels: Mapping[str, str]) -> bool:
    """Tell whether *labels* has all of *wanted*, each "key" or "key=value"."""
    for item in wanted:
        key, equals, value = item.partition("=")
        if key not in labels or (equals and labels[key] != value):
            return False
    return True


def _check_keys(filters: Filters, known: frozenset[str]) -> None:
    for key in filters:
        if key not in known:
            raise InvalidParameter(f"invalid filter '{key}'")


def _dangling(values: Sequence[str]) -> bool | None:
    if not values:
        return None
    if len(values) > 1:
        raise InvalidParameter('got more than one value for filter key "dangling"')
    if values[0] in ("1", "true"):
        return True
    if values[0] in ("0", "false"):
        return False
    raise InvalidParameter(
        """invalid value for filter 'dangling', must be "true" (or "1"), or "false" (or "0")"""
    )


def _exact(wanted: Sequence[str], value: str) -> bool:
    return not wanted or value in wanted


def _match(wanted: Sequence[str], value: str) -> bool:
    """Match as moby's filters: each value is the whole text or a regular expression found in it."""
    if not wanted or value in wanted:
        return True
    for pattern in wanted:
        try:
            if re.search(pattern, value):
                return True
        except re.error:
            continue
    return False
