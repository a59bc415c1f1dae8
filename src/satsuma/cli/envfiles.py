"""`--env-file` and `--label-file`: one `NAME=value` a line.

Source: docker documentation "docker run, --env-file"; measured on docker 28.2.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_BLANK = " \t"


def read_pairs(files: Iterable[str], given: Iterable[str], *, from_environment: bool) -> list[str]:
    """Return the lines of all *files*, then what was *given* on the command line.

    Args:
        files: names of files.
        given: `NAME=value` of the flags, which win because they come later.
        from_environment: a bare NAME in a file takes the value of this process's environment, and
            disappears without one; otherwise it is left out, as docker does with bare labels.
    Raises:
        ValueError: a file that cannot be read or does not parse, in docker's words.
    """
    found: list[str] = []
    for name in files:
        try:
            found += _parse(name, from_environment=from_environment)
        except FileNotFoundError as error:
            raise ValueError(f"open {name}: {(error.strerror or '').lower()}") from None
        except OSError as error:
            raise ValueError(
                f"invalid env file ({name}): read {name}: {(error.strerror or '').lower()}"
            ) from None
        except ValueError as error:
            raise ValueError(f"invalid env file ({name}): {error}") from None
    return [*found, *given]


def _parse(name: str, *, from_environment: bool) -> list[str]:
    with open(name, "rb") as file:
        data = file.read()
    found: list[str] = []
    for number, raw in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        try:
            line = raw.decode("utf-8").removesuffix("\r").lstrip(_BLANK)
        except UnicodeDecodeError:
            numbers = " ".join(map(str, raw))
            raise ValueError(f"invalid utf8 bytes at line {number}: [{numbers}]") from None
        if not line or line.startswith("#"):
            continue
        key, equals, value = line.partition("=")
        if not key.strip(_BLANK):
            raise ValueError(f"no variable name on line '{line}'")
        if " " in key or "\t" in key:
            raise ValueError(f"variable '{key}' contains whitespaces")
        if equals:
            found.append(f"{key}={value}")
        elif from_environment and key in os.environ:
            found.append(f"{key}={os.environ[key]}")
    return found


def as_map(pairs: Iterable[str]) -> dict[str, str]:
    """Return pairs as a dictionary; the last of equal keys wins."""
    return {key: value for key, _, value in (pair.partition("=") for pair in pairs)}
