"""The tree of commands: usage, short help, where the code is, how many arguments it takes.

Read before anything else, so it is data only.  `COMMANDS` maps the canonical path (`container ls`) to a tuple:
usage after the path, short help, `module:function` below `satsuma.cli`, least and most arguments (None = any), and
"stop" where flags end at the first argument because the rest belongs to a program in the container.

Source: `docker COMMAND --help` of docker 28.2.
"""

from __future__ import annotations

COMMANDS: dict[str, tuple[str, str, str, int, int | None, str]] = {
    "container attach": (
        "[OPTIONS] CONTAINER",
        "Attach local standard input, output, and error streams to a running container",
        "attach:attach",
        1,
        1,
        "",
    ),
    "container commit": (
        "[OPTIONS] CONTAINER [REPOSITORY[:TAG]]",
        "Create a new image from a container's changes",
        "lifecycle:commit",
        1,
        2,
        "",
    ),
    "container cp": (
        "[OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-\n\t{program} cp [OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH",
        "Copy files/folders between a container and the local filesystem",
        "copy:copy",
        2,
        2,
        "",
    ),
    "container create": (
        "[OPTIONS] IMAGE [COMMAND] [ARG...]",
        "Create a new container",
        "run:create",
        1,
        None,
        "stop",
    ),
    "container diff": (
        "CONTAINER",
        "Inspect changes to files or directories on a container's filesystem",
        "lookup:diff",
        1,
        1,
        "",
    ),
    "container exec": (
        "[OPTIONS] CONTAINER COMMAND [ARG...]",
        "Execute a command in a running container",
        "execute:execute",
        2,
        None,
        "stop",
    ),
    "container export": (
        "[OPTIONS] CONTAINER",
        "Export a container's filesystem as a tar archive",
        "archive:export",
        1,
        1,
        "",
    ),
    "container inspect": (
        "[OPTIONS] CONTAINER [CONTAINER...]",
        "Display detailed information on one or more containers",
        "inspect:inspect_containers",
        1,
        None,
        "",
    ),
    "container kill": (
        "[OPTIONS] CONTAINER [CONTAINER...]",
        "Kill one or more running containers",
        "lifecycle:kill",
        1,
        None,
        "",
    ),
    "container logs": ("[OPTIONS] CONTAINER", "Fetch the logs of a container", "lookup:logs", 1, 1, ""),
    "container ls": ("[OPTIONS]", "List containers", "containers:ls", 0, 0, ""),
    "container pause": (
        "CONTAINER [CONTAINER...]",
        "Pause all processes within one or more containers",
        "lifecycle:pause",
        1,
        None,
        "",
    ),
    "container port": (
        "CONTAINER [PRIVATE_PORT[/PROTO]]",
        "List port mappings or a specific mapping for the container",
        "lookup:port",
        1,
        2,
        "",
    ),
    "container prune": ("[OPTIONS]", "Remove all stopped containers", "prune:containers", 0, 0, ""),
    "container rename": ("CONTAINER NEW_NAME", "Rename a container", "lifecycle:rename", 2, 2, ""),
    "container restart": (
        "[OPTIONS] CONTAINER [CONTAINER...]",
        "Restart one or more containers",
        "lifecycle:restart",
        1,
        None,
        "",
    ),
    "container rm": (
        "[OPTIONS] CONTAINER [CONTAINER...]",
        "Remove one or more containers",
        "lifecycle:rm",
        1,
        None,
        "",
    ),
    "container run": (
        "[OPTIONS] IMAGE [COMMAND] [ARG...]",
        "Create and run a new container from an image",
        "run:run",
        1,
        None,
        "stop",
    ),
    "container start": (
        "[OPTIONS] CONTAINER [CONTAINER...]",
        "Start one or more stopped containers",
        "attach:start",
        1,
        None,
        "",
    ),
    "container stats": (
        "[OPTIONS] [CONTAINER...]",
        "Display a live stream of container(s) resource usage statistics",
        "stats:stats",
        0,
        None,
        "",
    ),
    "container stop": (
        "[OPTIONS] CONTAINER [CONTAINER...]",
        "Stop one or more running containers",
        "lifecycle:stop",
        1,
        None,
        "",
    ),
    "container top": (
        "CONTAINER [ps OPTIONS]",
        "Display the running processes of a container",
        "lookup:top",
        1,
        None,
        "stop",
    ),
    "container unpause": (
        "CONTAINER [CONTAINER...]",
        "Unpause all processes within one or more containers",
        "lifecycle:unpause",
        1,
        None,
        "",
    ),
    "container update": (
        "[OPTIONS] CONTAINER [CONTAINER...]",
        "Update configuration of one or more containers",
        "lifecycle:update",
        1,
        None,
        "",
    ),
    "container wait": (
        "CONTAINER [CONTAINER...]",
        "Block until one or more containers stop, then print their exit codes",
        "lifecycle:wait",
        1,
        None,
        "",
    ),
    "container anatomy": (
        "[OPTIONS] CONTAINER",
        "Draw what a container is made of",
        "anatomy:anatomy",
        1,
        1,
        "",
    ),
    "image bootstrap": (
        "[OPTIONS] NAME[:TAG]",
        "Make a base image from the host's package mirror, without a registry",
        "images:bootstrap",
        1,
        1,
        "",
    ),
    "image build": ("[OPTIONS] PATH | URL | -", "Build an image from a Dockerfile", "build:build", 1, 1, ""),
    "image history": ("[OPTIONS] IMAGE", "Show the history of an image", "images:history", 1, 1, ""),
    "image import": (
        "[OPTIONS] file|URL|- [REPOSITORY[:TAG]]",
        "Import the contents from a tarball to create a filesystem image",
        "archive:import_",
        1,
        None,
        "",
    ),
    "image inspect": (
        "[OPTIONS] IMAGE [IMAGE...]",
        "Display detailed information on one or more images",
        "inspect:inspect_images",
        1,
        None,
        "",
    ),
    "image load": ("[OPTIONS]", "Load an image from a tar archive or STDIN", "archive:load", 0, 0, ""),
    "image ls": ("[OPTIONS] [REPOSITORY[:TAG]]", "List images", "images:ls", 0, 1, ""),
    "image prune": ("[OPTIONS]", "Remove unused images", "prune:images", 0, 0, ""),
    "image pull": (
        "[OPTIONS] NAME[:TAG|@DIGEST]",
        "Download an image from a registry",
        "distribution:pull",
        1,
        1,
        "",
    ),
    "image push": ("[OPTIONS] NAME[:TAG]", "Upload an image to a registry", "distribution:push", 1, 1, ""),
    "image rm": ("[OPTIONS] IMAGE [IMAGE...]", "Remove one or more images", "images:rm", 1, None, ""),
    "image save": (
        "[OPTIONS] IMAGE [IMAGE...]",
        "Save one or more images to a tar archive (streamed to STDOUT by default)",
        "archive:save",
        1,
        None,
        "",
    ),
    "image tag": (
        "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]",
        "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE",
        "images:tag",
        2,
        2,
        "",
    ),
    "network connect": (
        "[OPTIONS] NETWORK CONTAINER",
        "Connect a container to a network",
        "networks:connect",
        2,
        2,
        "",
    ),
    "network create": ("[OPTIONS] NETWORK", "Create a network", "networks:create", 1, 1, ""),
    "network disconnect": (
        "[OPTIONS] NETWORK CONTAINER",
        "Disconnect a container from a network",
        "networks:disconnect",
        2,
        2,
        "",
    ),
    "network inspect": (
        "[OPTIONS] NETWORK [NETWORK...]",
        "Display detailed information on one or more networks",
        "inspect:inspect_networks",
        1,
        None,
        "",
    ),
    "network ls": ("[OPTIONS]", "List networks", "networks:ls", 0, 0, ""),
    "network prune": ("[OPTIONS]", "Remove all unused networks", "prune:networks", 0, 0, ""),
    "network rm": ("NETWORK [NETWORK...]", "Remove one or more networks", "networks:rm", 1, None, ""),
    "volume create": ("[OPTIONS] [VOLUME]", "Create a volume", "volumes:create", 0, 1, ""),
    "volume inspect": (
        "[OPTIONS] VOLUME [VOLUME...]",
        "Display detailed information on one or more volumes",
        "inspect:inspect_volumes",
        1,
        None,
        "",
    ),
    "volume ls": ("[OPTIONS]", "List volumes", "volumes:ls", 0, 0, ""),
    "volume prune": ("[OPTIONS]", "Remove unused local volumes", "prune:volumes", 0, 0, ""),
    "volume rm": ("[OPTIONS] VOLUME [VOLUME...]", "Remove one or more volumes", "volumes:rm", 1, None, ""),
    "volume update": (
        "[OPTIONS] [VOLUME]",
        "Update a volume (cluster volumes only)",
        "volumes:update",
        1,
        1,
        "",
    ),
    "system check": (
        "[OPTIONS]",
        "Check, and with --repair mend, what the engine keeps on disk",
        "system:check",
        0,
        0,
        "",
    ),
    "system df": ("[OPTIONS]", "Show disk usage", "diskusage:df", 0, 0, ""),
    "system dial-stdio": (
        "",
        "Proxy the stdio stream to the daemon connection. Should not be invoked manually.",
        "system:dial_stdio",
        0,
        0,
        "",
    ),
    "system events": ("[OPTIONS]", "Get real time events from the server", "system:events", 0, 0, ""),
    "system info": ("[OPTIONS]", "Display system-wide information", "information:info", 0, 0, ""),
    "system prune": ("[OPTIONS]", "Remove unused data", "prune:system", 0, 0, ""),
    "builder prune": ("[OPTIONS]", "Remove build cache", "prune:builder", 0, 0, ""),
    "context create": ("[OPTIONS] CONTEXT", "Create a context", "contexts:create", 1, 1, ""),
    "context export": (
        "[OPTIONS] CONTEXT [FILE|-]",
        "Export a context to a tar archive FILE or a tar stream on STDOUT.",
        "contexts:export",
        1,
        2,
        "",
    ),
    "context import": (
        "CONTEXT FILE|-",
        "Import a context from a tar or zip file",
        "contexts:import_",
        2,
        2,
        "",
    ),
    "context inspect": (
        "[OPTIONS] [CONTEXT] [CONTEXT...]",
        "Display detailed information on one or more contexts",
        "contexts:inspect",
        0,
        None,
        "",
    ),
    "context ls": ("[OPTIONS]", "List contexts", "contexts:ls", 0, 0, ""),
    "context rm": ("CONTEXT [CONTEXT...]", "Remove one or more contexts", "contexts:rm", 1, None, ""),
    "context show": ("", "Print the name of the current context", "contexts:show", 0, 0, ""),
    "context update": ("[OPTIONS] CONTEXT", "Update a context", "contexts:update", 1, 1, ""),
    "context use": ("CONTEXT", "Set the current docker context", "contexts:use", 1, 1, ""),
    "inspect": (
        "[OPTIONS] NAME|ID [NAME|ID...]",
        "Return low-level information on objects",
        "inspect:inspect",
        1,
        None,
        "",
    ),
    "login": ("[OPTIONS] [SERVER]", "Authenticate to a registry", "distribution:login", 0, 1, ""),
    "logout": ("[SERVER]", "Log out from a registry", "distribution:logout", 0, 1, ""),
    "search": ("[OPTIONS] TERM", "Search Docker Hub for images", "distribution:search", 1, 1, ""),
    "version": ("[OPTIONS]", "Show the version information", "information:version", 0, 0, ""),
    "setns": (
        "/proc/PID/ns/TYPE[,FILE...] COMMAND [ARG...]",
        "Run a command of the host inside namespaces that already exist",
        "setns:setns",
        2,
        None,
        "stop",
    ),
    "completion": (
        "bash|zsh|fish",
        "Print a completion script for a shell",
        "completion:completion",
        1,
        1,
        "",
    ),
    "help": ("[command]", "Help about the command", "", 0, None, ""),
}

LONG: dict[str, str] = {
    "container cp": """Copy files/folders between a container and the local filesystem

Use '-' as the source to read a tar archive from stdin
and extract it to a directory destination in a container.
Use '-' as the destination to stream a tar archive of a
container source to stdout.""",
    "container anatomy": """Draw what a container is made of

Its read-only layers with their sizes and the images that share them, the
init layer, the read-write layer, volumes and bind mounts, every namespace
with its inode and who else is in it, cgroup limits with what is used now,
capabilities and seccomp, addresses and ports, and the tree of processes
with the pids of both sides.""",
    "image bootstrap": """Make a base image from the host's package mirror, without a registry

NAME is one of
  busybox                   the static busybox of Debian's package
  debian[:SUITE][-slim]     a minimal Debian made by debootstrap

This needs root and the mirrors of the host's package manager only.""",
    "setns": """Run a command of the host inside namespaces that already exist

Each FILE is a namespace file such as /proc/4711/ns/net; several are joined
in the order given, separated by commas. The command is the host's: only the
namespaces change, as setns(2) does it.

  {program} setns /proc/$({program} inspect -f '{{{{.State.Pid}}}}' web)/ns/net ip address""",
    "login": "Authenticate to a registry.\nDefaults to Docker Hub if no server is specified.",
    "logout": "Log out from a registry.\nIf no server is specified, the default is defined by the daemon.",
    "volume rm": "Remove one or more volumes. You cannot remove a volume that is in use by a container.",
    "completion": """Print a completion script for a shell

  bash:  source <({program} completion bash)
  zsh:   {program} completion zsh > "${{fpath[1]}}/_{program}"
  fish:  {program} completion fish > ~/.config/fish/completions/{program}.fish""",
}
"""Long help, where there is more to say than the short one."""

_ENDPOINT_HELP = """

Docker endpoint config:

NAME                DESCRIPTION
from                Copy named context's Docker endpoint configuration
host                Docker endpoint on which to connect
ca                  Trust certs signed only by this CA
cert                Path to TLS certificate file
key                 Path to TLS key file
skip-tls-verify     Skip TLS certificate validation

Example:

$ {program} context %s my-context --description "some description" --docker "host=tcp://myserver:2376,ca=~/ca-file,cert=~/cert-file,key=~/key-file\""""
LONG["context create"] = "Create a context" + _ENDPOINT_HELP % "create"
LONG["context update"] = "Update a context" + _ENDPOINT_HELP % "update"

GROUPS: dict[str, str] = {
    "builder": "Manage builds",
    "container": "Manage containers",
    "context": "Manage contexts",
    "image": "Manage images",
    "network": "Manage networks",
    "system": "Manage the engine",
    "volume": "Manage volumes",
}
"""Groups of commands."""

HIDDEN = frozenset({"system dial-stdio", "help"})

SHORTCUTS: dict[str, str] = {
    **{
        word: "container " + word
        for word in (
            "attach commit cp create diff exec export kill logs pause port rename restart rm run start stats stop top"
            " unpause update wait anatomy"
        ).split()
    },
    **{word: "image " + word for word in "build history import load pull push save tag".split()},
    "ps": "container ls",
    "images": "image ls",
    "rmi": "image rm",
    "events": "system events",
    "info": "system info",
}
"""Words at the top that stand for a command of a group."""

ALIASES: dict[str, str] = {
    "container list": "container ls",
    "container ps": "container ls",
    "container remove": "container rm",
    "image list": "image ls",
    "image remove": "image rm",
    "network list": "network ls",
    "network remove": "network rm",
    "volume list": "volume ls",
    "volume remove": "volume rm",
    "context list": "context ls",
    "context remove": "context rm",
    "builder build": "image build",
}
"""Other words for a command inside a group."""

COMMON = (
    "run",
    "exec",
    "ps",
    "build",
    "pull",
    "push",
    "images",
    "login",
    "logout",
    "search",
    "version",
    "info",
)
"""What the help text of the program lists first, in this order."""


def resolve(words: list[str]) -> tuple[str, str, int]:
    """Find the command that *words* begin with.

    Returns: canonical path ("" if there is none), the path as the help text shows it, and how many words it took.
    A group alone gives its own name as the path.
    """
    first = words[0]
    if first in SHORTCUTS:
        return SHORTCUTS[first], first, 1
    if first in GROUPS:
        if len(words) == 1:
            return first, first, 1
        path = f"{first} {words[1]}"
        path = ALIASES.get(path, path)
        if path in COMMANDS:
            return path, path if path.startswith(first) else f"{first} {words[1]}", 2
        return "", first, 1
    if first in COMMANDS:
        return first, first, 1
    return "", "", 0


def alias_line(path: str, program: str) -> str:
    """Return what stands below "Aliases:" in the help of *path*; empty without aliases."""
    group = [path, *(alias for alias, target in ALIASES.items() if target == path)]
    top = [word for word, target in SHORTCUTS.items() if target == path]
    if path == "image build":  # docker lists the group of the other builder last
        group, top = ["image build"], ["build", "builder build"]
    names = group + top
    return ", ".join(f"{program} {name}" for name in names) if len(names) > 1 else ""


def subcommands(group: str) -> list[tuple[str, str]]:
    """List (word, short help) of a group, in alphabetical order."""
    prefix = group + " "
    found = {path: entry[1] for path, entry in COMMANDS.items() if path not in HIDDEN}
    if group == "builder":  # the one group that has another group's command
        found["builder build"] = COMMANDS["image build"][1]
    return sorted((path[len(prefix) :], text) for path, text in found.items() if path.startswith(prefix))
