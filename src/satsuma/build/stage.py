"""One stage of a build: the state between its instructions, and what each instruction does to it.

Every instruction makes an image: it changes the config, asks the cache, and on a miss commits.  Only RUN, COPY, ADD
and WORKDIR can change files; their writable tree is a snapshot of their own that is gone when they are done.

Source: Docker's classic builder observed for order of output and for history.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from satsuma.base.clock import now_ns
from satsuma.base.errors import InvalidParameter
from satsuma.base.ids import ChainId, new_id, short_id
from satsuma.build import copy_step, run_step
from satsuma.build.args import BuildArgs
from satsuma.build.cache import StageCache
from satsuma.build.images import Config, StepImage
from satsuma.build.runner import RunStep
from satsuma.build.session import Session, settled
from satsuma.linux.root import Root
from satsuma.wire.dockerfile import (
    Add,
    Arg,
    Cmd,
    Copy,
    DockerfileError,
    From,
    Healthcheck,
    Instruction,
    Maintainer,
    OnBuild,
    Run,
    Workdir,
    apply,
    expand,
    parse_instruction,
)
from satsuma.wire.dockerfile.config import environment, shell_of

__all__ = ["StageRun"]

DEFAULT_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class StageRun:
    """A stage being built.

    Attributes:
        image: what the last instruction made; None in a stage from scratch before its first one.
        config: the container config as the instructions have left it.
    """

    def __init__(self, session: Session, base: From, image: StepImage | None, args: BuildArgs) -> None:
        self.session = session
        self.output = session.output
        self._cache: StageCache = session.new_cache()
        self.args = args
        self._cmd_set = False
        self._author = ""
        self._intermediate = ""
        self._kept = ""
        self.name = base.stage
        self.image = image
        self.config: Config = image.config if image else {}
        self.config.pop("Image", None)
        self.config.update({"OpenStdin": False, "StdinOnce": False})
        if "PATH" not in environment(self.config):
            self.config["Env"] = [*(self.config.get("Env") or ()), DEFAULT_PATH]

    async def run_triggers(self) -> None:
        """Run the ONBUILD instructions of the base image; they are not inherited further."""
        triggers: list[str] = self.config.get("OnBuild") or []
        self.config["OnBuild"] = None
        if not triggers:
            return
        self.output.text(f"# Executing {len(triggers)} build trigger{'s' if len(triggers) > 1 else ''}\n")
        for trigger in triggers:
            await self.execute(parse_instruction(trigger))

    async def execute(self, instruction: Instruction) -> None:
        """Do one instruction.

        Raises:
            StepFailed: a RUN ended with another code than 0.
            EngineError: everything else, with Docker's words.
        """
        self._intermediate = ""
        removed = self.session.options.force_rm
        try:
            await self._dispatch(instruction)
            removed = removed or self.session.options.rm
        finally:
            if removed and self._intermediate:
                self.output.text(f" ---> Removed intermediate container {short_id(self._intermediate)}\n")

    async def _dispatch(self, written: Instruction) -> None:
        env = environment(self.config)
        instruction = expand(written, self.args.for_stage(env) | env, self.session.escape)
        match instruction:
            case Run():
                await run_step.run(self, instruction)
            case Copy() | Add():
                await copy_step.copy_or_add(self, instruction)
            case Workdir():
                await self._workdir(instruction)
            case Arg():
                for pair in instruction.pairs:
                    self.args.declare(pair.key, pair.value)
                await self._commit_config("ARG " + " ".join(map(str, instruction.pairs)))
            case _:
                await self._configure(instruction)

    # Instructions which change the config only

    async def _configure(self, instruction: Instruction) -> None:
        if isinstance(instruction, Healthcheck):
            self._note_old_health()
        try:
            line = apply(self.config, instruction, cmd_set=self._cmd_set)
        except DockerfileError as exc:
            raise InvalidParameter(str(exc)) from None
        if isinstance(instruction, Maintainer):
            self._author = instruction.author
        if isinstance(instruction, Cmd) and instruction.command:
            self._cmd_set = True
        if isinstance(instruction, OnBuild):
            # Checked now: a trigger that cannot be parsed would only hurt whoever builds on this image.
            parse_instruction(instruction.expression)
        await self._commit_config(line)

    def _note_old_health(self) -> None:
        old = (self.config.get("Healthcheck") or {}).get("Test")
        if old and old[0] != "NONE":
            self.output.text(f"Note: overriding previous HEALTHCHECK: [{' '.join(old)}]\n")

    async def _commit_config(self, line: str) -> None:
        probe = {**self.config, "Cmd": [*shell_of(self.config), "#(nop) ", line]}
        if await self.hit(probe):
            return
        self.show_container(new_id())
        await self.commit(None, probe)

    # The cache and commits

    async def hit(self, probe: Config) -> bool:
        """Look into the cache; on a hit the image of the step is there already."""
        found = await settled(self._cache.probe, self.image, probe)
        if found is None:
            return False
        self.output.text(" ---> Using cache\n")
        self.image = found
        return True

    async def commit(self, directory: str | None, probe: Config, *, move: bool = True) -> None:
        """Make the image of this step, and remember it under the step's key."""
        session, parent = self.session, self.image

        def work() -> StepImage:
            image = session.images.commit(
                parent,
                directory,
                {**self.config, "Image": parent.id if parent else ""},
                container_config={key: value for key, value in probe.items() if key != "RunOptions"},
                author=self._author,
                move=move,
            )
            session.cache.put(parent.id if parent else "", probe, image.id, now_ns=now_ns())
            return image

        self.image = await settled(work)

    def show_container(self, identifier: str) -> None:
        """Tell the client about the container of this step."""
        self._intermediate = identifier
        self.output.text(f" ---> Running in {short_id(identifier)}\n")

    @property
    def chain(self) -> tuple[str, ...]:
        """The layers so far, bottom first."""
        return self.image.chain_ids if self.image else ()

    @contextlib.asynccontextmanager
    async def snapshot(self, key: str, *, init: bool) -> AsyncIterator[str]:
        """Prepare a writable tree on top of the image so far; yield its upperdir; remove it at the end.

        What `keep` was called for stays.
        """
        snapshots = self.session.snapshots
        try:
            active = await settled(snapshots.prepare, key, [ChainId(c) for c in self.chain], init=init)
            yield active.upperdir
        finally:
            if key != self._kept:
                await settled(snapshots.remove, key)

    def keep(self, step: RunStep, code: int) -> None:
        """Leave the container of a step behind."""
        self.session.runner.keep(step, code)
        self._kept = step.id

    # WORKDIR

    async def _workdir(self, instruction: Workdir) -> None:
        try:
            line = apply(self.config, instruction)
        except DockerfileError as exc:
            raise InvalidParameter(str(exc)) from None
        probe = {**self.config, "Cmd": [*shell_of(self.config), f"#(nop) {line}"]}
        if await self.hit(probe):
            return
        key = new_id()
        self.show_container(key)
        async with self.snapshot(key, init=False) as upper:
            await settled(self._make_workdir, key)
            await self.commit(upper, probe)

    def _make_workdir(self, key: str) -> None:
        path = self.config["WorkingDir"]
        with self.session.snapshots.mounted(key) as tree:
            try:
                tree.mkdirs(path)
            except NotADirectoryError:
                raise InvalidParameter(f"Cannot mkdir: {path} is not a directory") from None

    @contextlib.asynccontextmanager
    async def source_root(self, stage: str) -> AsyncIterator[tuple[Root | None, dict[bytes, str]]]:
        """Open what `--from` names: a stage by name or number, an image, or without it the context."""
        context = self.session.context
        if not stage:
            yield (context.root if context else None), self.session.context_checksums
            return
        try:
            image = await self.session.image_of(stage)
        except InvalidParameter as exc:
            raise InvalidParameter(f"invalid from flag value {stage}: {exc}") from exc
        root = await settled(self.session.snapshots.view, list(image.chain_ids) if image else [])
        try:
            yield root, self.session.checksums.of(image.id if image else "")
        finally:
            root.close()
