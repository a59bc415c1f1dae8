"""Platform names, against what containerd's parser answers."""

from __future__ import annotations

import pytest

from satsuma.base.errors import InvalidParameter
from satsuma.wire import platforms


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("linux/amd64", ("linux", "amd64", "")),
        ("Linux/x86_64", ("linux", "amd64", "")),
        ("linux/arm64/v8", ("linux", "arm64", "")),
        ("aarch64", ("linux", "arm64", "")),
        ("linux/arm", ("linux", "arm", "v7")),
        ("linux/arm/6", ("linux", "arm", "v6")),
        ("armel", ("linux", "arm", "v6")),
        ("linux/anything", ("linux", "anything", "")),
        ("windows", ("windows", platforms.host_architecture(), "")),
    ],
)
def test_parse(text: str, expected: tuple[str, str, str]) -> None:
    assert tuple(platforms.parse(text)) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("foo", '"foo": unknown operating system or architecture: invalid argument'),
        ("a/b/c/d", '"a/b/c/d": cannot parse platform specifier: invalid argument'),
        ("linux/", '"" is an invalid component of "linux/": platform specifier component must match '),
        ("li nux/amd64", '"li nux" is an invalid component of "li nux/amd64": '),
    ],
)
def test_refusals(text: str, words: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        platforms.parse(text)
    assert str(caught.value).startswith(words)
