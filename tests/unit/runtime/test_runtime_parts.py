"""Small parts: flags, JSON, state, interpreters, import budget."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from satsuma.runtime import cli, execargs, fastjson, features, finish, state
from satsuma.runtime.cliargs import Flags, UsageError
from satsuma.runtime.errors import ConfigError, RuntimeFailure

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(_JSON)
def test_fastjson_agrees_with_json(value: object) -> None:
    assert json.loads(fastjson.dumps(value)) == value
    assert json.loads(fastjson.dumps_indented(value)) == value
    assert fastjson.loads(json.dumps(value)) == value
    assert fastjson.loads(" \n" + json.dumps(value, indent=2) + "\t") == value


@given(st.text(max_size=30))
def test_garbage_is_a_value_error(text: str) -> None:
    try:
        expected = json.loads(text)
    except (ValueError, RecursionError):
        with pytest.raises(ValueError):
            fastjson.loads(text)
    else:
        try:
            assert fastjson.loads(text) == expected
        except ValueError:
            assert "NaN" in text or "Infinity" in text


def test_indented_form_is_that_of_go() -> None:
    assert fastjson.dumps_indented({"a": [1], "b": {}}) == '{\n  "a": [\n    1\n  ],\n  "b": {}\n}'


def test_flags() -> None:
    flags = Flags("tty,t env,e:list cwd:str n:int")
    values, rest = flags.parse(["-t", "--env", "A=1", "-e=B=2", "--cwd=/x", "-n", "-5", "id", "-t"])
    assert values == {"tty": True, "env": ["A=1", "B=2"], "cwd": "/x", "n": -5}
    assert rest == ["id", "-t"]
    assert flags.parse(["id", "-t"], stop_at_positional=False) == ({"tty": True}, ["id"])
    assert flags.parse(["--tty=false", "--", "-t"]) == ({"tty": False}, ["-t"])
    for bad in (["--foo"], ["--cwd"], ["-n", "x"], ["--tty=maybe"]):
        with pytest.raises(UsageError):
            flags.parse(bad)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("9", 9),
        ("KILL", 9),
        ("sigkill", 9),
        ("SIGRTMIN+3", 37),
        ("RTMAX-1", 63),
        ("SIGPOLL", 29),
        ("CHLD", 17),
    ],
)
def test_signals(text: str, number: int) -> None:
    assert cli.parse_signal(text) == number


@pytest.mark.parametrize("text", ["FOO", "-1", "RTMIN+99", "SIG", "\u0669", "9" * 20])
def test_unknown_signals(text: str) -> None:
    with pytest.raises(RuntimeFailure, match="unknown signal"):
        cli.parse_signal(text)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a b", "\u00e9", "a\n"])
def test_invalid_ids(name: str) -> None:
    with pytest.raises(RuntimeFailure, match="invalid container ID format"):
        state.check_id(name)


def test_valid_id_and_time() -> None:
    assert state.check_id("a_B+c-1.2") == "a_B+c-1.2"
    assert state.now_rfc3339().endswith("Z")


def test_process_of_exec_from_flags() -> None:
    config = {"process": {"env": ["A=1"], "cwd": "/w", "user": {"uid": 1}, "capabilities": {"bounding": []}}}
    process = execargs.process_from(
        config, {"user": "5:6", "env": ["B=2"], "tty": True, "cap": ["CAP_CHOWN"]}, ["id"]
    )
    assert process["args"] == ["id"] and process["terminal"] is True
    assert process["env"] == ["A=1", "B=2"] and process["cwd"] == "/w"
    assert (process["user"]["uid"], process["user"]["gid"]) == (5, 6)
    assert process["capabilities"]["permitted"] == ["CAP_CHOWN"]
    with pytest.raises(ConfigError):
        execargs.process_from(config, {"user": "x"}, ["id"])


def test_features_tell_the_spec_versions() -> None:
    known = features.features()
    assert known["ociVersionMin"] == "1.0.0"
    assert "rro" in known["mountOptions"] and "rbind" in known["mountOptions"]
    assert known["annotations"]["org.opencontainers.runc.checkpoint.enabled"] == "true"


def _elf(interpreter: bytes) -> bytes:
    header = (
        b"\x7fELF\x02\x01\x01"
        + bytes(9)
        + struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, 0, 64, 0, 0, 64, 56, 2, 0, 0, 0)
    )
    segments = struct.pack("<IIQQQQQQ", 1, 5, 0, 0, 0, 0, 0, 0)
    segments += struct.pack("<IIQQQQQQ", 3, 4, 176, 0, 0, len(interpreter) + 1, 0, 1)
    return header + segments + interpreter + b"\0"


@pytest.mark.parametrize(
    ("content", "interpreter"),
    [
        (b"#!/proc/self/exe\n", b"/proc/self/exe"),
        (b"#! /bin/sh -e\nx", b"/bin/sh"),
        (b"#!\t/bin/x\targ", b"/bin/x"),
        (b"#!\n", b""),
        (b"", b""),
        (b"\x7fELF", b""),
        (_elf(b"/proc/self/exe"), b"/proc/self/exe"),
    ],
)
def test_interpreter_of_a_program(tmp_path, content: bytes, interpreter: bytes) -> None:
    path = tmp_path / "program"
    path.write_bytes(content)
    fd = os.open(path, os.O_RDONLY)
    try:
        assert finish._interpreter(fd) == interpreter
    finally:
        os.close(fd)


ALLOWED = frozenset(
    "__future__ collections copyreg ctypes enum errno fcntl functools gc genericpath itertools keyword math operator os posixpath re reprlib resource satsuma select stat struct termios time types".split()
)


@pytest.mark.parametrize("module", ["cli", "manager", "maker", "create", "exec"])
def test_import_budget(module: str) -> None:
    code = f"import sys; before = set(sys.modules); import satsuma.runtime.{module}; print(*(set(sys.modules) - before))"
    out = subprocess.run(
        [sys.executable, "-S", "-c", code],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": "src"},
        check=True,
    )
    roots = {name.partition(".")[0] for name in out.stdout.split()}
    assert {name for name in roots if not name.startswith("_")} <= ALLOWED
