"""Help texts and usage errors, laid out as docker prints them.

Source: output of `docker COMMAND --help`, docker 28.2; pflag's FlagUsagesWrapped for the columns.
"""

from __future__ import annotations

import os

from satsuma.cli import catalog
from satsuma.cli.errors import CliError
from satsuma.cli.flags import Flag, read_table
from satsuma.cli.flagtable import FLAGS, GLOBAL

DEFAULT_WIDTH = 80
_SLOP = 5
_MOTTO = "A complete container engine: the docker command line, and a look inside"


def width_of_terminal() -> int:
    """Return the columns of the terminal on standard input, 80 without one."""
    try:
        columns = os.get_terminal_size(0).columns
    except OSError:
        return DEFAULT_WIDTH
    return columns or DEFAULT_WIDTH


# -- the table of flags -------------------------------------------------------------------------------------------


def format_flags(table: list[Flag], width: int) -> str:
    """Lay out the visible flags, help texts wrapped to *width* columns."""
    rows = []
    for flag in sorted((flag for flag in table if not flag.hidden), key=lambda flag: flag.name):
        left = f"  -{flag.letter}, --{flag.name}" if flag.letter else f"      --{flag.name}"
        rows.append((left if flag.kind == "bool" else f"{left} {flag.kind}", flag.help))
    indent = max(len(left) for left, _ in rows) + 3
    return "\n".join(left.ljust(indent) + _wrap(indent, width - 1, text) for left, text in rows)


def _wrap(indent: int, width: int, text: str) -> str:
    room = width - indent
    lead = ""
    if room < 24:  # too narrow for a second column: the text starts on a line of its own
        indent = 16
        room = width - indent
        lead = "\n" + " " * indent
    if room < 24:
        return text.replace("\n", lead)
    room -= _SLOP
    gap = "\n" + " " * indent
    line, rest = _cut(room, text)
    lines = [line.replace("\n", gap)]
    while rest:
        line, rest = _cut(room, rest)
        lines.append(line.replace("\n", gap))
    return lead + gap.join(lines)


def _cut(limit: int, text: str) -> tuple[str, str]:
    if limit + _SLOP > len(text):
        return text, ""
    head = text[:limit]
    space = max(head.rfind(" "), head.rfind("\t"), head.rfind("\n"))
    if space <= 0:
        return text, ""
    newline = head.rfind("\n")
    if 0 < newline < space:
        space = newline
    return text[:space], text[space + 1 :]


# -- commands -----------------------------------------------------------------------------------------------------


def usage_line(path: str, shown: str, program: str) -> str:
    """Return what follows "Usage:  " for a command."""
    usage = catalog.COMMANDS[path][0].replace("{program}", program)
    return f"{program} {shown} {usage}".rstrip()


def command_help(path: str, shown: str, program: str) -> str:
    """Return the help text of one command."""
    text = catalog.LONG.get(path)
    body = text.format(program=program) if text else catalog.COMMANDS[path][1]
    parts = [f"Usage:  {usage_line(path, shown, program)}", body]
    aliases = catalog.alias_line(path, program)
    if aliases:
        parts.append(f"Aliases:\n  {aliases}")
    if path in FLAGS:
        parts.append("Options:\n" + format_flags(read_table(FLAGS[path]), width_of_terminal()))
    return "\n\n".join(parts) + "\n"


def group_help(group: str, program: str) -> str:
    """Return the help text of a group of commands."""
    rows = catalog.subcommands(group)
    padding = max(11, *(len(word) for word, _ in rows))
    listing = "\n".join(f"  {word.ljust(padding)} {text}" for word, text in rows)
    return (
        f"Usage:  {program} {group} COMMAND\n\n{catalog.GROUPS[group]}\n\nCommands:\n{listing}\n\n"
        f"Run '{program} {group} COMMAND --help' for more information on a command.\n"
    )


def program_help(program: str) -> str:
    """Return the help text of the program: every command at a glance, and first steps."""
    common = [(word, catalog.COMMANDS[catalog.SHORTCUTS.get(word, word)][1]) for word in catalog.COMMON]
    groups = sorted(catalog.GROUPS.items())
    words = [word for word in (*catalog.SHORTCUTS, *catalog.COMMANDS) if " " not in word]
    rest = sorted(
        (word, catalog.COMMANDS[catalog.SHORTCUTS.get(word, word)][1])
        for word in words
        if word not in catalog.COMMON and word not in catalog.HIDDEN
    )
    sections = []
    for title, rows in (("Common Commands", common), ("Management Commands", groups), ("Commands", rest)):
        sections.append(f"{title}:\n" + "\n".join(f"  {word.ljust(11)} {text}" for word, text in rows))
    options = format_flags(read_table(GLOBAL), width_of_terminal())
    return (
        f"Usage:  {program} [OPTIONS] COMMAND\n\n{_MOTTO}\n\n"
        + "\n\n".join(sections)
        + f"\n\nGlobal Options:\n{options}\n\n{_first_steps(program)}\n"
        f"Run '{program} COMMAND --help' for more information on a command.\n"
    )


def _first_steps(program: str) -> str:
    rows = (
        (f"{program} image bootstrap busybox", "make a base image, no registry needed"),
        (f"{program} run -it --name box busybox", "a shell in a new container"),
        (f"{program} ps -a", "what there is"),
        (f"{program} anatomy box", "draw what a container is made of"),
        (f"{program} build -t app .", "an image from the Dockerfile here"),
    )
    column = max(len(command) for command, _ in rows) + 3
    return "First Steps:\n" + "".join(f"  {command.ljust(column)}{what}\n" for command, what in rows)


# -- wrong command lines ------------------------------------------------------------------------------------------


def usage_error(message: str, path: str, shown: str, program: str) -> str:
    """Return the text for a wrong flag, with the usage below it."""
    where = f"{program} {shown}".rstrip()
    usage = usage_line(path, shown, program) if path else f"{program} [OPTIONS] COMMAND [ARG...]"
    hint = _flag_hint(message, path)
    return f"{message}{hint}\n\nUsage:  {usage}\n\nRun '{where} --help' for more information"


def _flag_hint(message: str, path: str) -> str:
    if not message.startswith("unknown flag: --"):
        return ""
    table = read_table(FLAGS.get(path, "") if path else GLOBAL)
    names = ["help", *(flag.name for flag in table if not flag.hidden)]
    near = closest(message.removeprefix("unknown flag: --"), names)
    return f"\nDid you mean --{near[0]}?" if near else ""


def check_arguments(path: str, shown: str, program: str, count: int) -> None:
    """Refuse a wrong number of arguments.

    Raises:
        CliError: status 1, with the usage.
    """
    least, most = catalog.COMMANDS[path][3:5]
    if count >= least and (most is None or count <= most):
        return
    see = "Run"
    if most == 0:
        need = "accepts no arguments"
    elif most is None:
        need, see = f"requires at least {least} {_plural(least)}", "See"
    elif least == most:
        need = f"requires {least} {_plural(least)}"
    elif least == 0:
        need = f"requires at most {most} {_plural(most)}"
    else:
        need = f"requires at least {least} and at most {most} {_plural(most)}"
    raise CliError(
        f"{program}: '{program} {shown}' {need}\n\nUsage:  {usage_line(path, shown, program)}\n\n"
        f"{see} '{program} {shown} --help' for more information"
    )


def _plural(count: int) -> str:
    return "argument" if count == 1 else "arguments"


_ELSEWHERE = {
    **dict.fromkeys(
        ("swarm", "node", "service", "stack", "secret", "config"), "swarm mode, which this engine has not"
    ),
    "plugin": "managed plugins, which this engine has not",
    "trust": "content trust, which this engine has not",
    "manifest": "docker's manifest lists, which this program does not edit",
    "checkpoint": "checkpoints, which this engine has not",
    "compose": "compose, a plugin of its own: put `docker-compose` into ~/.docker/cli-plugins",
    "buildx": "buildx, a plugin of its own: `{program} build` builds without it",
}
"""Words of docker that lead nowhere here, and what they belong to."""


def unknown_command(words: list[str], program: str) -> CliError:
    """Return the error for a command that does not exist, with what may have been meant."""
    first = words[0]
    if first in catalog.GROUPS:
        candidates = [word for word, _ in catalog.subcommands(first)]
        candidates += [alias.split(" ")[1] for alias in catalog.ALIASES if alias.startswith(first + " ")]
        near = [f"{program} {first} {word}" for word in closest(words[1], candidates)]
        text = f"{program}: unknown command: {program} {first} {words[1]}"
        usage = f"Usage:  {program} {first} COMMAND\n\n"
        return CliError(
            f"{text}{_did_you_mean(near)}\n\n{usage}Run '{program} {first} --help' for more information"
        )
    if first in _ELSEWHERE:
        where = _ELSEWHERE[first].replace("{program}", program)
        return CliError(
            f"{program}: '{first}' belongs to {where}.\n\nRun '{program} --help' for more information"
        )
    candidates = [
        *catalog.SHORTCUTS,
        *catalog.GROUPS,
        *(path for path in catalog.COMMANDS if " " not in path),
    ]
    near = [f"{program} {word}" for word in closest(first, candidates)]
    text = f"{program}: unknown command: {program} {first}"
    return CliError(f"{text}{_did_you_mean(near)}\n\nRun '{program} --help' for more information")


def _did_you_mean(commands: list[str]) -> str:
    return "\nDid you mean " + " or ".join(f"'{command}'" for command in commands) + "?" if commands else ""


def closest(word: str, candidates: list[str]) -> list[str]:
    """Return up to three candidates that *word* is a likely slip of, the nearest first."""
    scored = []
    for candidate in dict.fromkeys(candidates):
        if len(word) >= 3 and (
            candidate.startswith(word) or (word.startswith(candidate) and len(candidate) >= 3)
        ):
            scored.append((0, abs(len(word) - len(candidate)), candidate))
            continue
        distance = edit_distance(word, candidate)
        if distance <= max(1, min(len(word), len(candidate)) // 3):
            scored.append((distance, abs(len(word) - len(candidate)), candidate))
    scored.sort()
    return [candidate for score, _, candidate in scored if score <= scored[0][0] + 1][:3]


def edit_distance(one: str, other: str) -> int:
    """Count insertions, deletions, replacements and swaps of neighbours that turn one word into the other."""
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        above, row = row, [i] + [0] * len(other)
        for j, b in enumerate(other, 1):
            row[j] = min(above[j] + 1, row[j - 1] + 1, above[j - 1] + (a != b))
            if i > 1 and j > 1 and a == other[j - 2] and b == one[i - 2]:
                row[j] = min(row[j], before[j - 2] + 1)
        before = above
    return row[-1]
