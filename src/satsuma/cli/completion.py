"""Shell completion: scripts for three shells, and the words that they ask this program for.

The scripts are thin: on every TAB they run `satsuma __complete WORDS…`, which prints one candidate a line (a word,
a tab and what it means), and last a line that begins with a colon: `:files` lets the shell offer files, `:words`
does not.  So a new command or flag needs no new script.
"""

from __future__ import annotations

import sys

from satsuma.cli import catalog
from satsuma.cli.errors import CliError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from satsuma.cli.flags import Flag, Flags
    from satsuma.cli.session import Session

    Words = list[tuple[str, str]]

_BASH = r"""# bash completion for {program}
_{program}_complete() {
    local line current="${COMP_WORDS[COMP_CWORD]}"
    local -a words=("${COMP_WORDS[@]:1:COMP_CWORD}")
    # Bash takes a colon for the end of a word; put name:tag together again.
    if [[ "${COMP_WORDBREAKS}" == *:* ]] && declare -F _get_comp_words_by_ref >/dev/null; then
        local cur cword; local -a all
        _get_comp_words_by_ref -n : -c cur -i cword -w all
        current="$cur"; words=("${all[@]:1:cword}")
    fi
    COMPREPLY=()
    while IFS= read -r line; do
        case "$line" in
            :files) compopt -o default ;;
            :*) ;;
            *) COMPREPLY+=("${line%%$'\t'*}") ;;
        esac
    done < <("${COMP_WORDS[0]}" __complete "${words[@]}" 2>/dev/null)
    if [[ ${#COMPREPLY[@]} -eq 1 && "${COMPREPLY[0]}" == *[=:] ]]; then
        compopt -o nospace
    fi
    if declare -F __ltrim_colon_completions >/dev/null; then
        __ltrim_colon_completions "$current"
    fi
}
complete -F _{program}_complete {program}
"""

_ZSH = r"""#compdef {program}
# zsh completion for {program}
_{program}() {
    local line files=0
    local -a found
    while IFS= read -r line; do
        case "$line" in
            :files) files=1 ;;
            :*) ;;
            *) found+=("${${line%%$'\t'*}//:/\\:}:${line#*$'\t'}") ;;
        esac
    done < <("${words[1]}" __complete "${(@)words[2,CURRENT]}" 2>/dev/null)
    (( ${#found} )) && _describe '{program}' found
    (( files )) && _files
}
if [ "$funcstack[1]" = "_{program}" ]; then
    _{program} "$@"
else
    compdef _{program} {program}
fi
"""

_FISH = r"""# fish completion for {program}
function __{program}_complete
    set -l words (commandline -opc) (commandline -ct)
    $words[1] __complete $words[2..-1] 2>/dev/null | while read -l line
        switch $line
            case ':files'
                __fish_complete_path (commandline -ct)
            case ':*'
            case '*'
                echo $line
        end
    end
end
complete -c {program} -f -a '(__{program}_complete)'
"""

SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}


def completion(session: Session, flags: Flags) -> None:
    """Print the script for a shell."""
    shell = flags.args[0]
    if shell not in SCRIPTS:
        raise CliError(f"unknown shell '{shell}': there are scripts for {', '.join(SCRIPTS)}")
    session.out(SCRIPTS[shell].replace("{program}", session.program))


def complete(words: list[str], options: Flags, program: str) -> int:
    """Print the candidates for the last of *words*."""
    from satsuma.cli.session import Session

    session = Session(options, program)
    try:
        found, files = candidates(words or [""], session)
    except CliError:
        found, files = [], False
    finally:
        session.close()
    sys.stdout.write("".join(f"{word}\t{text}\n" for word, text in found))
    sys.stdout.write(":files\n" if files else ":words\n")
    return 0


def candidates(words: list[str], session: Session) -> tuple[Words, bool]:
    """Return the candidates for the last word, and whether files are among them."""
    from satsuma.cli.flags import read_table
    from satsuma.cli.flagtable import FLAGS, GLOBAL

    *before, current = words
    table = read_table(GLOBAL)
    rest, waiting = _skip_flags(before, table)
    if waiting:
        return _flag_value(waiting, current, session)
    if not rest:
        if current.startswith("-"):
            return _flags(table, current), False
        return _matching(_top(), current), False
    if rest[0] in catalog.GROUPS and len(rest) == 1:
        return _matching(catalog.subcommands(rest[0]), current), False
    path, _, taken = catalog.resolve(rest)
    if not path or path in catalog.GROUPS:
        return [], False
    table = read_table(FLAGS.get(path, ""))
    return _command(path, table, rest[taken:], current, session)


def _command(
    path: str, table: list[Flag], given: list[str], current: str, session: Session
) -> tuple[Words, bool]:
    arguments, waiting = _skip_flags(given, table, stop=catalog.COMMANDS[path][5] == "stop")
    if waiting:
        return _flag_value(waiting, current, session)
    inside = catalog.COMMANDS[path][5] == "stop" and arguments
    if current.startswith("-") and not inside:
        name, equals, value = current.partition("=")
        flag = next((flag for flag in table if equals and name == f"--{flag.name}"), None)
        if flag is not None:
            found, files = _flag_value(flag, value, session)
            return [(f"{name}={word}", text) for word, text in found], files
        return _flags(table, current), False
    return _argument(path, len(arguments), current, session, set(arguments))


def _top() -> Words:
    found = {word: catalog.COMMANDS[target][1] for word, target in catalog.SHORTCUTS.items()}
    found.update({path: entry[1] for path, entry in catalog.COMMANDS.items() if " " not in path})
    found.update(catalog.GROUPS)
    return sorted(found.items())


def _matching(words: Iterable[tuple[str, str]], current: str) -> Words:
    return [(word, text) for word, text in words if word.startswith(current)]


def _flags(table: list[Flag], current: str) -> Words:
    names = [(f"--{flag.name}", flag.help.partition("\n")[0]) for flag in table if not flag.hidden]
    return _matching(sorted([*names, ("--help", "Print usage")]), current)


def _skip_flags(words: list[str], table: list[Flag], *, stop: bool = True) -> tuple[list[str], Flag | None]:
    """Return the arguments among *words*, and the flag that still waits for its value."""
    names = {f"--{flag.name}": flag for flag in table} | {
        f"-{flag.letter}": flag for flag in table if flag.letter
    }
    arguments: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word == "--":
            return arguments + rest, None
        if not word.startswith("-") or word == "-":
            arguments.append(word)
            if stop:
                return arguments + rest, None
            continue
        flag = names.get(word) or (names.get(f"-{word[-1]}") if not word.startswith("--") else None)
        if flag is None or flag.kind == "bool" or "=" in word:
            continue
        if not rest:
            return arguments, flag
        rest.pop(0)
    return arguments, None


# -- values of flags ----------------------------------------------------------------------------------------------

_WORDS = {
    "format": "json table",
    "restart": "no always unless-stopped on-failure",
    "pull": "always missing never",
    "log-driver": "json-file local none journald syslog",
    "log-level": "debug info warn error fatal",
    "cgroupns": "host private",
    "ipc": "none private shareable host container:",
    "pid": "host container:",
    "uts": "host",
    "userns": "host",
    "attach": "stdin stdout stderr",
    "type": "container image network volume",
    "platform": "linux/amd64 linux/arm64",
    "security-opt": "seccomp= no-new-privileges apparmor= label= systempaths=unconfined",
    "ulimit": "nofile= nproc= core= memlock= stack=",
    "mount": "type=bind,source= type=volume,source= type=tmpfs,target=",
}
_CAPABILITIES = (
    "ALL AUDIT_CONTROL AUDIT_READ AUDIT_WRITE BLOCK_SUSPEND BPF CHECKPOINT_RESTORE CHOWN DAC_OVERRIDE DAC_READ_SEARCH"
    " FOWNER FSETID IPC_LOCK IPC_OWNER KILL LEASE LINUX_IMMUTABLE MAC_ADMIN MAC_OVERRIDE MKNOD NET_ADMIN"
    " NET_BIND_SERVICE NET_BROADCAST NET_RAW PERFMON SETFCAP SETGID SETPCAP SETUID SYSLOG SYS_ADMIN SYS_BOOT SYS_CHROOT"
    " SYS_MODULE SYS_NICE SYS_PACCT SYS_PTRACE SYS_RAWIO SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG WAKE_ALARM"
)
_FILES = frozenset(
    "env-file label-file cidfile iidfile file input output config tlscacert tlscert tlskey".split()
)
_PLURAL = {"network": "networks", "net": "networks", "volumes-from": "containers", "link": "containers"}


def _flag_value(flag: Flag, current: str, session: Session) -> tuple[Words, bool]:
    name = flag.name
    if name in _FILES or (name == "volume" and current.startswith(("/", "."))):
        return [], True
    if name in ("signal", "stop-signal"):
        import signal

        return _matching(((number.name, "") for number in signal.Signals), current), False
    if name in ("cap-add", "cap-drop"):
        return _matching(((word, "") for word in _CAPABILITIES.split()), current), False
    if name == "volume":
        return _objects("volumes", current, session), False
    if name == "context":
        return _objects("contexts", current, session), False
    if name == "env":
        import os

        return _matching(((key, "") for key in sorted(os.environ)), current), False
    if name in _PLURAL:
        return _objects(_PLURAL[name], current, session), False
    return _matching(((word, "") for word in _WORDS.get(name, "").split()), current), False


# -- arguments ----------------------------------------------------------------------------------------------------

_ARGUMENTS = {
    "container attach": "running",
    "container commit": "containers",
    "container cp": "copy copy",
    "container create": "images",
    "container diff": "containers",
    "container exec": "running",
    "container export": "containers",
    "container inspect": "containers*",
    "container kill": "running*",
    "container logs": "containers",
    "container pause": "running*",
    "container port": "running",
    "container rename": "containers",
    "container restart": "containers*",
    "container rm": "containers*",
    "container run": "images",
    "container start": "stopped*",
    "container stats": "running*",
    "container stop": "running*",
    "container top": "running",
    "container unpause": "paused*",
    "container update": "containers*",
    "container wait": "containers*",
    "container anatomy": "containers",
    "image build": "files",
    "image history": "images",
    "image import": "files",
    "image inspect": "images*",
    "image push": "images",
    "image rm": "images*",
    "image save": "images*",
    "image tag": "images",
    "image ls": "images",
    "image bootstrap": "bases",
    "network connect": "networks containers",
    "network disconnect": "networks containers",
    "network inspect": "networks*",
    "network rm": "networks*",
    "volume inspect": "volumes*",
    "volume rm": "volumes*",
    "context export": "contexts",
    "context import": "none files",
    "context inspect": "contexts*",
    "context rm": "contexts*",
    "context update": "contexts",
    "context use": "contexts",
    "inspect": "anything*",
    "setns": "files",
    "completion": "shells",
    "help": "commands",
}
_STATES = {
    "running": ("running",),
    "paused": ("paused",),
    "stopped": ("exited", "created", "dead"),
    "containers": (),
}


def _argument(path: str, count: int, current: str, session: Session, given: set[str]) -> tuple[Words, bool]:
    kinds = _ARGUMENTS.get(path, "").split()
    if count < len(kinds):
        kind = kinds[count]
    elif kinds and kinds[-1].endswith("*"):
        kind = kinds[-1]
    else:
        return [], False
    kind = kind.removesuffix("*")
    if kind == "files":
        return [], True
    if kind == "copy":
        names = [(f"{name}:", text) for name, text in _objects("containers", current, session)]
        return ([] if ":" in current else names), True
    return [item for item in _objects(kind, current, session) if item[0] not in given], False


def _objects(kind: str, current: str, session: Session) -> Words:
    if kind == "anything":
        found = [
            item
            for part in ("containers", "images", "networks", "volumes")
            for item in _objects(part, current, session)
        ]
        return list(dict(found).items())
    load = _LOADERS.get(kind)
    return _matching(load(session, kind), current) if load else []


def _quiet_engine(session: Session) -> Any:
    """Return the engine without the right to be started: a TAB must not start daemons."""
    session.engine.endpoint.is_default = False
    return session.engine


def _containers(session: Session, kind: str) -> Words:
    states = _STATES[kind]
    found = _quiet_engine(session).get("/containers/json", {"all": True}) or []
    return [
        (str(name).lstrip("/"), f"{item.get('Image')}, {item.get('Status')}")
        for item in found
        if not states or item.get("State") in states
        for name in item.get("Names") or []
        if str(name).count("/") == 1
    ]


def _images(session: Session, _kind: str) -> Words:
    found = _quiet_engine(session).get("/images/json") or []
    names = [tag for item in found for tag in item.get("RepoTags") or [] if not tag.startswith("<none>")]
    return [(name.removesuffix(":latest"), "") for name in names]


def _networks(session: Session, _kind: str) -> Words:
    found = _quiet_engine(session).get("/networks") or []
    return [(item["Name"], str(item.get("Driver") or "")) for item in found]


def _volumes(session: Session, _kind: str) -> Words:
    found = (_quiet_engine(session).get("/volumes") or {}).get("Volumes") or []
    return [(item["Name"], str(item.get("Driver") or "")) for item in found]


def _contexts(session: Session, _kind: str) -> Words:
    from satsuma.cli.contexts import names

    return [(name, "") for name in names(session.config_dir)]


_LOADERS: dict[str, Callable[[Session, str], Words]] = {
    "containers": _containers,
    "running": _containers,
    "paused": _containers,
    "stopped": _containers,
    "images": _images,
    "networks": _networks,
    "volumes": _volumes,
    "contexts": _contexts,
    "shells": lambda _session, _kind: [(shell, "") for shell in SCRIPTS],
    "bases": lambda _session, _kind: [("busybox", ""), ("debian:bookworm-slim", ""), ("debian:bookworm", "")],
    "commands": lambda _session, _kind: _top(),
}
