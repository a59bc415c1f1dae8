"""Every endpoint of Docker's API 1.51, and ours: what serves it, and how long it lives.

Source: Docker Engine API v1.51; moby v28.5.2 api/server/router/*/*.go for what its document leaves out.
"""

from __future__ import annotations

from satsuma.api.handlers import (
    absent,
    builds,
    containers,
    execs,
    extensions,
    images,
    networks,
    system,
    volumes,
    websocket,
)
from satsuma.api.router import Life, Route

_CORE = (
    Route("GET", "/_ping", system.ping),
    Route("HEAD", "/_ping", system.ping),
    Route("GET", "/version", system.version),
    Route("GET", "/info", system.info),
    Route("GET", "/system/df", system.disk_usage),
    Route("GET", "/events", system.events, Life.CANCEL),
    Route("GET", "/containers/json", containers.list_containers),
    Route("POST", "/containers/create", containers.create),
    Route("POST", "/containers/prune", containers.prune),
    Route("GET", "/containers/{name}/json", containers.inspect),
    Route("GET", "/containers/{name}/top", containers.top),
    Route("GET", "/containers/{name}/changes", containers.changes),
    Route("GET", "/containers/{name}/logs", containers.logs, Life.CANCEL),
    Route("GET", "/containers/{name}/stats", containers.stats, Life.CANCEL),
    Route("GET", "/containers/{name}/export", containers.export, Life.CANCEL),
    Route("GET", "/containers/{name}/attach/ws", websocket.attach, Life.HIJACK),
    Route("HEAD", "/containers/{name}/archive", containers.archive_stat),
    Route("GET", "/containers/{name}/archive", containers.archive_get, Life.CANCEL),
    Route("PUT", "/containers/{name}/archive", containers.archive_put),
    Route("POST", "/containers/{name}/start", containers.start),
    Route("POST", "/containers/{name}/stop", containers.stop),
    Route("POST", "/containers/{name}/restart", containers.restart),
    Route("POST", "/containers/{name}/kill", containers.kill),
    Route("POST", "/containers/{name}/pause", containers.pause),
    Route("POST", "/containers/{name}/unpause", containers.unpause),
    Route("POST", "/containers/{name}/rename", containers.rename),
    Route("POST", "/containers/{name}/update", containers.update),
    Route("POST", "/containers/{name}/resize", containers.resize),
    Route("POST", "/containers/{name}/wait", containers.wait, Life.CANCEL),
    Route("POST", "/containers/{name}/attach", containers.attach, Life.HIJACK),
    Route("POST", "/containers/{name}/exec", execs.create),
    Route("DELETE", "/containers/{name}", containers.remove),
    Route("GET", "/exec/{name}/json", execs.inspect),
    Route("POST", "/exec/{name}/start", execs.start, Life.HIJACK),
    Route("POST", "/exec/{name}/resize", execs.resize),
    Route("POST", "/commit", containers.commit),
    Route("GET", "/images/json", images.list_images),
    Route("GET", "/images/get", images.save, Life.CANCEL),
    Route("POST", "/images/create", images.create, Life.CANCEL),
    Route("POST", "/images/load", images.load, Life.CANCEL),
    Route("POST", "/images/prune", images.prune),
    Route("GET", "/images/{name}/json", images.inspect),
    Route("GET", "/images/{name}/history", images.history),
    Route("GET", "/images/{name}/get", images.save_one, Life.CANCEL),
    Route("POST", "/images/{name}/tag", images.tag),
    Route("DELETE", "/images/{name}", images.remove),
    Route("POST", "/build", builds.build, Life.CANCEL),
    Route("POST", "/build/prune", builds.prune),
    Route("GET", "/networks", networks.list_networks),
    Route("GET", "/networks/", networks.list_networks),
    Route("POST", "/networks/create", networks.create),
    Route("POST", "/networks/prune", networks.prune),
    Route("GET", "/networks/{name}", networks.inspect),
    Route("POST", "/networks/{name}/connect", networks.connect),
    Route("POST", "/networks/{name}/disconnect", networks.disconnect),
    Route("DELETE", "/networks/{name}", networks.remove),
    Route("GET", "/volumes", volumes.list_volumes),
    Route("POST", "/volumes/create", volumes.create),
    Route("POST", "/volumes/prune", volumes.prune),
    Route("GET", "/volumes/{name}", volumes.inspect),
    Route("DELETE", "/volumes/{name}", volumes.remove),
)

_EXTENSIONS = (
    Route("POST", "/satsuma/images/bootstrap", extensions.bootstrap, Life.CANCEL),
    Route("GET", "/satsuma/containers/{name}/anatomy", extensions.anatomy),
    Route("GET", "/satsuma/containers/{name}/explain", extensions.explain, Life.CANCEL),
    Route("GET", "/satsuma/exec/{name}/explain", extensions.explain_exec, Life.CANCEL),
    Route("GET", "/satsuma/system/check", extensions.check),
    Route("POST", "/satsuma/system/check", extensions.repair),
)

_PLUGINS = (
    Route("GET", "/plugins", absent.list_plugins),
    Route("GET", "/plugins/{name}/json", absent.inspect_plugin),
)

UNSUPPORTED = (
    "POST /auth",
    "GET /images/search",
    "POST /images/{name}/push",
    "GET /distribution/{name}/json",
    "POST /build/cancel",
    "POST /session",
    "POST /grpc",
    "GET /containers/{name}/checkpoints",
    "POST /containers/{name}/checkpoints",
    "GET /plugins/privileges",
    "DELETE /plugins/{name}",
    "POST /plugins/{name}/enable",
    "POST /plugins/{name}/disable",
    "POST /plugins/pull",
    "POST /plugins/{name}/push",
    "POST /plugins/{name}/upgrade",
    "POST /plugins/{name}/set",
    "POST /plugins/create",
    "POST /swarm/init",
    "POST /swarm/join",
)

SWARM = (
    "POST /swarm/leave",
    "GET /swarm",
    "GET /swarm/unlockkey",
    "POST /swarm/update",
    "POST /swarm/unlock",
    "GET /services",
    "GET /services/{name}",
    "POST /services/create",
    "POST /services/{name}/update",
    "DELETE /services/{name}",
    "GET /services/{name}/logs",
    "GET /nodes",
    "GET /nodes/{name}",
    "DELETE /nodes/{name}",
    "POST /nodes/{name}/update",
    "GET /tasks",
    "GET /tasks/{name}",
    "GET /tasks/{name}/logs",
    "GET /secrets",
    "POST /secrets/create",
    "GET /secrets/{name}",
    "DELETE /secrets/{name}",
    "POST /secrets/{name}/update",
    "GET /configs",
    "POST /configs/create",
    "GET /configs/{name}",
    "DELETE /configs/{name}",
    "POST /configs/{name}/update",
)


def _split(endpoint: str) -> tuple[str, str]:
    method, _, pattern = endpoint.partition(" ")
    return method, pattern


ROUTES = (
    *_CORE,
    *_EXTENSIONS,
    *_PLUGINS,
    Route("PUT", "/volumes/{name}", absent.volume_update),
    *(Route(*_split(endpoint), absent.unsupported(endpoint)) for endpoint in UNSUPPORTED),
    *(Route(*_split(endpoint), absent.swarm) for endpoint in SWARM),
)
