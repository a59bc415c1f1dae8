"""What is said to CRIU and what it answers, as bytes."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from satsuma.runtime import criu


def test_numbers_texts_and_messages_have_the_documented_form() -> None:
    """The examples of protobuf.dev "Encoding"; a negative number takes ten bytes."""
    assert criu.encode([(1, 150)]) == bytes.fromhex("089601")
    assert criu.encode([(2, "testing")]) == bytes.fromhex("120774657374696e67")
    assert criu.encode([(3, [(1, 150)])]) == bytes.fromhex("1a03089601")
    assert criu.encode([(1, -1)]) == bytes.fromhex("08ffffffffffffffffff01")
    assert criu.encode([(26, True)]) == bytes.fromhex("d00101")


FIELDS = st.dictionaries(
    st.integers(1, 1000), st.integers(0, (1 << 64) - 1) | st.text(max_size=300), max_size=8
)


@given(FIELDS)
def test_what_is_encoded_is_decoded(fields: dict[int, int | str]) -> None:
    expected = {key: value if isinstance(value, int) else value.encode() for key, value in fields.items()}
    assert criu.decode(criu.encode(list(fields.items()))) == expected


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_an_error(data: bytes) -> None:
    try:
        criu.decode(data)
    except ValueError as error:
        assert "malformed" in str(error)


def test_the_first_error_of_the_log_is_the_reason(tmp_path: Path) -> None:
    log = tmp_path / "dump.log"
    assert criu.first_error(str(log)) == ""
    log.write_text(
        "(00.1) x\n(00.2) Error (criu/a.c:1): what happened\n(00.3) Error (criu/b.c:2): Dumping FAILED.\n"
    )
    assert criu.first_error(str(log)) == "(criu/a.c:1): what happened"


@pytest.mark.parametrize(
    ("script", "text"), [("exit 1", "criu check failed"), ("echo no vdso; exit 1", "no vdso")]
)
def test_a_criu_that_does_not_work_here_says_why(tmp_path: Path, script: str, text: str) -> None:
    program = tmp_path / "criu"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    assert text in criu.unusable(str(program))
    program.write_text("#!/bin/sh\n[ $1 = check ]\n")
    assert criu.unusable(str(program)) == ""
    assert "was not found" in criu.unusable(str(tmp_path / "none"))
