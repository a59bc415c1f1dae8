"""Which engine to talk to: flags, environment, contexts, and the default socket.

Order, as docker's: `-H`, `-c`, `DOCKER_HOST`, `DOCKER_CONTEXT`, the context in use, the default.

Source: docker documentation "Docker contexts"; measured on docker 28.2.
"""

from __future__ import annotations

import os

from satsuma.cli.errors import CliError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from satsuma.cli.session import Session

DEFAULT_SOCKET = "/run/satsuma/satsuma.sock"
DEFAULT_HOST = f"unix://{DEFAULT_SOCKET}"


class Endpoint:
    """The address of an engine."""

    __slots__ = ("ca", "cert", "host", "is_default", "key", "tls", "verify")

    def __init__(self, host: str, *, is_default: bool = False) -> None:
        self.host = host
        self.is_default = is_default
        """Nobody named an engine: this is the one to start when it does not run."""
        self.tls = False
        self.verify = False
        self.ca = self.cert = self.key = ""

    @property
    def scheme(self) -> str:
        """`unix`, `tcp`, `ssh`, …"""
        return self.host.partition("://")[0]

    @property
    def path(self) -> str:
        """The path of a socket."""
        return self.host.partition("://")[2]

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of a TCP address."""
        rest = self.path.partition("/")[0]
        host, colon, port = rest.rpartition(":")
        if not colon or port.endswith("]"):
            host, port = rest, ""
        return host.strip("[]") or "localhost", int(port or (2376 if self.tls else 2375))


def normalise(text: str) -> str:
    """Return the URL of an engine that people write in short.

    Raises:
        CliError: no such scheme, or a port that is none.
    """
    if text == "":
        return DEFAULT_HOST
    if "://" not in text:
        if text.startswith("/"):
            return f"unix://{text}"
        text = f"tcp://{text}"
    scheme, _, rest = text.partition("://")
    if scheme not in ("unix", "tcp", "http", "https", "ssh", "npipe", "fd"):
        raise CliError(f"invalid bind address format: {text}")
    if scheme in ("http", "https"):
        scheme = "tcp"
    if scheme == "unix" and not rest:
        rest = DEFAULT_SOCKET
    if scheme == "tcp":
        port = rest.partition("/")[0].rpartition(":")[2] if ":" in rest and not rest.endswith("]") else "0"
        if not port.isdigit():
            raise CliError(f"invalid bind address format: {text}")
    return f"{scheme}://{rest}"


def find(session: Session) -> Endpoint:
    """Return the engine that this run talks to.

    Raises:
        CliError: flags that contradict each other, or a context that does not exist.
    """
    options = session.options
    hosts: list[str] = options["host"]
    if hosts and options["context"]:
        raise CliError("conflicting options: cannot specify both --host and --context")
    if len(hosts) > 1:
        raise CliError("Specify only one -H")
    if hosts:
        return _with_tls(Endpoint(normalise(hosts[0])), session)
    name = context_name(session)
    if name == "default":
        host = os.environ.get("DOCKER_HOST", "")
        return _with_tls(Endpoint(normalise(host), is_default=not host), session)
    from satsuma.cli.contexts import endpoint_of

    return endpoint_of(session.config_dir, name)


def context_name(session: Session) -> str:
    """Return the name of the context in use; `default` stands for flags and environment."""
    if session.options["context"]:
        return str(session.options["context"])
    if session.options["host"] or os.environ.get("DOCKER_HOST"):
        return "default"
    return os.environ.get("DOCKER_CONTEXT") or session.config.get("currentContext") or "default"


def _with_tls(endpoint: Endpoint, session: Session) -> Endpoint:
    options = session.options
    verify = options["tlsverify"] or (
        "tlsverify" not in options.changed and bool(os.environ.get("DOCKER_TLS_VERIFY"))
    )
    endpoint.verify = verify
    endpoint.tls = bool(verify or options["tls"] or os.environ.get("DOCKER_TLS"))
    if endpoint.tls:
        base = os.environ.get("DOCKER_CERT_PATH") or session.config_dir
        for attribute, flag in (("ca", "tlscacert"), ("cert", "tlscert"), ("key", "tlskey")):
            given = options[flag] if flag in options.changed else os.path.join(base, f"{attribute}.pem")
            if flag in options.changed or os.path.exists(given):
                setattr(endpoint, attribute, given)
    return endpoint
