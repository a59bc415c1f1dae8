"""`context …`: named engines, in the files that docker's client keeps.

    ~/.docker/contexts/meta/<sha256 of the name>/meta.json
    ~/.docker/contexts/tls/<sha256 of the name>/docker/{ca,cert,key}.pem

Source: docker documentation "Docker contexts"; measured on docker 28.2.
"""

from __future__ import annotations

import hashlib
import os

from satsuma.cli.endpoint import DEFAULT_HOST, Endpoint, context_name, normalise
from satsuma.cli.errors import CliError
from satsuma.cli.formatting import Listing
from satsuma.wire.goquote import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from satsuma.cli.flags import Flags
    from satsuma.cli.session import Session

_DEFAULT_TEXT = "Current DOCKER_HOST based configuration"
_TLS_FILES = {"ca": "ca.pem", "cert": "cert.pem", "key": "key.pem"}

LISTING = Listing(
    "*formatter.clientContextContext",
    "Name Description DockerEndpoint Error",
    {"Name": "NAME", "Description": "DESCRIPTION", "DockerEndpoint": "DOCKER ENDPOINT", "Error": "ERROR"},
)


def _key(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def _meta_path(directory: str, name: str) -> str:
    return os.path.join(directory, "contexts", "meta", _key(name), "meta.json")


def _tls_path(directory: str, name: str) -> str:
    return os.path.join(directory, "contexts", "tls", _key(name))


def read(directory: str, name: str) -> dict[str, Any]:
    """Return the metadata of a context.

    Raises:
        CliError: there is no such context.
    """
    import json

    path = _meta_path(directory, name)
    try:
        with open(path, "rb") as file:
            meta = json.load(file)
    except OSError as error:
        raise CliError(
            f"context {quote(name)}: context not found: open {path}: {(error.strerror or '').lower()}"
        ) from None
    except ValueError as error:
        raise CliError(f"context {quote(name)}: {path}: {error}") from None
    return meta if isinstance(meta, dict) else {}


def endpoint_of(directory: str, name: str) -> Endpoint:
    """Return the engine of a context.

    Raises:
        CliError: there is no such context, or it names no engine.
    """
    docker = (read(directory, name).get("Endpoints") or {}).get("docker")
    if docker is None:
        raise CliError(
            f"unable to resolve docker endpoint: docker endpoint not found in context {quote(name)}"
        )
    endpoint = Endpoint(normalise(docker.get("Host") or ""))
    tls = os.path.join(_tls_path(directory, name), "docker")
    for attribute, file in _TLS_FILES.items():
        path = os.path.join(tls, file)
        if os.path.exists(path):
            setattr(endpoint, attribute, path)
            endpoint.tls = True
    endpoint.verify = endpoint.tls and not docker.get("SkipTLSVerify")
    return endpoint


def _all(directory: str) -> list[dict[str, Any]]:
    import json

    base = os.path.join(directory, "contexts", "meta")
    found = []
    for entry in os.listdir(base) if os.path.isdir(base) else []:
        try:
            with open(os.path.join(base, entry, "meta.json"), "rb") as file:
                found.append(json.load(file))
        except (OSError, ValueError):
            continue
    return [meta for meta in found if isinstance(meta, dict) and meta.get("Name")]


def names(directory: str) -> list[str]:
    """Return the names of all contexts."""
    return ["default", *sorted(str(meta["Name"]) for meta in _all(directory))]


def _default_meta() -> dict[str, Any]:
    host = normalise(os.environ.get("DOCKER_HOST", "")) if os.environ.get("DOCKER_HOST") else DEFAULT_HOST
    return {
        "Name": "default",
        "Metadata": {},
        "Endpoints": {"docker": {"Host": host, "SkipTLSVerify": False}},
    }


def _host(meta: dict[str, Any]) -> str:
    return str(((meta.get("Endpoints") or {}).get("docker") or {}).get("Host") or "")


def ls(session: Session, flags: Flags) -> None:
    """List contexts."""
    from satsuma.cli.lookup import natural_key

    current = context_name(session)
    metas = [_default_meta(), *_all(session.config_dir)]
    rows = []
    for meta in metas:
        name = meta["Name"]
        text = _DEFAULT_TEXT if name == "default" else (meta.get("Metadata") or {}).get("Description") or ""
        rows.append(_row(name, text, _host(meta), "", is_current=name == current))
    if current not in {meta["Name"] for meta in metas}:
        try:
            read(session.config_dir, current)
            error = ""
        except CliError as failure:
            error = str(failure)
        rows.append(_row(current, "", "", error, is_current=True))
    rows.sort(key=lambda row: natural_key(str(row["Name"])))
    source = flags["format"]
    if source in ("", "table") and not flags["quiet"]:
        source = "table {{.Name}}{{if .Current}} *{{end}}\t{{.Description}}\t{{.DockerEndpoint}}\t{{.Error}}"
    LISTING.write("" if flags["quiet"] else source, rows, quiet="Name" if flags["quiet"] else "")
    if os.environ.get("DOCKER_HOST"):
        session.warn(
            "Warning: DOCKER_HOST environment variable overrides the active context. To use a context, either set "
            "the global --context flag, or unset DOCKER_HOST environment variable."
        )


def _row(name: str, description: str, host: str, error: str, *, is_current: bool) -> dict[str, Any]:
    from satsuma.cli.formatting import ellipsis

    return {
        "Current": is_current,
        "Name": name,
        "Description": description,
        "DockerEndpoint": host,
        "Error": ellipsis(error, 45),
    }


def show(session: Session, _flags: Flags) -> None:
    """Print the name of the context in use."""
    session.line(context_name(session))


def use(session: Session, flags: Flags) -> None:
    """Make a context the current one."""
    from satsuma.cli.config import save

    name = flags.args[0]
    if name != "default":
        read(session.config_dir, name)
    config = session.config
    if name == "default":
        config.pop("currentContext", None)
    else:
        config["currentContext"] = name
    save(session.config_dir, config)
    session.line(name)
    session.warn(f"Current context is now {quote(name)}")
    if name != "default" and os.environ.get("DOCKER_HOST"):
        session.warn(
            "Warning: DOCKER_HOST environment variable overrides the active context. To use "
            f"{quote(name)}, either set the global --context flag, or unset DOCKER_HOST environment variable."
        )


def inspect(session: Session, flags: Flags) -> int:
    """Show contexts."""
    import json

    from satsuma.cli.inspect import show as show_documents
    from satsuma.wire.gotemplate.functions import escape_json

    names = flags.args or [context_name(session)]

    def load(name: str) -> bytes:
        meta = _default_meta() if name == "default" else read(session.config_dir, name)
        tls = _tls_path(session.config_dir, name)
        files = (
            sorted(os.listdir(os.path.join(tls, "docker")))
            if os.path.isdir(os.path.join(tls, "docker"))
            else []
        )
        stored = name != "default"
        document = {
            "Name": name,
            "Metadata": meta.get("Metadata") or {},
            "Endpoints": meta.get("Endpoints") or {},
            "TLSMaterial": {"docker": files} if files else {},
            "Storage": {
                "MetadataPath": os.path.dirname(_meta_path(session.config_dir, name))
                if stored
                else "<IN MEMORY>",
                "TLSPath": tls if stored else "<IN MEMORY>",
            },
        }
        return escape_json(json.dumps(document, ensure_ascii=False)).encode()

    return show_documents(session, names, flags["format"], load)


def _check_name(name: str) -> None:
    if not name:
        raise CliError("context name cannot be empty")
    if name == "default":
        raise CliError('"default" is a reserved context name')
    plain = name.replace(".", "a").replace("_", "a").replace("+", "a").replace("-", "a")
    if len(name) < 2 or not plain.isalnum() or not plain.isascii() or not name[0].isalnum():
        raise CliError(
            f"context name {quote(name)} is invalid, names are validated against regexp "
            '"^[a-zA-Z0-9][a-zA-Z0-9_.+-]+$"'
        )


_KEYS = ("from", "host", "ca", "cert", "key", "skip-tls-verify")


def _write(
    session: Session, name: str, description: str, options: dict[str, str], *, keep: dict[str, Any]
) -> None:
    """Write the files of a context from the `--docker` options."""
    import json
    import shutil

    wrong = [key for key in options if key not in _KEYS]
    if wrong:
        raise CliError(
            f"unable to create docker endpoint config: unrecognized config key: {', '.join(sorted(wrong))}"
        )
    directory = session.config_dir
    endpoint: dict[str, Any] = dict((keep.get("Endpoints") or {}).get("docker") or {})
    if "from" in options:
        source = options["from"]
        meta = _default_meta() if source == "default" else read(directory, source)
        endpoint = dict((meta.get("Endpoints") or {}).get("docker") or {})
        old = os.path.join(_tls_path(directory, source), "docker")
        if os.path.isdir(old):
            shutil.copytree(old, os.path.join(_tls_path(directory, name), "docker"), dirs_exist_ok=True)
    elif options:
        skip = options.get("skip-tls-verify", "").lower() in ("1", "t", "true")
        endpoint = {"Host": normalise(options.get("host", "")), "SkipTLSVerify": skip}
        _copy_tls(os.path.join(_tls_path(directory, name), "docker"), options)
    endpoint.setdefault("SkipTLSVerify", False)
    metadata = dict(keep.get("Metadata") or {})
    if description:
        metadata["Description"] = description
    meta = {"Name": name, "Metadata": metadata, "Endpoints": {"docker": endpoint}}
    path = _meta_path(directory, name)
    os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
    with open(f"{path}.new", "w", encoding="utf-8") as file:
        json.dump(meta, file, separators=(",", ":"))
    os.replace(f"{path}.new", path)


def _copy_tls(target: str, options: dict[str, str]) -> None:
    import shutil

    for key, file in _TLS_FILES.items():
        if options.get(key):
            os.makedirs(target, 0o700, exist_ok=True)
            try:
                shutil.copyfile(os.path.expanduser(options[key]), os.path.join(target, file))
            except OSError as error:
                raise CliError(
                    f"unable to create docker endpoint config: open {options[key]}: {(error.strerror or '').lower()}"
                ) from None


def create(session: Session, flags: Flags) -> None:
    """Create a context."""
    name = flags.args[0]
    _check_name(name)
    if os.path.exists(_meta_path(session.config_dir, name)):
        raise CliError(f"context {quote(name)} already exists")
    options = flags["docker"]
    if flags["from"] and options:
        raise CliError("cannot use --docker flag when --from is set")
    if not flags["from"] and not options:
        options = {"from": context_name(session)}
    elif flags["from"]:
        options = {"from": flags["from"]}
    _write(session, name, flags["description"], options, keep={})
    session.line(name)
    session.warn(f"Successfully created context {quote(name)}")


def update(session: Session, flags: Flags) -> None:
    """Change a context."""
    name = flags.args[0]
    _check_name(name)
    _write(session, name, flags["description"], flags["docker"], keep=read(session.config_dir, name))
    session.line(name)
    session.warn(f"Successfully updated context {quote(name)}")


def rm(session: Session, flags: Flags) -> None:
    """Remove contexts."""
    import shutil

    errors = []
    for name in flags.args:
        try:
            _remove(session, name, force=flags["force"])
        except CliError as error:
            errors.append(str(error))
            continue
        shutil.rmtree(os.path.dirname(_meta_path(session.config_dir, name)), ignore_errors=True)
        shutil.rmtree(_tls_path(session.config_dir, name), ignore_errors=True)
        session.line(name)
    if errors:
        raise CliError("\n".join(errors))


def _remove(session: Session, name: str, *, force: bool) -> None:
    """Check that a context may go, and step out of it if it is the current one."""
    if name == "default":
        raise CliError('context "default" cannot be removed')
    if not os.path.exists(_meta_path(session.config_dir, name)):
        if force:
            return
        raise CliError(f"context {quote(name)} does not exist")
    if session.config.get("currentContext") == name:
        if not force:
            raise CliError(f"context {quote(name)} is in use, set -f flag to force remove")
        from satsuma.cli.config import save

        session.config.pop("currentContext", None)
        save(session.config_dir, session.config)


# -- export and import --------------------------------------------------------------------------------------------


def export(session: Session, flags: Flags) -> None:
    """Write a context as a tar."""
    import io
    import json
    import sys
    import tarfile

    name = flags.args[0]
    if name == "default":
        raise CliError('context "default" cannot be exported')
    target = flags.args[1] if len(flags.args) > 1 else f"{name}.dockercontext"
    meta = json.dumps(read(session.config_dir, name), separators=(",", ":")).encode()
    if target == "-":
        if sys.stdout.isatty():
            raise CliError("cowardly refusing to export to a terminal, specify a file path")
    elif os.path.exists(target):
        raise CliError(f"cannot write to {target}: file exists")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        _add(tar, "meta.json", meta, 0o644)
        base = _tls_path(session.config_dir, name)
        for folder, _, files in os.walk(base):
            for file in sorted(files):
                path = os.path.join(folder, file)
                with open(path, "rb") as source:
                    _add(tar, os.path.join("tls", os.path.relpath(path, base)), source.read(), 0o600)
    if target == "-":
        sys.stdout.buffer.write(buffer.getvalue())
        return
    with open(target, "xb") as out:
        out.write(buffer.getvalue())
    session.warn(f"Written file {quote(target)}")


def _add(tar: Any, name: str, data: bytes, mode: int) -> None:
    import io
    import tarfile

    member = tarfile.TarInfo(name)
    member.size, member.mode = len(data), mode
    tar.addfile(member, io.BytesIO(data))


def import_(session: Session, flags: Flags) -> None:
    """Read a context from a tar or zip that `export` wrote."""
    import io
    import json
    import sys

    name, source = flags.args
    _check_name(name)
    if os.path.exists(_meta_path(session.config_dir, name)):
        raise CliError(f"context {quote(name)} already exists")
    try:
        raw = sys.stdin.buffer.read() if source == "-" else open(source, "rb").read()
    except OSError as error:
        raise CliError(f"open {source}: {(error.strerror or '').lower()}") from None
    members = _members(io.BytesIO(raw))
    if "meta.json" not in members:
        raise CliError("invalid context: no metadata found")
    meta = json.loads(members["meta.json"])
    endpoint = dict((meta.get("Endpoints") or {}).get("docker") or {})
    _write(
        session,
        name,
        (meta.get("Metadata") or {}).get("Description") or "",
        {},
        keep={"Endpoints": {"docker": endpoint}},
    )
    for path, data in members.items():
        parts = path.split("/")
        # Names come from a file: only the three that a context has are written, and only in their place.
        if len(parts) == 3 and parts[:2] == ["tls", "docker"] and parts[2] in _TLS_FILES.values():
            folder = os.path.join(_tls_path(session.config_dir, name), "docker")
            os.makedirs(folder, 0o700, exist_ok=True)
            with open(os.path.join(folder, parts[2]), "wb") as out:
                out.write(data)
    session.line(name)
    session.warn(f"Successfully imported context {quote(name)}")


def _members(file: Any) -> dict[str, bytes]:
    import tarfile
    import zipfile

    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            return {entry.filename: archive.read(entry) for entry in archive.infolist() if not entry.is_dir()}
    file.seek(0)
    try:
        with tarfile.open(fileobj=file) as tar:
            found = {}
            for member in tar:
                content = tar.extractfile(member) if member.isfile() else None
                if content is not None:
                    found[member.name] = content.read()
            return found
    except tarfile.TarError as error:
        raise CliError(f"invalid context: {error}") from None
