"""Registries, as far as they are the client's: pull, push, search, login, logout.

Names and credentials are handled here; the traffic with registries is the engine's.

Source: docker documentation of these commands; Docker Engine API "Authentication".
"""

from __future__ import annotations

import sys

from satsuma.cli.client import as_filters, escape
from satsuma.cli.errors import ApiError, CliError
from satsuma.cli.formatting import Listing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TextIO

    from satsuma.cli.flags import Flags
    from satsuma.cli.session import Session
    from satsuma.wire.reference import Reference

HUB = "https://index.docker.io/v1/"


def _parse(name: str) -> Reference:
    from satsuma.base.errors import EngineError
    from satsuma.wire.reference import parse

    try:
        return parse(name)
    except EngineError as error:
        raise CliError(str(error)) from None


def pull_image(session: Session, image: str, *, platform: str = "", quiet: bool = False, out: TextIO) -> None:
    """Let the engine pull an image and show its progress.

    Raises:
        CliError: the engine's error.
    """
    from satsuma.cli.progress import show_stream

    reference = _parse(image)
    if not reference.digest:
        reference = reference.with_default_tag()
    query = {
        "fromImage": reference.familiar_name(),
        "tag": reference.digest or reference.tag,
        "platform": platform.lower() or None,
    }
    try:
        answer = session.engine.request(
            "POST", "/images/create", query, headers=auth_header(session, reference.domain)
        )
    except ApiError as error:
        if error.http_status != 501:
            raise
        hint = f"Without a registry: `{session.program} image bootstrap busybox` makes a base image of what is here."
        raise ApiError(f"{error}\n{hint}", error.http_status) from None
    if quiet:
        import io

        out = io.StringIO()
    show_stream(answer.documents(), out)


def pull(session: Session, flags: Flags) -> None:
    """Download an image."""
    from satsuma.cli.run import refuse_trust

    refuse_trust(flags)
    name = flags.args[0]
    reference = _parse(name)
    if flags["all-tags"]:
        if reference.tag or reference.digest:
            raise CliError("tag can't be used with --all-tags/-a")
        from satsuma.cli.progress import show_stream

        query = {"fromImage": reference.familiar_name(), "platform": flags["platform"].lower() or None}
        answer = session.engine.request(
            "POST", "/images/create", query, headers=auth_header(session, reference.domain)
        )
        show_stream(answer.documents(), sys.stdout)
    else:
        if not flags["quiet"] and not reference.tag and not reference.digest:
            session.line("Using default tag: latest")
        pull_image(session, name, platform=flags["platform"], quiet=flags["quiet"], out=sys.stdout)
        reference = reference.with_default_tag()
    session.line(str(reference))


def push(session: Session, flags: Flags) -> None:
    """Upload an image."""
    from satsuma.cli.inspect import _platform
    from satsuma.cli.progress import show_stream
    from satsuma.cli.run import refuse_trust

    refuse_trust(flags)
    reference = _parse(flags.args[0])
    if flags["all-tags"]:
        if reference.tag or reference.digest:
            raise CliError("tag can't be used with --all-tags/-a")
    else:
        reference = reference.with_default_tag()
        if not flags["quiet"] and ":" not in flags.args[0].rpartition("/")[2]:
            session.line("Using default tag: latest")
    query = {"tag": reference.tag or None, "platform": _platform(flags["platform"])}
    headers = auth_header(session, reference.domain)
    path = f"/images/{escape(reference.familiar_name(), '/:')}/push"
    answer = session.engine.request("POST", path, query, headers=headers)
    out: TextIO = sys.stdout
    if flags["quiet"]:
        import io

        out = io.StringIO()
    show_stream(answer.documents(), out)
    if flags["quiet"]:
        session.line(str(reference))


# -- credentials --------------------------------------------------------------------------------------------------


def auth_header(session: Session, domain: str) -> dict[str, str]:
    """Return the header that carries the credentials for a registry."""
    import base64
    import json

    key = HUB if domain == "docker.io" else domain
    found = credentials(session, key) or {}
    text = json.dumps(found, separators=(",", ":"))
    return {"X-Registry-Auth": base64.urlsafe_b64encode(text.encode()).decode()}


def credentials(session: Session, key: str) -> dict[str, str] | None:
    """Return what is stored for a registry, by the credential helper or in the configuration file."""
    import base64

    helper = (session.config.get("credHelpers") or {}).get(key) or session.config.get("credsStore")
    if helper:
        return _ask_helper(str(helper), "get", key)
    entry = (session.config.get("auths") or {}).get(key)
    if not entry:
        return None
    user, _, password = base64.b64decode(entry.get("auth") or "").decode("utf-8", "replace").partition(":")
    found = {"username": user, "password": password, "serveraddress": key}
    if entry.get("identitytoken"):
        found["identitytoken"] = entry["identitytoken"]
    return found


def _ask_helper(name: str, verb: str, text: str) -> dict[str, str] | None:
    """Run `docker-credential-NAME VERB` with *text* on its input."""
    import json
    import subprocess

    try:
        done = subprocess.run(
            [f"docker-credential-{name}", verb], input=text.encode(), capture_output=True, check=False
        )
    except FileNotFoundError:
        raise CliError(
            f"error getting credentials: docker-credential-{name}: executable file not found"
        ) from None
    if done.returncode:
        return None
    if verb != "get":
        return {}
    answer = json.loads(done.stdout)
    if answer.get("Username") == "<token>":
        return {"identitytoken": answer["Secret"], "serveraddress": text}
    return {"username": answer["Username"], "password": answer["Secret"], "serveraddress": text}


def _server(name: str) -> str:
    if name in ("", "docker.io", "index.docker.io", "https://index.docker.io/v1/"):
        return HUB
    return name.partition("://")[2].partition("/")[0] if "://" in name else name.partition("/")[0]


def login(session: Session, flags: Flags) -> None:
    """Check credentials with the engine and store them."""
    server = _server(flags.args[0] if flags.args else "")
    if flags["password"]:
        session.warn("WARNING! Using --password via the CLI is insecure. Use --password-stdin.")
        if flags["password-stdin"]:
            raise CliError("conflicting options: cannot specify both --password and --password-stdin")
    user, password = flags["username"], flags["password"]
    if flags["password-stdin"]:
        if not user:
            raise CliError("the --password-stdin option requires --username to be set")
        password = sys.stdin.read().rstrip("\r\n")
    if not user or not password:
        user, password = _prompt(session, server, user, password)
    body = {"username": user, "password": password, "serveraddress": server}
    answer = session.engine.post("/auth", None, body) or {}
    _store(session, server, user, password, answer.get("IdentityToken") or "")
    session.line(answer.get("Status") or "Login Succeeded")


def _prompt(session: Session, server: str, user: str, password: str) -> tuple[str, str]:
    import getpass

    if not sys.stdin.isatty():
        raise CliError("Error: Cannot perform an interactive login from a non TTY device")
    stored = (credentials(session, server) or {}).get("username", "")
    if not user:
        sys.stdout.write(f"Username ({stored}): " if stored else "Username: ")
        sys.stdout.flush()
        user = sys.stdin.readline().strip() or stored
        if not user:
            raise CliError("Error: Non-null Username Required")
    if not password:
        password = getpass.getpass("Password: ")
        if not password:
            raise CliError("Error: Password Required")
    return user, password


def _store(session: Session, server: str, user: str, password: str, token: str) -> None:
    import base64
    import json

    from satsuma.cli.config import save

    config = session.config
    helper = (config.get("credHelpers") or {}).get(server) or config.get("credsStore")
    entry: dict[str, Any] = {}
    if helper:
        secret = {"ServerURL": server, "Username": "<token>" if token else user, "Secret": token or password}
        _ask_helper(str(helper), "store", json.dumps(secret))
    else:
        session.warn(
            f"\nWARNING! Your credentials are stored unencrypted in '{session.config_dir}/config.json'.\n"
            "Configure a credential helper to remove this warning.\n"
        )
        entry["auth"] = base64.b64encode(f"{user}:{'' if token else password}".encode()).decode()
        if token:
            entry["identitytoken"] = token
    config.setdefault("auths", {})[server] = entry
    save(session.config_dir, config)


def logout(session: Session, flags: Flags) -> None:
    """Forget credentials."""
    from satsuma.cli.config import save

    server = _server(flags.args[0] if flags.args else "")
    config = session.config
    shown = "https://index.docker.io/v1/" if server == HUB else server
    helper = (config.get("credHelpers") or {}).get(server) or config.get("credsStore")
    session.line(f"Removing login credentials for {shown}")
    if helper:
        _ask_helper(str(helper), "erase", server)
    if (config.get("auths") or {}).pop(server, None) is not None:
        save(session.config_dir, config)


# -- search -------------------------------------------------------------------------------------------------------

_SEARCH = Listing(
    "*registry.searchContext",
    "Name Description StarCount IsOfficial",
    {
        "Name": "NAME",
        "Description": "DESCRIPTION",
        "StarCount": "STARS",
        "IsOfficial": "OFFICIAL",
        "IsAutomated": "AUTOMATED",
    },
)


def search(session: Session, flags: Flags) -> None:
    """Let the engine search a registry."""
    from satsuma.cli.formatting import ellipsis

    query = {"term": flags.args[0], "limit": flags["limit"] or None, "filters": as_filters(flags["filter"])}
    answer = session.engine.request("GET", "/images/search", query, headers=auth_header(session, "docker.io"))
    found = answer.json() or []
    found.sort(key=lambda item: -int(item.get("star_count") or 0))
    rows = []
    for item in found:
        text = str(item.get("description") or "").replace("\n", " ").replace("\r", " ")
        rows.append(
            {
                "Name": item.get("name") or "",
                "Description": text if flags["no-trunc"] else ellipsis(text, 45),
                "StarCount": str(item.get("star_count") or 0),
                "IsOfficial": "[OK]" if item.get("is_official") else "",
                "IsAutomated": "",
            }
        )
    _SEARCH.write(flags["format"], rows)
