"""`commit`: an image from what a container changed, on top of the layers that it stands on.

Source: moby daemon/commit.go, daemon/images/image_commit.go of 28.5.2.
"""

from __future__ import annotations

import contextlib
import json
from typing import Any

from satsuma.base.aio import blocking
from satsuma.base.errors import Conflict, EngineError, InvalidParameter
from satsuma.base.failpoints import failpoint
from satsuma.container import Record, Status, lay_over
from satsuma.container.inspect import config_json
from satsuma.engine import supervise
from satsuma.engine.core import Core
from satsuma.image import apply_changes
from satsuma.spec.decode import decode_json
from satsuma.spec.docker import ContainerConfig
from satsuma.spec.image import History
from satsuma.wire import reference

Json = dict[str, Any]


async def commit(
    core: Core,
    *,
    container: str,
    repo: str,
    tag: str,
    comment: str,
    author: str,
    pause: bool,
    changes: list[str],
    config: ContainerConfig | None,
) -> str:
    """Make an image of a container and return its id.

    Raises:
        NotFound, Conflict, InvalidParameter: Docker's words.
    """
    record = core.registry.find(container)
    if record.state.status is Status.DEAD:
        raise Conflict(f"You cannot commit container {record.id} which is Dead")
    if record.state.status is Status.REMOVING:
        raise Conflict(f"You cannot commit container {record.id} which is being removed")
    target = parse_target(repo, tag)
    image_config = new_config(record, config, changes)
    frozen = pause and record.state.status is Status.RUNNING
    if frozen:
        # It may end at this very moment; then there is nothing to freeze.
        with contextlib.suppress(EngineError):
            await supervise.pause(core, record.id, by_commit=True)
    failpoint("engine.commit.frozen")
    try:
        image = await blocking(_commit, core, record, image_config, comment, author)
    finally:
        if frozen:
            with contextlib.suppress(EngineError):
                await supervise.unpause(core, record.id)
    name = ""
    if target is not None:
        await blocking(core.images.tag, image.id, repo, tag)
        name = target.familiar()
    core.emit(record, "commit", comment=comment, imageID=image.id, imageRef=name)
    return str(image.id)


def parse_target(repo: str, tag: str) -> reference.Reference | None:
    """Return the reference to give to the image, None for none.

    Raises:
        InvalidParameter: `invalid reference format`.
    """
    if not repo:
        return None
    parsed = reference.parse(f"{repo}:{tag}" if tag else repo)
    if parsed.digest:
        raise InvalidParameter("cannot use digest reference")
    return parsed


def new_config(record: Record, config: ContainerConfig | None, changes: list[str]) -> Json:
    """Return the image's `config`: the container's, laid under what the client sent, then the changes."""
    base = config if config is not None else record.config
    changed = apply_changes(image_fields(config_json(base)), changes)
    merged = lay_over(decode_json(_encode(changed), ContainerConfig), record.config)
    return image_fields(config_json(merged))


def _encode(value: Json) -> bytes:
    return json.dumps(value).encode()


def image_fields(config: Json) -> Json:
    """Drop what belongs to one container and not to an image."""
    return {key: value for key, value in config.items() if key not in ("Image",)}


def _commit(core: Core, record: Record, config: Json, comment: str, author: str) -> Any:
    active = core.store.snapshots.active(record.id)
    chain = core.store.snapshots.chain(record.id)
    layer = core.images.commit_layer(active.upperdir, chain)
    parent = core.images.find(record.image_id) if record.image_id else None
    return core.images.create_from(
        parent,
        [layer] if layer is not None else [],
        config,
        history=[
            History(
                created_by=" ".join([record.path, *record.args]),
                author=author,
                comment=comment,
                empty_layer=layer is None,
            )
        ],
        author=author,
        container=record.id,
    )
