"""Which fields of which instruction know variables.

Not here, on purpose: RUN, CMD, ENTRYPOINT, SHELL, HEALTHCHECK (their text belongs to the shell of the container) and
`COPY --from` (a variable there is an error of long standing).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from satsuma.wire.dockerfile.errors import DockerfileError
from satsuma.wire.dockerfile.model import (
    Add,
    Arg,
    Copy,
    Env,
    Expose,
    Instruction,
    KeyValue,
    Label,
    SourceText,
    StopSignal,
    User,
    Volume,
    Workdir,
)
from satsuma.wire.shell_words import Expander, ExpansionError

__all__ = ["expand"]

_Word = Callable[[str], str]


def expand(instruction: Instruction, env: Mapping[str, str], escape: str = "\\") -> Instruction:
    """Return *instruction* with the variables of *env* in place.

    All values of one instruction see the same, old variables: `ENV a=1 b=$a` does not see the new `a`.

    Raises:
        DockerfileError: a broken or failed (`${x:?}`) expansion.
    """
    how = Expander(escape=escape)

    def word(text: str) -> str:
        return how.run(text, env).text if text else text

    try:
        return _expanded(instruction, word, how, env)
    except ExpansionError as exc:
        raise DockerfileError(str(exc), instruction.first_line, instruction.last_line) from None


def _expanded(instruction: Instruction, word: _Word, how: Expander, env: Mapping[str, str]) -> Instruction:
    match instruction:
        case Label(literal=True):
            return instruction
        case Env() | Label() | Arg():
            pairs = tuple(
                KeyValue(word(pair.key), None if pair.value is None else word(pair.value))
                for pair in instruction.pairs
            )
            return replace(instruction, pairs=pairs)
        case Workdir():
            return replace(instruction, path=word(instruction.path))
        case User():
            return replace(instruction, user=word(instruction.user))
        case StopSignal():
            return replace(instruction, signal=word(instruction.signal))
        case Volume():
            return replace(instruction, paths=tuple(word(path) for path in instruction.paths))
        case Expose():
            # The only instruction where one variable may become several words.
            ports = [port for item in instruction.ports for port in how.run(item, env).words]
            return replace(instruction, ports=tuple(ports))
        case Copy() | Add():
            return _sources(instruction, word, env, how.escape)
    return instruction


def _sources(instruction: Copy | Add, word: _Word, env: Mapping[str, str], escape: str) -> Copy | Add:
    # Quotes in a here-document are text, not quoting.
    body = Expander(escape=escape, plain_quotes=True)
    texts = tuple(
        SourceText(text.name, body.run(text.text, env).text, False) if text.expand else text
        for text in instruction.texts
    )
    changed: Copy | Add = replace(
        instruction,
        sources=tuple(word(source) for source in instruction.sources),
        texts=texts,
        target=word(instruction.target),
        chown=word(instruction.chown),
        chmod=word(instruction.chmod),
    )
    if isinstance(changed, Add):
        changed = replace(changed, checksum=word(changed.checksum))
    return changed
