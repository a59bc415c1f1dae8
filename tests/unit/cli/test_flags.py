"""The command line's own parser: Docker's flags in every way people write them, with pflag's error texts."""

from __future__ import annotations

import pytest

from satsuma.cli.errors import FlagError, HelpWanted
from satsuma.cli.flags import Flag, Flags, Parser, read_table
from satsuma.cli.flagtable import FLAGS, GLOBAL

_TABLE = """
a|all|bool|Show all
d|detach|bool|Run in background
i|interactive|bool|Keep STDIN open
t|tty|bool|Allocate a pseudo-TTY
|sig-proxy|bool|Proxy received signals (default true)
e|env|list:env|Set environment variables
m|memory|bytes|Memory limit
n|last|int|Show n last (default -1)
|pull|string|Pull image (default "missing")
|sysctl|map|Sysctl options (default map[])
|subnet|strings|Subnet
|cpus|decimal|Number of CPUs
|ulimit|ulimit|Ulimit options
f|filter|filter|Filter output
h|hostname|string|Host name
!|time|int|Seconds (deprecated: use --timeout)
"""


def parse(*argv: str, stop: bool = False) -> Flags:
    return Parser(read_table(_TABLE), stop_at_argument=stop).parse(list(argv))


def test_defaults_come_from_the_help_texts() -> None:
    flags = parse()
    assert flags["sig-proxy"] is True and flags["all"] is False
    assert flags["last"] == -1 and flags["pull"] == "missing" and flags["memory"] == 0
    assert flags["env"] == [] and flags["sysctl"] == {} and not flags.changed


@pytest.mark.parametrize(
    ("argv", "name", "value"),
    [
        (["--pull", "never"], "pull", "never"),
        (["--pull=never"], "pull", "never"),
        (["--pull="], "pull", ""),
        (["-m", "10m"], "memory", 10 << 20),
        (["-m10m"], "memory", 10 << 20),
        (["-m=10m"], "memory", 10 << 20),
        (["-it"], "tty", True),
        (["-itm", "1k"], "memory", 1024),
        (["-dit", "-n5"], "last", 5),
        (["--all=false"], "all", False),
        (["-a=0"], "all", False),
        (["--sig-proxy=F"], "sig-proxy", False),
        (["-e", "A=1", "--env", "B=2"], "env", ["A=1", "B=2"]),
        (["--sysctl", "a=b", "--sysctl", "c"], "sysctl", {"a": "b", "c": ""}),
        (["--subnet", "a,b", "--subnet", "c"], "subnet", ["a", "b", "c"]),
        (["--cpus", "1.5"], "cpus", 1_500_000_000),
        (["--cpus", "1/2"], "cpus", 500_000_000),
        (["-n", "-3"], "last", -3),
        (["-n", "0x10"], "last", 16),
        (["--ulimit", "nofile=5:6", "--ulimit", "core=-1"], "ulimit", {"nofile": (5, 6), "core": (-1, -1)}),
        (["-f", "Label=a=b", "--filter", ""], "filter", [("label", "a=b")]),
        (["-h", "box"], "hostname", "box"),
    ],
)
def test_values(argv: list[str], name: str, value: object) -> None:
    assert parse(*argv)[name] == value


def test_flags_may_stand_behind_arguments() -> None:
    flags = parse("one", "-a", "two", "--", "-d", "three")
    assert flags.args == ["one", "two", "-d", "three"] and flags["all"] and not flags["detach"]


def test_flags_end_at_the_first_argument_of_a_program() -> None:
    flags = parse("-i", "busybox", "ls", "-a", "--help", stop=True)
    assert flags.args == ["busybox", "ls", "-a", "--help"] and not flags["all"]


def test_a_bare_variable_takes_the_value_of_the_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KNOWN", "x")
    monkeypatch.delenv("UNKNOWN", raising=False)
    assert parse("-e", "KNOWN", "-e", "UNKNOWN")["env"] == ["KNOWN=x", "UNKNOWN"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--nope"], "unknown flag: --nope"),
        (["-z"], "unknown shorthand flag: 'z' in -z"),
        (["-iz"], "unknown shorthand flag: 'z' in -z"),
        (["--pull"], "flag needs an argument: --pull"),
        (["-m"], "flag needs an argument: 'm' in -m"),
        (["--=x"], "bad flag syntax: --=x"),
        (["---all"], "bad flag syntax: ---all"),
        (["-m", "1x"], 'invalid argument "1x" for "-m, --memory" flag: invalid suffix: \'x\''),
        (["-m", "abc"], 'invalid argument "abc" for "-m, --memory" flag: invalid size: \'abc\''),
        (
            ["-n", "x"],
            'invalid argument "x" for "-n, --last" flag: strconv.ParseInt: parsing "x": invalid syntax',
        ),
        (
            ["--all=maybe"],
            'invalid argument "maybe" for "-a, --all" flag: strconv.ParseBool: parsing "maybe": invalid syntax',
        ),
        (["-e", "=x"], 'invalid argument "=x" for "-e, --env" flag: invalid environment variable: =x'),
        (["--cpus", "x"], 'invalid argument "x" for "--cpus" flag: failed to parse x as a rational number'),
        (
            ["--cpus", "0.00000000001"],
            'invalid argument "0.00000000001" for "--cpus" flag: value is too precise',
        ),
        (["--ulimit", "foo=1"], 'invalid argument "foo=1" for "--ulimit" flag: invalid ulimit type: foo'),
        (
            ["-f", "x"],
            'invalid argument "x" for "-f, --filter" flag: bad format of filter (expected name=value)',
        ),
    ],
)
def test_errors(argv: list[str], message: str) -> None:
    with pytest.raises(FlagError) as caught:
        parse(*argv)
    assert str(caught.value) == message and caught.value.status == 125


@pytest.mark.parametrize("argv", [["--help"], ["a", "--help"], ["-a", "--help", "--nope=1"][:2]])
def test_help_wins(argv: list[str]) -> None:
    with pytest.raises(HelpWanted):
        parse(*argv)


def test_h_is_help_where_it_is_free() -> None:
    with pytest.raises(HelpWanted):
        Parser(read_table("a|all|bool|Show all")).parse(["-h"])


def test_deprecated_flags_say_so() -> None:
    flags = parse("--time", "3")
    assert flags["time"] == 3 and flags.notices == ["Flag --time has been deprecated, use --timeout instead"]


@pytest.mark.parametrize("path", [*FLAGS, ""])
def test_the_tables_are_sound(path: str) -> None:
    table = read_table(FLAGS[path] if path else GLOBAL)
    names = [flag.name for flag in table]
    letters = [flag.letter for flag in table if flag.letter]
    assert len(set(names)) == len(names) and len(set(letters)) == len(letters)
    assert all(isinstance(flag, Flag) and flag.help for flag in table)
    Parser(table).parse([])
