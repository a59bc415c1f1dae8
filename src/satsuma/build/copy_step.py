"""COPY and ADD as steps: resolve the sources, ask the cache, place the files, commit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from satsuma.base.errors import InvalidParameter
from satsuma.base.ids import new_id
from satsuma.build.images import Config
from satsuma.build.place import place
from satsuma.build.session import settled
from satsuma.build.sources import Resolver, Source, checksum_of
from satsuma.linux.root import Root
from satsuma.wire.dockerfile import Add, Copy
from satsuma.wire.dockerfile.config import shell_of

if TYPE_CHECKING:
    from satsuma.build.stage import StageRun

__all__ = ["copy_or_add"]


async def copy_or_add(stage: StageRun, instruction: Copy | Add) -> None:
    """Do COPY or ADD.

    Raises:
        EngineError: with Docker's words, `COPY failed: …`.
    """
    if instruction.texts and isinstance(instruction, Add) and instruction.checksum:
        raise InvalidParameter("checksum can't be specified for heredoc sources")
    source = instruction.source_stage if isinstance(instruction, Copy) else ""
    async with stage.source_root(source) as (root, checksums):
        resolver = Resolver(root, stage.session.workspace, from_image=bool(source), cache=checksums)
        try:
            sources = await settled(resolver.resolve, instruction)
            await _place(stage, instruction, sources, keep_owner=bool(source) and not instruction.chown)
        finally:
            resolver.close()


async def _place(
    stage: StageRun, instruction: Copy | Add, sources: list[Source], *, keep_owner: bool
) -> None:
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
    probe = {**stage.config, "Cmd": [*shell_of(stage.config), f"#(nop) {what}"]}
    if await stage.hit(probe):
        return
    workdir = stage.config.get("WorkingDir") or "/"
    if instruction.link:
        await _place_apart(stage, instruction, sources, probe, keep_owner=keep_owner)
        return
    key = new_id()
    async with stage.snapshot(key, init=False) as upper:

        def work() -> None:
            with stage.session.snapshots.mounted(key) as tree:
                place(sources, instruction, tree, names=tree, workdir=workdir, keep_owner=keep_owner)

        await settled(work)
        await stage.commit(upper, probe)


async def _place_apart(
    stage: StageRun, instruction: Copy | Add, sources: list[Source], probe: Config, *, keep_owner: bool
) -> None:
    """`--link`: a layer made without looking at the ones below, whose links it therefore cannot follow."""
    snapshots = stage.session.snapshots
    workdir = stage.config.get("WorkingDir") or "/"
    directory = await settled(snapshots.new_dir)
    try:

        def work() -> None:
            with Root.open_path(directory) as tree, snapshots.view(list(stage.chain)) as names:
                place(sources, instruction, tree, names=names, workdir=workdir, keep_owner=keep_owner)

        await settled(work)
        await stage.commit(directory, probe)
    finally:
        await settled(snapshots.discard_dir, directory)
