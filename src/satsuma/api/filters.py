"""The `filters` parameter: two spellings in, one mapping out, unknown keys refused.

Go clients send `{"label":{"a=b":true}}`, docker-py `{"label":["a=b"]}`.  What a filter does is the engine's.

Source: moby api/types/filters; accepted keys: the daemon's `acceptedPsFilterTags` and its like, measured on 28.5.2.
"""

from __future__ import annotations

import msgspec

from satsuma.base.errors import InvalidParameter

Filters = dict[str, list[str]]

_LABELS = ("label", "label!")

ACCEPTED: dict[str, frozenset[str]] = {
    "containers": frozenset(
        (
            "ancestor before exited expose health id is-task isolation label name network publish since status "
            "volume"
        ).split()
    ),
    "images": frozenset("before dangling label label! reference since until".split()),
    "networks": frozenset("dangling driver id label name scope type".split()),
    "volumes": frozenset("dangling driver label name".split()),
    "containers/prune": frozenset((*_LABELS, "until")),
    "images/prune": frozenset((*_LABELS, "dangling", "until")),
    "networks/prune": frozenset((*_LABELS, "until")),
    "volumes/prune": frozenset((*_LABELS, "all")),
    "build/prune": frozenset(
        "until unused-for id parent type description inuse shared private label label!".split()
    ),
}


def parse_filters(text: str, of: str | None = None) -> Filters:
    """Decode the parameter.

    Args:
        text: JSON in either spelling, or nothing.
        of: key of `ACCEPTED` that says which filters there are; None takes all.
    Raises:
        InvalidParameter: `invalid filter`, or `invalid filter 'x'` for an unknown one.
    """
    if not text:
        return {}
    try:
        raw = msgspec.json.decode(text.encode("utf-8", "replace"))
    except (msgspec.DecodeError, RecursionError):
        raise InvalidParameter("invalid filter") from None
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        raise InvalidParameter("invalid filter")
    filters = _from_maps(raw)
    if filters is None:
        filters = _from_lists(raw)
    if of is not None:
        for key in filters:
            if key not in ACCEPTED[of]:
                raise InvalidParameter(f"invalid filter '{key}'")
    return filters


def _from_maps(raw: dict[str, object]) -> Filters | None:
    filters: Filters = {}
    for key, values in raw.items():
        if values is None:
            filters[key] = []
        elif isinstance(values, dict) and all(isinstance(flag, bool) for flag in values.values()):
            filters[key] = list(values)
        else:
            return None
    return filters


def _from_lists(raw: dict[str, object]) -> Filters:
    filters: Filters = {}
    for key, values in raw.items():
        if values is not None and not (isinstance(values, list) and all(isinstance(v, str) for v in values)):
            raise InvalidParameter("invalid filter")
        filters[key] = list(dict.fromkeys(values or []))
    return filters
