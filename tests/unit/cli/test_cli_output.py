"""Tables, help texts, suggestions, JSON layout, progress, paths of copies, the picture."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from satsuma.cli import anatomy, catalog, completion, containers, help, progress
from satsuma.cli.copy import Target, plan_copy, split_argument, split_entry
from satsuma.cli.drawing import Painter
from satsuma.cli.errors import CliError
from satsuma.cli.formatting import ellipsis
from satsuma.cli.inspect import format_array, indent_json
from satsuma.cli.lookup import natural_key, timestamp
from satsuma.cli.tables import align
from satsuma.cli.terminal import DetachDetector, parse_detach_keys

SATSUMA = Path(sys.executable).parent / "satsuma"


# -- tables -------------------------------------------------------------------------------------------------------


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    assert (
        align("ID\tNAME\tX\na\tlonger than ten\ty")
        == "ID        NAME              X\na         longer than ten   y"
    )


def test_a_column_is_a_run_of_lines_that_have_it() -> None:
    assert align("a\tb\nlonger than ten columns\nc\td") == "a         b\nlonger than ten columns\nc         d"


def test_minimum_and_padding() -> None:
    assert align("a\tb", minimum=20, padding=1) == "a" + " " * 19 + "b"


def test_ports_are_shown_in_ranges() -> None:
    ports = [
        {"PrivatePort": 80, "PublicPort": 8080, "Type": "tcp", "IP": "0.0.0.0"},
        {"PrivatePort": 80, "PublicPort": 8080, "Type": "tcp", "IP": "::"},
        {"PrivatePort": 90, "Type": "tcp"},
        {"PrivatePort": 91, "Type": "tcp"},
        {"PrivatePort": 5000, "PublicPort": 5000, "Type": "tcp", "IP": "0.0.0.0"},
        {"PrivatePort": 5001, "PublicPort": 5001, "Type": "tcp", "IP": "0.0.0.0"},
    ]
    text = containers.format_ports(ports)
    assert text == "90-91/tcp, 0.0.0.0:5000-5001->5000-5001/tcp, 0.0.0.0:8080->80/tcp, [::]:8080->80/tcp"


def test_natural_order() -> None:
    assert sorted(["n10", "n9", "host", "bridge"], key=natural_key) == ["bridge", "host", "n9", "n10"]
    # As `docker volume ls` sorts names that begin with digits.
    assert sorted(["data", "9f", "10a", "v01", "v1", "-x"], key=natural_key) == [
        "-x",
        "9f",
        "10a",
        "data",
        "v1",
        "v01",
    ]


def test_ellipsis() -> None:
    assert ellipsis("abcdef", 4) == "abc…" and ellipsis("abcd", 4) == "abcd" and ellipsis("ab", 1) == "a"


# -- help ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [path for path in catalog.COMMANDS if path != "help"])
def test_every_command_can_say_what_it_does(path: str) -> None:
    text = help.command_help(path, path, "satsuma")
    assert text.startswith(f"Usage:  satsuma {path}") and text.endswith("\n")
    assert all(len(line) <= 100 for line in text.splitlines()[:3])


@pytest.mark.parametrize("path", [path for path in catalog.COMMANDS if path != "help"])
def test_every_command_has_its_code(path: str) -> None:
    from importlib import import_module

    module, _, function = catalog.COMMANDS[path][2].partition(":")
    assert callable(getattr(import_module(f"satsuma.cli.{module}"), function))


@pytest.mark.skipif(not shutil.which("docker"), reason="compares with the stock docker command line")
@pytest.mark.parametrize(
    "command", ["run", "exec", "ps", "build", "logs", "image rm", "network create", "cp", "inspect"]
)
def test_help_is_dockers(command: str) -> None:
    docker = subprocess.run(
        ["docker", *command.split(), "--help"],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "DOCKER_BUILDKIT": "0"},
    ).stdout
    ours = subprocess.run(
        [SATSUMA, *command.split(), "--help"], capture_output=True, text=True, stdin=subprocess.DEVNULL
    ).stdout
    expected = docker.replace("docker ", "satsuma ").replace("Docker objects", "objects")
    # Our own flags stand among docker's.
    ours = re.sub(r"^ +--explain .*\n(?: {40,}.*\n)*", "", ours, flags=re.MULTILINE)
    assert ours.replace("Docker objects", "objects") == expected


@pytest.mark.parametrize(
    ("words", "meant"),
    [(["contaner", "ls"], "satsuma container"), (["rnu"], "satsuma run"), (["image", "lss"], "satsuma image ls"),
     (["imagse"], "satsuma images"), (["anat"], "satsuma anatomy")],
)  # fmt: skip
def test_slips_are_answered_with_what_was_meant(words: list[str], meant: str) -> None:
    assert f"Did you mean '{meant}'" in str(help.unknown_command(words, "satsuma"))


def test_nonsense_gets_no_suggestion() -> None:
    text = str(help.unknown_command(["xyzzy"], "satsuma"))
    assert text == "satsuma: unknown command: satsuma xyzzy\n\nRun 'satsuma --help' for more information"


def test_words_of_docker_that_lead_nowhere_say_so() -> None:
    assert "'swarm' belongs to swarm mode" in str(help.unknown_command(["swarm", "init"], "satsuma"))
    assert "`satsuma build`" in str(help.unknown_command(["buildx"], "satsuma"))


def test_a_wrong_flag_gets_one_too() -> None:
    text = help.usage_error("unknown flag: --volme", "container run", "run", "satsuma")
    assert "unknown flag: --volme\nDid you mean --volume?" in text
    assert "Usage:  satsuma run [OPTIONS] IMAGE [COMMAND] [ARG...]" in text


def test_the_overview_names_first_steps() -> None:
    text = help.program_help("satsuma")
    assert "First Steps:" in text and "satsuma run -it --name box busybox" in text


# -- JSON ---------------------------------------------------------------------------------------------------------


def test_arrays_keep_numbers_and_escapes() -> None:
    raw = '{"a":1.50,"b":"\\u003c\\"","c":[],"d":{},"e":[1,{"f":null}]}'
    assert format_array([raw], indented=False) == f"[{raw}]"
    text = format_array([raw], indented=True)
    assert '"a": 1.50' in text and '"b": "\\u003c\\""' in text and '"c": []' in text and '"d": {}' in text


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=20,
)


@given(_JSON)
def test_layout_is_gos(value: object) -> None:
    compact = json.dumps(value, separators=(",", ":"))
    assert indent_json(compact, "    ") == json.dumps(value, indent=4)
    assert indent_json(json.dumps(value, indent=2), None) == compact


# -- progress -----------------------------------------------------------------------------------------------------


def test_bars() -> None:
    text = progress.format_progress({"current": 50, "total": 100}, 120)
    assert text == "[" + "=" * 25 + ">" + " " * 25 + "]      50B/100B"
    assert progress.format_progress({"current": 50, "total": 100}, 80) == "     50B/100B"
    assert progress.format_progress({"current": 1500}, 120) == "   1.5kB"
    assert progress.format_progress({"current": 3, "total": 9, "units": "files"}, 80) == " 3 files/9 files"


def test_bars_are_for_terminals() -> None:
    out = io.StringIO()
    messages = [
        {"status": "Loading", "id": "x", "progressDetail": {"current": 1, "total": 2}},
        {"status": "Done", "id": "x"},
        {"stream": "Loaded image: a\n"},
    ]
    progress.show_stream(messages, out)
    assert out.getvalue() == "x: Done\nLoaded image: a\n"


def test_an_error_in_the_stream_ends_it() -> None:
    out = io.StringIO()
    with pytest.raises(CliError, match="no such file"):
        progress.show_stream(
            [{"stream": "a"}, {"errorDetail": {"message": "no such file"}, "error": "x"}], out
        )
    assert out.getvalue() == "a"


# -- times, keys --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [("", None), ("1700000000", "1700000000"), ("1700000000.5", "1700000000.5"),
     ("2023-11-14T22:13:20Z", "1700000000.000000000"), ("2023-11-14T23:13:20.25+01:00", "1700000000.250000000")],
)  # fmt: skip
def test_timestamps(text: str, expected: str | None) -> None:
    assert timestamp(text, "since") == expected


def test_durations_count_back_from_now() -> None:
    import time

    found = timestamp("1m30s", "since")
    assert found is not None and abs(float(found) - (time.time() - 90)) < 5
    with pytest.raises(CliError, match='invalid value for "since"'):
        timestamp("yesterday", "since")


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("ctrl-p,ctrl-q", b"\x10\x11"),
        ("ctrl-x,q", b"\x18q"),
        ("a", b"a"),
        ("ctrl-[", b"\x1b"),
        ("ctrl-@", b"\0"),
    ],
)
def test_detach_keys(text: str, keys: bytes) -> None:
    assert parse_detach_keys(text) == keys


@pytest.mark.parametrize("text", ["ctrl-", "shift-a", "ctrl-1", "ab", "ctrl-p,"])
def test_detach_keys_that_are_none(text: str) -> None:
    with pytest.raises(CliError, match="invalid detach keys"):
        parse_detach_keys(text)


@given(st.binary(max_size=40), st.lists(st.integers(min_value=0, max_value=40), max_size=5))
def test_what_is_typed_arrives_unless_it_is_the_keys(typed: bytes, cuts: list[int]) -> None:
    keys = b"\x10\x11"
    typed = typed.replace(keys, b"")
    pieces, last = [], 0
    for cut in sorted(cuts):
        pieces.append(typed[last:cut])
        last = max(last, cut)
    pieces.append(typed[last:])
    detector = DetachDetector(keys)
    out = b"".join(detector.feed(piece)[0] for piece in pieces)
    held = detector.keys[: detector.matched]
    if keys not in typed:
        assert out + held == typed


def test_the_keys_detach() -> None:
    detector = DetachDetector(b"\x10\x11")
    assert detector.feed(b"ab\x10") == (b"ab", False)
    assert detector.feed(b"\x11") == (b"", True)


# -- copies -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("c:/a", ("c", "/a")),
        ("/a:b", ("", "/a:b")),
        ("./a:b", ("", "./a:b")),
        ("a", ("", "a")),
        ("-", ("", "-")),
        ("c:a", ("c", "a")),
    ],
)
def test_arguments_of_copies(text: str, expected: tuple[str, str]) -> None:
    assert split_argument(text) == expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/a/b", ("/a", "b")),
        ("/a/b/", ("/a", "b")),
        ("/a/.", ("/a", ".")),
        ("a", (".", "a")),
        ("/", ("/", ".")),
    ],
)
def test_last_names(path: str, expected: tuple[str, str]) -> None:
    assert split_entry(path) == expected


@pytest.mark.parametrize(
    ("name", "target", "is_directory", "expected"),
    [
        ("f", Target("/d", exists=True, is_directory=True), False, ("/d", "f")),
        ("f", Target("/d/g", exists=True), False, ("/d", "g")),
        ("f", Target("/d/new"), False, ("/d", "new")),
        ("s", Target("/d", exists=True, is_directory=True), True, ("/d", "s")),
        ("s", Target("/d/new"), True, ("/d", "new")),
        ("s", Target("/d/new/"), True, ("/d", "new")),
        (".", Target("/d", exists=True, is_directory=True), True, ("/d", ".")),
    ],
)
def test_where_a_copy_goes(name: str, target: Target, is_directory: bool, expected: tuple[str, str]) -> None:
    assert plan_copy(name, target, source_is_directory=is_directory) == expected


@pytest.mark.parametrize(
    ("target", "is_directory", "message"),
    [
        (Target("/f", exists=True), True, "cannot copy directory"),
        (Target("/f/", exists=True), False, "not a directory"),
        (Target("/new/"), False, "no such directory"),
    ],
)
def test_where_a_copy_cannot_go(target: Target, is_directory: bool, message: str) -> None:
    with pytest.raises(CliError, match=message):
        plan_copy("x", target, source_is_directory=is_directory)


# -- the picture --------------------------------------------------------------------------------------------------

_PICTURE = {
    "Id": "a" * 64,
    "Name": "/web",
    "Image": "app",
    "ImageID": "sha256:" + "b" * 64,
    "Status": "Up 2 minutes",
    "State": "running",
    "Command": ["sh", "-c", "x" * 200],
    "Layers": {
        "Upper": {"Directory": "/var/lib/satsuma/containers/" + "a" * 64 + "/upper", "Size": 12345},
        "Init": {"Directory": "/init"},
        "ReadOnly": [
            {
                "DiffID": "sha256:" + "c" * 64,
                "Size": 10**7,
                "Images": [f"image{n}:latest" for n in range(40)],
                "Containers": ["other"],
            }
        ],
    },
    "Mounts": [
        {"Type": "volume", "Name": "data", "Destination": "/data", "RW": True},
        {"Type": "bind", "Source": "/h", "Destination": "/x", "RW": False},
    ],
    "EtcFiles": {"/etc/hosts": "/x"},
    "Network": {
        "Mode": "bridge",
        "Hostname": "web",
        "Endpoints": {"bridge": {"IPAddress": "172.17.0.2", "IPPrefixLen": 16, "Gateway": "172.17.0.1"}},
        "Ports": {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}], "81/tcp": None},
    },
    "Limits": {"Memory": 1 << 26, "NanoCpus": 1500000000, "PidsLimit": 100},
    "Usage": {"Memory": 1 << 25, "Pids": 3, "CpuTotal": 10**9},
    "Namespaces": [
        {"Type": "net", "Inode": 1, "Host": False, "SharedWith": ["db"]},
        {"Type": "user", "Inode": 2, "Host": True},
    ],
    "Security": {
        "Uid": "0",
        "Gid": "0",
        "Effective": ["CAP_CHOWN"],
        "Bounding": ["CAP_CHOWN"],
        "Seccomp": "filter",
    },
    "Processes": [
        {"HostPid": 100, "ContainerPid": 1, "Command": "sh", "Depth": 0},
        {"HostPid": 101, "ContainerPid": 7, "Command": "sleep", "Depth": 1},
        {"HostPid": 102, "ContainerPid": 8, "Command": "sleep", "Depth": 1},
    ],
}


@pytest.mark.parametrize("width", [56, 80, 87, 88, 100, 120])
def test_the_picture_keeps_to_its_width(width: int) -> None:
    lines = anatomy.draw(_PICTURE, Painter(width=width, colour=False, unicode=True))
    assert all(len(line) <= width for line in lines), [line for line in lines if len(line) > width]
    boxed = [line for line in lines if line and line[0] in "┌│├└"]
    assert boxed and all(len(line) == width for line in boxed)
    text = "\n".join(lines)
    for part in (
        "172.17.0.2/16",
        "8080",
        "chown",
        "├─ sleep",
        "└─ sleep",
        "read-write layer",
        "init layer",
        "layer 1",
    ):
        assert part in text, part


def test_the_picture_without_colours_and_letters() -> None:
    lines = anatomy.draw(_PICTURE, Painter(width=90, colour=False, unicode=False))
    assert "\033" not in "".join(lines) and "\n".join(lines).replace("…", "").isascii()


def test_colours_change_no_width() -> None:
    import re

    plain = anatomy.draw(_PICTURE, Painter(width=90, colour=False, unicode=True))
    coloured = anatomy.draw(_PICTURE, Painter(width=90, colour=True, unicode=True))
    assert [re.sub(r"\033\[[0-9;]*m", "", line) for line in coloured] == plain


def test_the_picture_of_a_stopped_container() -> None:
    stopped = {**_PICTURE, "State": "exited", "Namespaces": [], "Processes": [], "Security": {}, "Usage": {}}
    assert "not running" in "\n".join(anatomy.draw(stopped, Painter(width=80, colour=False, unicode=True)))


# -- completion ---------------------------------------------------------------------------------------------------


class _Engine:
    """Answers lists."""

    class endpoint:
        is_default = True

    def get(self, path: str, query: object = None) -> object:
        return {
            "/containers/json": [
                {"Names": ["/web"], "Image": "app", "State": "running", "Status": "Up"},
                {"Names": ["/old"], "Image": "app", "State": "exited", "Status": "Exited"},
            ],
            "/images/json": [{"RepoTags": ["busybox:latest", "app:1"]}],
            "/networks": [{"Name": "bridge", "Driver": "bridge"}],
            "/volumes": {"Volumes": [{"Name": "data", "Driver": "local"}]},
        }[path]


class _Session:
    engine = _Engine()
    config_dir = "/nonexistent"


@pytest.mark.parametrize(
    ("words", "expected", "files"),
    [
        (["exe"], ["exec"], False),
        (["container", "st"], ["start", "stats", "stop"], False),
        (["exec", ""], ["web"], False),
        (["start", ""], ["old"], False),
        (["rm", "-f", ""], ["web", "old"], False),
        (["rm", "web", ""], ["old"], False),
        (["run", "--restart", "on"], ["on-failure"], False),
        (["run", "--restart=on"], ["--restart=on-failure"], False),
        (["run", "--net", "b"], ["bridge"], False),
        (["run", "-it", "--name", "x", "b"], ["busybox"], False),
        (["run", "busybox", "--"], [], False),
        (["run", "--cap-add", "NET_A"], ["NET_ADMIN"], False),
        (["run", "--env-file", ""], [], True),
        (["network", "connect", "bridge", "w"], ["web"], False),
        (["cp", "w"], ["web:"], True),
        (["build", ""], [], True),
        (["kill", "-s", "SIGTERM"], ["SIGTERM"], False),
        (["-H", "unix:///x", "volume", "rm", ""], ["data"], False),
        (["completion", ""], ["bash", "zsh", "fish"], False),
        (["nonsense", ""], [], False),
    ],
)
def test_completion(words: list[str], expected: list[str], files: bool) -> None:
    found, wants_files = completion.candidates(words, _Session())  # type: ignore[arg-type]
    assert ([word for word, _ in found], wants_files) == (expected, files)


def test_a_tab_never_starts_an_engine() -> None:
    session = _Session()
    session.engine.endpoint.is_default = True
    completion.candidates(["exec", ""], session)  # type: ignore[arg-type]
    assert session.engine.endpoint.is_default is False


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_scripts_parse(shell: str) -> None:
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"{shell} is not installed")
    script = completion.SCRIPTS[shell].replace("{program}", "satsuma")
    done = subprocess.run([program, "-n"], input=script, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


COMPLETING = {
    "bash": """eval "$(satsuma completion bash)"
COMP_WORDS=(satsuma ru) COMP_CWORD=1 COMP_LINE="satsuma ru" COMP_POINT=10
$(complete -p satsuma | sed 's/.*-F \\([^ ]*\\) .*/\\1/') satsuma ru satsuma
printf '%s\\n' "${COMPREPLY[@]}" """,
    "fish": """satsuma completion fish | source; complete -C "satsuma ru" | cut -f1""",
}


@pytest.mark.parametrize("shell", COMPLETING)
def test_shells_complete(shell: str) -> None:
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"{shell} is not installed")
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        [program, "-c", COMPLETING[shell]], capture_output=True, text=True, env=environment, timeout=60
    )
    assert done.stdout.split() == ["run"], done.stderr
