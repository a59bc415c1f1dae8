"""RUN as a step: what to run, with which variables and mounts, and what becomes of its changes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from satsuma.base.aio import KeyedLock
from satsuma.base.errors import InvalidParameter
from satsuma.base.ids import new_id
from satsuma.build.failure import StepFailed
from satsuma.build.images import Config
from satsuma.build.mounts import (
    Stubs,
    bind_checksum,
    cache_directory,
    copy_for_bind,
    needs_buildkit,
    target_of,
)
from satsuma.build.options import BuildOptions
from satsuma.build.runner import MountSpec, RunStep
from satsuma.build.session import settled
from satsuma.linux.root import Root
from satsuma.wire.dockerfile import DockerfileError, Run, RunMount, parse_heredoc_word, parse_mount
from satsuma.wire.dockerfile.config import environment, shell_command, shell_of
from satsuma.wire.shell_words import Expander, ExpansionError

if TYPE_CHECKING:
    from satsuma.build.stage import StageRun

__all__ = ["run"]

# `sharing=locked`: one build at a time uses the cache directory of an id.
_cache_locks = KeyedLock()


async def run(stage: StageRun, instruction: Run) -> None:
    """Run the command in a container of its own, and commit what it changed.

    Raises:
        StepFailed: it ended with another code than 0.
        EngineError: it cannot be, or could not be started.
    """
    if instruction.security == "insecure":
        raise needs_buildkit("security")
    if instruction.devices:
        raise needs_buildkit("device")
    mounts = _mounts(stage, instruction)
    command, script = _command(stage, instruction)
    if not command or not command[0]:
        raise InvalidParameter("no command specified")
    env = environment(stage.config)
    build_args = stage.args.for_stage(env)
    saved = [*stage.args.for_history(build_args), *command]
    probe: Config = {**stage.config, "Cmd": saved, "Entrypoint": None}
    async with contextlib.AsyncExitStack() as stack:
        roots = [await stack.enter_async_context(_mount_root(stage, mount)) for mount in mounts]
        probe_key = probe
        if instruction.flags:
            probe_key = {
                **probe,
                "RunOptions": await settled(_describe, instruction, mounts, roots),
            }
        if await stage.hit(probe_key):
            return
        key = new_id()
        stage.show_container(key)
        specs = [await _mount(stage, stack, m, root) for m, root in zip(mounts, roots, strict=True)]
        if script is not None:
            specs.append(await settled(_script_mount, stage, script))
        step = _step(stage, key, instruction, command, build_args, tuple(specs))
        await _run_step(stage, step, [spec.target for spec in specs], probe_key)


async def _run_step(stage: StageRun, step: RunStep, targets: list[str], probe: Config) -> None:
    async with stage.snapshot(step.id, init=True) as upper:
        stubs = await settled(_look_for_stubs, stage, step.id, targets)
        try:
            code = await stage.session.runner.run(step, stage.output)
        finally:
            stage.output.end_step()
        options = stage.session.options
        if code and not options.force_rm:
            stage.keep(step, code)
        if code:
            raise StepFailed(f"The command '{' '.join(step.args)}' returned a non-zero code: {code}", code)
        if targets:
            await settled(_remove_stubs, stubs, upper)
        keep = not (options.rm or options.force_rm)
        await stage.commit(upper, probe, move=not keep)
        if keep:
            stage.keep(step, code)


def _look_for_stubs(stage: StageRun, key: str, targets: list[str]) -> Stubs:
    if not targets:
        return Stubs([])
    with stage.session.snapshots.mounted(key, readonly=True) as tree:
        return Stubs.before(tree, targets)


def _command(stage: StageRun, instruction: Run) -> tuple[list[str], tuple[str, str] | None]:
    """Return the argument vector, and the (name, text) of a script that has to be there to be run."""
    line = instruction.command[0] if instruction.command else ""
    files = instruction.files
    if not files:
        return shell_command(instruction.command, instruction.shell, stage.config), None
    only = parse_heredoc_word(line) if len(files) == 1 else None
    if only is None:
        # Part of a longer line: the shell reads its here-documents itself.
        for file in files:
            line += f"\n{file.content}{file.name}"
        return [*shell_of(stage.config), line], None
    if files[0].content.startswith("#!"):
        return [f"/dev/pipes/{files[0].name}"], (files[0].name, files[0].text)
    return [*shell_of(stage.config), files[0].text], None


def _script_mount(stage: StageRun, script: tuple[str, str]) -> MountSpec:
    name, text = script
    directory = stage.session.workspace.directory("script")
    os.chmod(directory, 0o755)
    with Root.open_path(directory) as root:
        root.write_file(name.replace("/", "_"), text.encode("utf-8", "surrogateescape"), 0o755)
    source = f"{directory}/{name.replace('/', '_')}"
    return MountSpec(type="bind", source=source, target=f"/dev/pipes/{name}", readonly=True)


def _step(
    stage: StageRun,
    key: str,
    instruction: Run,
    command: list[str],
    args: dict[str, str],
    mounts: tuple[MountSpec, ...],
) -> RunStep:
    options = stage.session.options
    env = [*(stage.config.get("Env") or ()), *(f"{k}={v}" for k, v in sorted(args.items()))]
    network = instruction.network if instruction.network not in ("", "default") else options.network_mode
    config = {
        **stage.config,
        "Cmd": command,
        "Env": env,
        "Entrypoint": None,
        "Healthcheck": {"Test": ["NONE"]},
    }
    return RunStep(
        id=key,
        image_id=stage.image.id if stage.image else "",
        config=config,
        args=tuple(command),
        env=tuple(env),
        user=stage.config.get("User") or "",
        cwd=stage.config.get("WorkingDir") or "/",
        network_mode=network if network not in ("", "default") else "bridge",
        resources=_resources(options),
        shm_size=options.shm_size,
        ulimits=options.ulimits,
        extra_hosts=options.extra_hosts,
        mounts=mounts,
    )


def _mounts(stage: StageRun, instruction: Run) -> list[RunMount]:
    env = environment(stage.config)
    how = Expander(escape=stage.session.escape)
    values = stage.args.for_stage(env) | env
    try:
        mounts = [parse_mount(text, lambda word: how.run(word, values).text) for text in instruction.mounts]
    except (ExpansionError, DockerfileError) as exc:
        raise InvalidParameter(str(exc)) from None
    for mount in mounts:
        if mount.type in ("secret", "ssh") or (mount.type == "cache" and mount.source_stage):
            raise needs_buildkit("mount")
        target_of(mount, stage.config.get("WorkingDir") or "/")
    return mounts


@contextlib.asynccontextmanager
async def _mount_root(stage: StageRun, mount: RunMount) -> AsyncIterator[Root | None]:
    if mount.type != "bind":
        yield None
        return
    async with stage.source_root(mount.source_stage) as (root, _):
        if root is None:
            raise InvalidParameter("missing build context")
        yield root


async def _mount(
    stage: StageRun, stack: contextlib.AsyncExitStack, mount: RunMount, root: Root | None
) -> MountSpec:
    target = target_of(mount, stage.config.get("WorkingDir") or "/")
    if mount.type == "tmpfs":
        return MountSpec(type="tmpfs", target=target, size=mount.size, readonly=mount.readonly)
    if mount.type == "cache":
        if mount.sharing == "private":
            # Somebody else's build may be using the shared one: an own, empty one is always right.
            path = await settled(stage.session.workspace.directory, "cache")
            await settled(os.chmod, path, 0o755 if mount.mode is None else mount.mode)
            return MountSpec(type="bind", source=path, target=target, readonly=mount.readonly)
        if mount.sharing == "locked":
            await stack.enter_async_context(_cache_locks.hold(mount.id or target))
        return await settled(cache_directory, stage.session.data_root, mount, target)
    assert root is not None
    return await settled(copy_for_bind, root, mount, target, stage.session.workspace)


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


def _resources(options: BuildOptions) -> dict[str, Any]:
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
