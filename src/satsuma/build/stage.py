"""One stage of a build: the state between its instructions, and what each instruction does to it.

Every instruction makes an image: it changes the config, asks the cache, and on a miss commits.  Only RUN, COPY, ADD
and WORKDIR can change files; their writable tree is a snapshot of their own that is gone when they are done.

Source: Docker's classic builder observed for order of output and for history.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Callable
from typing import Any, ParamSpec, TypeVar

from satsuma.base.aio import KeyedLock
from satsuma.base.clock import now_ns
from satsuma.base.errors import InvalidParameter
from satsuma.base.ids import ChainId, new_id, short_id
from satsuma.build import place
from satsuma.build.args import BuildArgs
from satsuma.build.cache import StageCache
from satsuma.build.failure import StepFailed
from satsuma.build.images import Config, StepImage
from satsuma.build.mounts import (
    Stubs,
    bind_checksum,
    cache_directory,
    copy_for_bind,
    needs_buildkit,
    target_of,
)
from satsuma.build.runner import MountSpec, RunStep
from satsuma.build.session import Session, settled
from satsuma.build.sources import Resolver, Source, checksum_of
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
    RunMount,
    Workdir,
    apply,
    expand,
    parse_heredoc_word,
    parse_instruction,
    parse_mount,
)
from satsuma.wire.dockerfile.config import environment, shell_command, shell_of
from satsuma.wire.patterns import clean
from satsuma.wire.shell_words import Expander, ExpansionError

__all__ = ["StageRun"]

P = ParamSpec("P")
T = TypeVar("T")

DEFAULT_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_cache_locks = KeyedLock()


class StageRun:
    """A stage being built.

    Attributes:
        image: what the last instruction made; None in a stage from scratch before its first one.
        config: the container config as the instructions have left it.
    """

    def __init__(self, session: Session, base: From, image: StepImage | None, args: BuildArgs) -> None:
        self._session = session
        self._out = session.output
        self._cache: StageCache = session.new_cache()
        self._args = args
        self._cmd_set = False
        self._author = ""
        self._intermediate = ""
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
        self._out.text(f"# Executing {len(triggers)} build trigger{'s' if len(triggers) > 1 else ''}\n")
        for trigger in triggers:
            await self.execute(parse_instruction(trigger))

    async def execute(self, instruction: Instruction) -> None:
        """Do one instruction.

        Raises:
            StepFailed: a RUN ended with another code than 0.
            EngineError: everything else, with Docker's words.
        """
        self._intermediate = ""
        removed = self._session.options.force_rm
        try:
            await self._dispatch(instruction)
            removed = removed or self._session.options.rm
        finally:
            if removed and self._intermediate:
                self._out.text(f" ---> Removed intermediate container {short_id(self._intermediate)}\n")

    async def _dispatch(self, written: Instruction) -> None:
        env = environment(self.config)
        instruction = expand(written, self._args.for_stage(env) | env, self._session.escape)
        match instruction:
            case Run():
                await self._run(instruction)
            case Copy() | Add():
                await self._copy(instruction)
            case Workdir():
                await self._workdir(instruction)
            case Arg():
                for pair in instruction.pairs:
                    self._args.declare(pair.key, pair.value)
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
            self._out.text(f"Note: overriding previous HEALTHCHECK: [{' '.join(old)}]\n")

    async def _commit_config(self, line: str) -> None:
        probe = {**self.config, "Cmd": [*shell_of(self.config), "#(nop) ", line]}
        if await self._hit(probe):
            return
        self._show_container(new_id())
        await self._commit(None, probe)

    # The cache and commits

    async def _hit(self, probe: Config) -> bool:
        found = await self._blocking(self._cache.probe, self.image, probe)
        if found is None:
            return False
        self._out.text(" ---> Using cache\n")
        self.image = found
        return True

    async def _commit(self, directory: str | None, probe: Config) -> None:
        """Make the image of this step, and remember it under the step's key."""
        session, parent = self._session, self.image

        def work() -> StepImage:
            image = session.images.commit(
                parent,
                directory,
                {**self.config, "Image": parent.id if parent else ""},
                container_config={key: value for key, value in probe.items() if key != "RunOptions"},
                author=self._author,
            )
            session.cache.put(parent.id if parent else "", probe, image.id, now_ns=now_ns())
            return image

        self.image = await self._blocking(work)

    def _show_container(self, identifier: str) -> None:
        self._intermediate = identifier
        self._out.text(f" ---> Running in {short_id(identifier)}\n")

    async def _blocking(self, fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await settled(fn, *args, **kwargs)

    @property
    def _chain(self) -> tuple[str, ...]:
        return self.image.chain_ids if self.image else ()

    @contextlib.asynccontextmanager
    async def _snapshot(self, key: str, *, init: bool) -> AsyncIterator[str]:
        """Prepare a writable tree on top of the image so far; yield its upperdir; remove it at the end."""
        snapshots = self._session.snapshots
        try:
            active = await self._blocking(
                snapshots.prepare, key, [ChainId(c) for c in self._chain], init=init
            )
            yield active.upperdir
        finally:
            await self._blocking(snapshots.remove, key)

    # WORKDIR

    async def _workdir(self, instruction: Workdir) -> None:
        try:
            line = apply(self.config, instruction)
        except DockerfileError as exc:
            raise InvalidParameter(str(exc)) from None
        probe = {**self.config, "Cmd": [*shell_of(self.config), f"#(nop) {line}"]}
        if await self._hit(probe):
            return
        key = new_id()
        self._show_container(key)
        async with self._snapshot(key, init=False) as upper:
            await self._blocking(self._make_workdir, key)
            await self._commit(upper, probe)

    def _make_workdir(self, key: str) -> None:
        path = self.config["WorkingDir"]
        with self._session.snapshots.mounted(key) as tree:
            try:
                tree.mkdirs(path)
            except NotADirectoryError:
                raise InvalidParameter(f"Cannot mkdir: {path} is not a directory") from None

    # COPY and ADD

    async def _copy(self, instruction: Copy | Add) -> None:
        if instruction.texts and isinstance(instruction, Add) and instruction.checksum:
            raise InvalidParameter("checksum can't be specified for heredoc sources")
        stage = instruction.source_stage if isinstance(instruction, Copy) else ""
        async with self._source_root(stage) as (root, checksums):
            resolver = Resolver(root, self._session.workspace, from_image=bool(stage), cache=checksums)
            try:
                sources = await self._blocking(resolver.resolve, instruction)
                await self._place(instruction, sources, keep_owner=bool(stage) and not instruction.chown)
            finally:
                resolver.close()

    async def _place(self, instruction: Copy | Add, sources: list[Source], *, keep_owner: bool) -> None:
        options = ""
        if instruction.chmod:
            options += f"--chmod={instruction.chmod} "
        if instruction.chown:
            options += f"--chown={instruction.chown} "
        if instruction.link:
            options += "--link "
        if isinstance(instruction, Copy) and instruction.parents:
            options += "--parents "
        what = f"{instruction.name} {options}{checksum_of(sources)} in {instruction.target} "
        probe = {**self.config, "Cmd": [*shell_of(self.config), f"#(nop) {what}"]}
        if await self._hit(probe):
            return
        workdir = self.config.get("WorkingDir") or "/"
        if instruction.link:
            await self._place_apart(instruction, sources, probe, keep_owner=keep_owner)
            return
        key = new_id()
        async with self._snapshot(key, init=False) as upper:

            def work() -> None:
                with self._session.snapshots.mounted(key) as tree:
                    place.place(
                        sources, instruction, tree, names=tree, workdir=workdir, keep_owner=keep_owner
                    )

            await self._blocking(work)
            await self._commit(upper, probe)

    async def _place_apart(
        self, instruction: Copy | Add, sources: list[Source], probe: Config, *, keep_owner: bool
    ) -> None:
        """`--link`: a layer made without looking at the ones below, whose links it therefore cannot follow."""
        snapshots = self._session.snapshots
        workdir = self.config.get("WorkingDir") or "/"
        directory = await self._blocking(snapshots.new_dir)
        try:

            def work() -> None:
                with Root.open_path(directory) as tree, snapshots.view(list(self._chain)) as names:
                    place.place(
                        sources, instruction, tree, names=names, workdir=workdir, keep_owner=keep_owner
                    )

            await self._blocking(work)
            await self._commit(directory, probe)
        finally:
            await self._blocking(snapshots.discard_dir, directory)

    @contextlib.asynccontextmanager
    async def _source_root(self, stage: str) -> AsyncIterator[tuple[Root | None, dict[bytes, str]]]:
        """Open what `--from` names: a stage by name or number, an image, or without it the context."""
        context = self._session.context
        if not stage:
            yield (context.root if context else None), self._session.context_checksums
            return
        try:
            image = await self._session.image_of(stage)
        except InvalidParameter as exc:
            raise InvalidParameter(f"invalid from flag value {stage}: {exc}") from exc
        root = await self._blocking(self._session.snapshots.view, list(image.chain_ids) if image else [])
        try:
            yield root, {}
        finally:
            root.close()

    # RUN

    async def _run(self, instruction: Run) -> None:
        if instruction.security == "insecure":
            raise needs_buildkit("security")
        if instruction.devices:
            raise needs_buildkit("device")
        mounts = self._mounts(instruction)
        command, script = self._command(instruction)
        if not command or not command[0]:
            raise InvalidParameter("no command specified")
        env = environment(self.config)
        build_args = self._args.for_stage(env)
        saved = [*self._args.for_history(build_args), *command]
        probe: Config = {**self.config, "Cmd": saved, "Entrypoint": None}
        async with contextlib.AsyncExitStack() as stack:
            roots = [await stack.enter_async_context(self._mount_root(mount)) for mount in mounts]
            probe_key = probe
            if instruction.flags:
                probe_key = {
                    **probe,
                    "RunOptions": await self._blocking(_describe, instruction, mounts, roots),
                }
            if await self._hit(probe_key):
                return
            key = new_id()
            self._show_container(key)
            specs = [await self._mount(stack, m, root) for m, root in zip(mounts, roots, strict=True)]
            if script is not None:
                specs.append(await self._blocking(self._script_mount, script))
            step = self._step(key, instruction, command, build_args, tuple(specs))
            await self._run_step(step, [spec.target for spec in specs], probe_key)

    async def _run_step(self, step: RunStep, targets: list[str], probe: Config) -> None:
        async with self._snapshot(step.id, init=True) as upper:
            stubs = await self._blocking(self._look_for_stubs, step.id, targets)
            try:
                code = await self._session.runner.run(step, self._out)
            finally:
                self._out.end_step()
            if code:
                raise StepFailed(
                    f"The command '{' '.join(step.args)}' returned a non-zero code: {code}", code
                )
            if targets:
                await self._blocking(_remove_stubs, stubs, upper)
            await self._commit(upper, probe)

    def _look_for_stubs(self, key: str, targets: list[str]) -> Stubs:
        if not targets:
            return Stubs([])
        with self._session.snapshots.mounted(key, readonly=True) as tree:
            return Stubs.before(tree, targets)

    def _command(self, instruction: Run) -> tuple[list[str], tuple[str, str] | None]:
        """Return the argument vector, and the (name, text) of a script that has to be there to be run."""
        line = instruction.command[0] if instruction.command else ""
        files = instruction.files
        if not files:
            return shell_command(instruction.command, instruction.shell, self.config), None
        only = parse_heredoc_word(line) if len(files) == 1 else None
        if only is None:
            # Part of a longer line: the shell reads its here-documents itself.
            for file in files:
                line += f"\n{file.content}{file.name}"
            return [*shell_of(self.config), line], None
        if files[0].content.startswith("#!"):
            return [f"/dev/pipes/{files[0].name}"], (files[0].name, files[0].text)
        return [*shell_of(self.config), files[0].text], None

    def _script_mount(self, script: tuple[str, str]) -> MountSpec:
        name, text = script
        directory = self._session.workspace.directory("script")
        os.chmod(directory, 0o755)
        with Root.open_path(directory) as root:
            root.write_file(name.replace("/", "_"), text.encode("utf-8", "surrogateescape"), 0o755)
        source = f"{directory}/{name.replace('/', '_')}"
        return MountSpec(type="bind", source=source, target=f"/dev/pipes/{name}", readonly=True)

    def _step(
        self,
        key: str,
        instruction: Run,
        command: list[str],
        args: dict[str, str],
        mounts: tuple[MountSpec, ...],
    ) -> RunStep:
        options = self._session.options
        env = [*(self.config.get("Env") or ()), *(f"{k}={v}" for k, v in sorted(args.items()))]
        network = instruction.network if instruction.network not in ("", "default") else options.network_mode
        config = {
            **self.config,
            "Cmd": command,
            "Env": env,
            "Entrypoint": None,
            "Healthcheck": {"Test": ["NONE"]},
        }
        return RunStep(
            id=key,
            image_id=self.image.id if self.image else "",
            config=config,
            args=tuple(command),
            env=tuple(env),
            user=self.config.get("User") or "",
            cwd=self.config.get("WorkingDir") or "/",
            network_mode=network if network not in ("", "default") else "bridge",
            resources=_resources(self._session),
            shm_size=options.shm_size,
            ulimits=options.ulimits,
            extra_hosts=options.extra_hosts,
            mounts=mounts,
        )

    # RUN --mount

    def _mounts(self, instruction: Run) -> list[RunMount]:
        env = environment(self.config)
        how = Expander(escape=self._session.escape)
        values = self._args.for_stage(env) | env
        try:
            mounts = [
                parse_mount(text, lambda word: how.run(word, values).text) for text in instruction.mounts
            ]
        except (ExpansionError, DockerfileError) as exc:
            raise InvalidParameter(str(exc)) from None
        for mount in mounts:
            if mount.type in ("secret", "ssh") or (mount.type == "cache" and mount.source_stage):
                raise needs_buildkit("mount")
            target_of(mount, self.config.get("WorkingDir") or "/")
        return mounts

    @contextlib.asynccontextmanager
    async def _mount_root(self, mount: RunMount) -> AsyncIterator[Root | None]:
        if mount.type != "bind":
            yield None
            return
        async with self._source_root(mount.source_stage) as (root, _):
            if root is None:
                raise InvalidParameter("missing build context")
            yield root

    async def _mount(self, stack: contextlib.AsyncExitStack, mount: RunMount, root: Root | None) -> MountSpec:
        target = target_of(mount, self.config.get("WorkingDir") or "/")
        if mount.type == "tmpfs":
            return MountSpec(type="tmpfs", target=target, size=mount.size, readonly=mount.readonly)
        if mount.type == "cache":
            if mount.sharing == "private":
                # Somebody else's build may be using the shared one: an own, empty one is always right.
                path = await self._blocking(self._session.workspace.directory, "cache")
                await self._blocking(os.chmod, path, 0o755 if mount.mode is None else mount.mode)
                return MountSpec(type="bind", source=path, target=target, readonly=mount.readonly)
            if mount.sharing == "locked":
                await stack.enter_async_context(_cache_locks.hold(mount.id or target))
            return await self._blocking(cache_directory, self._session.data_root, mount, target)
        assert root is not None
        return await self._blocking(copy_for_bind, root, mount, target, self._session.workspace)


def _describe(instruction: Run, mounts: list[RunMount], roots: list[Root | None]) -> list[str]:
    """Return what the options of a RUN add to its cache key: the words, and the content of what is mounted."""
    words = [*instruction.mounts, f"network={instruction.network}"]
    words += [
        bind_checksum(root, mount) for mount, root in zip(mounts, roots, strict=True) if root is not None
    ]
    return words


def _remove_stubs(stubs: Stubs, upper: str) -> None:
    with Root.open_path(upper) as root:
        stubs.remove(root)


def _resources(session: Session) -> dict[str, Any]:
    options = session.options
    values: dict[str, Any] = {
        "Memory": options.memory,
        "MemorySwap": options.memory_swap,
        "CpuShares": options.cpu_shares,
        "CpuPeriod": options.cpu_period,
        "CpuQuota": options.cpu_quota,
        "CpusetCpus": options.cpuset_cpus,
        "CpusetMems": options.cpuset_mems,
        "CgroupParent": options.cgroup_parent,
    }
    return {key: value for key, value in values.items() if value}


def workdir_of(config: Config) -> str:
    """Return the absolute working directory of a config."""
    return clean("/" + (config.get("WorkingDir") or ""))
