"""What a client may ask for, and what is refused at once."""

from __future__ import annotations

from typing import Any

import pytest

from satsuma.base.errors import EngineError, InvalidParameter, Unsupported
from satsuma.build.options import BuildOptions, validate


def test_tags_are_completed_and_made_unique() -> None:
    options = BuildOptions(tags=("app", "app:latest", "app:1", "reg.example:5000/a/b"))
    assert validate(options, architecture="amd64") == [
        ("app", "latest"),
        ("app", "1"),
        ("reg.example:5000/a/b", "latest"),
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tags": ("UPPER",)}, "invalid reference format"),
        ({"tags": ("a:b:c",)}, "invalid reference format"),
        ({"tags": ("a@sha256:" + "0" * 64,)}, "build tag cannot contain a digest"),
        ({"squash": True}, "squash is only supported with experimental mode"),
        ({"cache_from": ("A B",)}, "invalid reference format"),
        ({"security_opt": ("seccomp=unconfined",)}, "does not support setting security options on build"),
        ({"platform": "plan9/amd64"}, "unknown operating system"),
        ({"platform": "linux/pdp11"}, "unknown operating system"),
    ],
)
def test_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidParameter, match=message):
        validate(BuildOptions(**options), architecture="amd64")


@pytest.mark.parametrize("platform", ["linux", "linux/amd64", "amd64", "linux/x86_64", "LINUX/AMD64", ""])
def test_this_machines_platform_is_fine(platform: str) -> None:
    assert validate(BuildOptions(platform=platform), architecture="amd64") == []


def test_another_platform_is_unsupported() -> None:
    with pytest.raises(Unsupported, match="building for linux/arm64 on amd64"):
        validate(BuildOptions(platform="linux/arm64"), architecture="amd64")


def test_errors_are_of_the_engines_tree() -> None:
    assert issubclass(InvalidParameter, EngineError)
