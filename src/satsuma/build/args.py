"""Build arguments: which ARG is visible where, and with which value.

A value comes from, in this order: `--build-arg`, the ARG's own default, the ARG of the same name before the first
FROM.  The proxy variables need no ARG; they are no part of the history nor of the cache key.

Source: docs.docker.com/reference/dockerfile/#scope, #predefined-args, #automatic-platform-args-in-the-global-scope.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

__all__ = ["PREDEFINED", "BuildArgs"]

PREDEFINED = frozenset(
    name
    for stem in ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
    for name in (stem, stem.lower())
)


class BuildArgs:
    """The arguments of one build; `stage` gives the scope of one stage."""

    __slots__ = ("_given", "_global", "_platform", "_stage", "referenced")

    def __init__(self, given: Mapping[str, str | None], platform: Mapping[str, str] | None = None) -> None:
        """Args: platform: the automatic arguments (TARGETARCH …), visible before FROM and where declared."""
        self._given = dict(given)
        self._platform = dict(platform or {})
        self._global: dict[str, str | None] = {}
        self._stage: dict[str, str | None] = {}
        self.referenced: set[str] = set()

    def stage(self) -> BuildArgs:
        """Return the scope of a new stage: nothing is declared in it yet; `referenced` is shared."""
        scope = BuildArgs(self._given, self._platform)
        scope._global = self._global
        scope.referenced = self.referenced
        return scope

    def declare_global(self, key: str, value: str | None) -> None:
        """An ARG before the first FROM."""
        self._global[key] = value
        self.referenced.add(key)

    def declare(self, key: str, value: str | None) -> None:
        """An ARG in a stage."""
        self._stage[key] = value
        self.referenced.add(key)

    def _value(self, key: str, default: str | None) -> str | None:
        given = self._given.get(key)
        if given is not None:
            return given
        if default is not None:
            return default
        value = self._global.get(key)
        return self._platform.get(key) if value is None else value

    def _values(self, declared: Mapping[str, str | None]) -> dict[str, str]:
        names = [*declared, *(name for name in PREDEFINED if name not in declared)]
        found = ((name, self._value(name, declared.get(name))) for name in names)
        return {name: value for name, value in found if value is not None}

    def for_from(self) -> dict[str, str]:
        """Return the variables that FROM and later global ARGs see."""
        return self._platform | self._values(self._global)

    def for_stage(self, env: Mapping[str, str]) -> dict[str, str]:
        """Return the arguments that count in this stage: an ENV of the same name hides an ARG."""
        return {key: value for key, value in self._values(self._stage).items() if key not in env}

    def for_history(self, values: Mapping[str, str]) -> list[str]:
        """Return `|n`, `K=V` … as they stand before the command of a RUN; empty without any argument."""
        if not values:
            return []
        shown = sorted(f"{k}={v}" for k, v in values.items() if k in self._stage or k not in PREDEFINED)
        return [f"|{len(shown)}", *shown]

    def unused(self) -> Sequence[str]:
        """Return the given arguments that no ARG took, sorted."""
        return sorted(key for key in self._given if key not in self.referenced and key not in PREDEFINED)
