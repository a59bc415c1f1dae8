"""The program `satsuma`: global flags, the command, its exit status.

Imports nothing that the command at hand does not need; the code of a command is imported when it runs.
"""

from __future__ import annotations

import sys

from satsuma.cli.errors import CliError, ExitStatus, FlagError, HelpWanted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from satsuma.cli.flags import Flags

PROGRAM = "satsuma"


def main(argv: list[str] | None = None) -> int:
    """Run the command line *argv* (default: the process's) and return the exit status."""
    words = sys.argv[1:] if argv is None else argv
    try:
        return dispatch(words)
    except ExitStatus as ending:
        return ending.status
    except CliError as error:
        _say(str(error))
        return error.status
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader of our output has gone, as in `satsuma ps | head -1`; the interpreter must not
        # complain a second time when it flushes standard output at its end.
        _detach_output()
        return 141
    except OSError as error:
        _say(f"{PROGRAM}: {error.strerror or error}{f': {error.filename}' if error.filename else ''}")
        return 1


def _say(text: str) -> None:
    if text:
        try:
            sys.stderr.write(text.rstrip("\n") + "\n")
        except OSError:
            pass


def _detach_output() -> None:
    import os

    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)


def dispatch(words: list[str]) -> int:
    """Parse the global flags and run the command that follows them."""
    from satsuma.cli import catalog

    options, rest = _global_flags(words)
    if options["log-level"] not in ("debug", "info", "warn", "error", "fatal"):
        raise CliError(f"Unable to parse logging level: {options['log-level']}")
    if options["version"]:
        from satsuma import __version__

        print(f"Satsuma version {__version__}")
        return 0
    if not rest:
        return _print_help([])
    if rest[0] == "__complete":
        from satsuma.cli.completion import complete

        return complete(rest[1:], options, PROGRAM)
    if rest[0] == "help":
        return _print_help(rest[1:])
    path, shown, taken = catalog.resolve(rest)
    if not path:
        path, shown, taken = _leading_flags(rest)
    if path in catalog.GROUPS:
        # Not asked for with --help, it is a diagnostic, as in docker.
        from satsuma.cli.help import group_help

        sys.stderr.write(group_help(path, PROGRAM))
        return 0
    return run_command(path, shown, rest[taken:], options)


def _global_flags(words: list[str]) -> tuple[Flags, list[str]]:
    from satsuma.cli.flags import Parser, read_table
    from satsuma.cli.flagtable import GLOBAL

    try:
        options = Parser(read_table(GLOBAL), stop_at_argument=True).parse(words)
    except HelpWanted:
        raise ExitStatus(_print_help([])) from None
    except FlagError as error:
        from satsuma.cli.help import usage_error

        raise CliError(usage_error(str(error), "", "", PROGRAM), 125) from None
    return options, options.args


def _leading_flags(rest: list[str]) -> tuple[str, str, int]:
    """Deal with words that name no command: a plugin, `container --help`, or a slip."""
    from satsuma.cli import catalog, help, plugins

    if rest[0] in catalog.GROUPS and rest[1].startswith("-"):
        if rest[1] in ("--help", "-h"):
            raise ExitStatus(_print_help([rest[0]]))
        letter = not rest[1].startswith("--")
        what = (
            f"unknown shorthand flag: {rest[1][1]!r} in {rest[1]}" if letter else f"unknown flag: {rest[1]}"
        )
        where = f"{PROGRAM} {rest[0]}"
        raise CliError(f"{what}\n\nUsage:  {where} COMMAND\n\nRun '{where} --help' for more information", 125)
    plugins.run_plugin(rest)
    raise help.unknown_command(rest, PROGRAM)


def _print_help(words: list[str]) -> int:
    from satsuma.cli import catalog, help

    if not words:
        sys.stdout.write(help.program_help(PROGRAM))
        return 0
    path, shown, taken = catalog.resolve(words)
    if not path or taken != len(words):
        raise CliError(f"unknown help topic: {' '.join(words)}")
    if path in catalog.GROUPS:
        sys.stdout.write(help.group_help(path, PROGRAM))
    else:
        sys.stdout.write(help.command_help(path, shown, PROGRAM))
    return 0


def run_command(path: str, shown: str, argv: list[str], options: Flags) -> int:
    """Parse the flags of one command and run it."""
    from satsuma.cli import catalog
    from satsuma.cli.flags import Parser, read_table
    from satsuma.cli.flagtable import FLAGS

    _, _, target, least, most, mode = catalog.COMMANDS[path]
    parser = Parser(read_table(FLAGS.get(path, "")), stop_at_argument=mode == "stop")
    try:
        flags = parser.parse(argv)
    except HelpWanted:
        for notice in parser.flags.notices:
            _say(notice)
        return _print_help(shown.split(" "))
    except FlagError as error:
        from satsuma.cli.help import usage_error

        raise CliError(usage_error(str(error), path, shown, PROGRAM), error.status) from None
    for notice in flags.notices:
        _say(notice)
    if len(flags.args) < least or (most is not None and len(flags.args) > most):
        from satsuma.cli.help import check_arguments

        check_arguments(path, shown, PROGRAM, len(flags.args))
    module_name, _, function = target.partition(":")
    from importlib import import_module

    from satsuma.cli.session import Session

    module = import_module(f"satsuma.cli.{module_name}")
    session = Session(options, PROGRAM)
    try:
        status = getattr(module, function)(session, flags)
        sys.stdout.flush()
    finally:
        session.close()
    return status or 0


def entry() -> None:
    """Entry point of the console script's twin `python -m satsuma.cli.main`."""
    sys.exit(main())


if __name__ == "__main__":
    entry()
