"""A whole build: Dockerfile and context in, classic output stream and an image out, nothing else left behind.

Everything before the first `Step` line can fail as a plain error (the client gets a status); from then on an error is
the last object of the stream.  Whatever happens, also a client that leaves, the workspace and the snapshots of the
build are removed.  The images of finished steps stay: they are the cache.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import platform
import shutil
from collections.abc import AsyncIterator
from typing import BinaryIO

from satsuma.base.aio import blocking, spawn
from satsuma.base.errors import EngineError, InvalidParameter, System
from satsuma.base.ids import short_id
from satsuma.build import context as contexts
from satsuma.build.args import BuildArgs
from satsuma.build.cache import BuildCache
from satsuma.build.failure import StepFailed
from satsuma.build.images import ImageAdapter, StepImage
from satsuma.build.options import BuildOptions, validate
from satsuma.build.output import Output, StreamObject
from satsuma.build.runner import ImagePuller, StepRunner
from satsuma.build.session import ImageChecksums, Session, settled
from satsuma.build.stage import StageRun
from satsuma.image import ImageService
from satsuma.linux.root import Root
from satsuma.store import Store, tree_size
from satsuma.wire import reference
from satsuma.wire.dockerfile import (
    Arg,
    Dockerfile,
    KeyValue,
    Label,
    Stage,
    expand,
    parse_stages,
)
from satsuma.wire.shell_words import Expander, ExpansionError

__all__ = ["Builder"]

_log = logging.getLogger(__name__)

_MACHINES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}


def architecture() -> str:
    """Return the name that images use for this machine."""
    machine = platform.machine()
    return _MACHINES.get(machine, machine)


class Builder:
    """Builds images.  Several builds may run at once."""

    def __init__(
        self, store: Store, images: ImageService, runner: StepRunner, *, puller: ImagePuller | None = None
    ) -> None:
        self._store = store
        self._images = ImageAdapter(images)
        self._runner = runner
        self._puller = puller
        self._cache = BuildCache(store.db.collection("build_cache"), self._images)
        self._checksums = ImageChecksums()
        self._workspaces = f"{store.data_root}/build/tmp"
        # What a crash left; nobody else can be using it, the store is locked.
        shutil.rmtree(self._workspaces, ignore_errors=True)

    async def build(self, options: BuildOptions, stream: BinaryIO | None) -> AsyncIterator[StreamObject]:
        """Build, and yield the objects of the classic stream.

        Args:
            stream: the context as a tar, plain or compressed, readable to its end; None with `remote`.
        Raises:
            EngineError: before the first object only: options, context and Dockerfile are checked then.
        """
        tags = validate(options, architecture=architecture())
        workspace = await blocking(contexts.Workspace, self._workspaces)
        context: contexts.Context | None = None
        try:
            context, dockerfile = await settled(contexts.load, options, stream, workspace)
            output = Output(quiet=options.quiet)
            session = Session(
                options=options,
                output=output,
                images=self._images,
                snapshots=self._store.snapshots,
                cache=self._cache,
                runner=self._runner,
                puller=self._puller,
                workspace=workspace,
                checksums=self._checksums,
                data_root=self._store.data_root,
                escape=dockerfile.escape,
                context=context,
            )
            run = _Run(session, dockerfile, tags)
            task = spawn("build", run.drive())
            try:
                async for item in output.objects():
                    yield item
                await task
            finally:
                await _stop(task)
        finally:
            if context is not None:
                context.root.close()
            await asyncio.shield(spawn("build:clean", blocking(workspace.close)))

    async def prune(self) -> tuple[list[str], int]:
        """Forget the cache; return (the keys of what was forgotten, bytes freed).

        The images of steps are not touched: they are dangling images, `image prune` knows them.
        """
        return await settled(self._prune)

    def _prune(self) -> tuple[list[str], int]:
        forgotten = self._cache.prune()
        freed = 0
        directory = f"{self._store.data_root}/build/cache"
        with contextlib.suppress(FileNotFoundError):
            for name in sorted(os.listdir(directory)):
                with Root.open_path(f"{directory}/{name}") as root:
                    freed += tree_size(root)
                self._store.trash.throw(f"{directory}/{name}", "cache", name)
                forgotten.append(name)
        return forgotten, freed


async def _stop(task: asyncio.Task[None]) -> None:
    """End the driving task and wait for it, whether or not we are being cancelled ourselves."""
    if task.done():
        return
    task.cancel()
    await asyncio.wait([task])


class _Run:
    """The stages of one build, one after the other."""

    def __init__(self, session: Session, dockerfile: Dockerfile, tags: list[tuple[str, str]]) -> None:
        self._session = session
        self._out = session.output
        self._tags = tags
        self._warnings = dockerfile.warnings
        options = session.options
        self._global_args, stages = parse_stages(dockerfile)
        self._stages = _with_labels(_up_to_target(stages, options.target), options)
        self._args = BuildArgs(options.build_args, _platform_args())
        self._step = 0
        self._total = len(self._global_args) + sum(1 + len(stage.instructions) for stage in self._stages)

    async def drive(self) -> None:
        """Build, with every outcome as objects of the stream."""
        try:
            image = await self._build()
            await self._finish(image)
        except asyncio.CancelledError:
            self._out.text("Build cancelled\n")
            raise
        except StepFailed as exc:
            self._out.fail(str(exc), exc.code)
        except EngineError as exc:
            self._out.fail(str(exc))
        except OSError as exc:
            _log.warning("build failed", exc_info=exc)
            self._out.fail(f"{exc.strerror or exc}".lower())
        except Exception:
            self._out.fail("the builder failed; the log of the engine says where")
            raise
        finally:
            self._out.close()

    async def _build(self) -> StepImage:
        for warning in self._warnings:
            self._out(2, f"[WARNING]: {warning.message}\n".encode("utf-8", "surrogateescape"))
        for arg in self._global_args:
            self._announce(arg.code)
            self._declare(arg)
        image: StepImage | None = None
        for stage in self._stages:
            image = await self._build_stage(stage)
        unused = self._args.unused()
        if unused:
            self._out.text(f"[Warning] One or more build-args [{' '.join(unused)}] were not consumed\n")
        if image is None:
            raise System("No image was generated. Is your Dockerfile empty?")
        return image

    def _announce(self, code: str) -> None:
        self._step += 1
        self._out.text(f"Step {self._step}/{self._total} : {code}")
        self._out.text("\n")

    def _declare(self, arg: Arg) -> None:
        expanded = expand(arg, self._args.for_from(), self._session.escape)
        assert isinstance(expanded, Arg)
        for pair in expanded.pairs:
            self._args.declare_global(pair.key, pair.value)

    async def _build_stage(self, stage: Stage) -> StepImage | None:
        session = self._session
        if stage.base.stage and session.stage(stage.base.stage):
            raise InvalidParameter(f"{stage.base.stage} stage name already used")
        self._announce(stage.base.code)
        base = await self._base(stage)
        run = StageRun(session, stage.base, base, self._args.stage())
        await run.run_triggers()
        self._show(run.image)
        for instruction in stage.instructions:
            self._announce(instruction.code)
            await run.execute(instruction)
            self._show(run.image)
        if run.image is not None:
            self._out.aux(run.image.id)
        session.stages.append((stage.base.stage, run.image))
        return run.image

    def _show(self, image: StepImage | None) -> None:
        self._out.text(f" ---> {short_id(image.id) if image else ''}\n")

    async def _base(self, stage: Stage) -> StepImage | None:
        """Return the image behind FROM; None for `scratch`."""
        how = Expander(escape=self._session.escape)
        values = self._args.for_from()
        try:
            name = how.run(stage.base.image, values).text
            platform_text = how.run(stage.base.platform, values).text
        except ExpansionError as exc:
            raise InvalidParameter(str(exc)) from None
        if not name:
            raise InvalidParameter(f"base name ({stage.base.image}) should not be blank")
        if stage.base.platform:
            _check_stage_platform(platform_text)
        finished = self._session.stage(name)
        if finished is not None:
            return finished[1]
        if name == "scratch":
            return None
        reference.parse(name)
        return await self._session.base_image(name)

    async def _finish(self, image: StepImage) -> None:
        self._out.text(f"Successfully built {short_id(image.id)}\n")
        for repository, tag in self._tags:
            await settled(self._session.images.tag, image.id, repository, tag)
            self._out.text(f"Successfully tagged {repository}:{tag}\n")
        if self._session.options.quiet:
            self._out.result(f"{image.id}\n")


def _check_stage_platform(text: str) -> None:
    try:
        validate(BuildOptions(platform=text), architecture=architecture())
    except EngineError as exc:
        raise InvalidParameter(f"failed to parse platform {text}: {exc}") from None


def _platform_args() -> dict[str, str]:
    machine = architecture()
    variant = "v8" if machine == "arm64" else ""
    values: dict[str, str] = {}
    for prefix in ("BUILD", "TARGET"):
        values |= {
            f"{prefix}PLATFORM": f"linux/{machine}",
            f"{prefix}OS": "linux",
            f"{prefix}ARCH": machine,
            f"{prefix}VARIANT": "" if machine == "arm64" else variant,
        }
    return values


def _up_to_target(stages: tuple[Stage, ...], target: str) -> tuple[Stage, ...]:
    if not target:
        return stages
    for i, stage in enumerate(stages):
        if stage.base.stage == target.lower():
            return stages[: i + 1]
    if target.isascii() and target.isdecimal() and len(target) < 10 and int(target) < len(stages):
        return stages[: int(target) + 1]
    raise InvalidParameter(f'target stage "{target}" could not be found')


def _with_labels(stages: tuple[Stage, ...], options: BuildOptions) -> tuple[Stage, ...]:
    """Append `--label` options to the last stage as LABEL instructions, sorted."""
    last = stages[-1]
    labels = tuple(
        Label(code=f"LABEL {key}={value}", pairs=(KeyValue(key, value),), literal=True)
        for key, value in sorted(options.labels.items())
    )
    return (*stages[:-1], Stage(base=last.base, instructions=(*last.instructions, *labels)))
