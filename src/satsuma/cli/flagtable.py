# ruff: noqa: E501
"""The flags of every command, one line each: what `--help` prints and what the parser accepts.

A line is `[!]letter|name|type[:rule]|help`; `!` hides the flag from the help text.  The type is the word that the
help shows, the rule (see `cli.values`) says how a value is checked.  A flag's default is the one that its help
names.  The command that runs parses its own lines only: the whole table costs one unmarshal.

Source: `docker COMMAND --help` of docker 28.2, so that both tools take the same words.
"""

from __future__ import annotations

_JSON = (
    r"Format output using a custom template:\n'json':             Print in JSON format\n"
    r"'TEMPLATE':         Print output using the given Go template.\n"
    r"Refer to https://docs.docker.com/go/formatting/ for more information about formatting output with templates"
)
_TABLE = (
    r"Format output using a custom template:\n"
    r"'table':            Print output in table format with column headers (default)\n"
    r"'table TEMPLATE':   Print output in table format using the given Go template\n"
    r"'json':             Print in JSON format\n"
    r"'TEMPLATE':         Print output using the given Go template.\n"
    r"Refer to https://docs.docker.com/go/formatting/ for more information about formatting output with templates"
)
ABBREVIATIONS = {"@json": _JSON, "@table": _TABLE}
"""Help texts that several commands share."""

_CREATE = r"""
|add-host|list:host|Add a custom host-to-IP mapping (host:ip)
|annotation|map|Add an annotation to the container (passed through to the OCI runtime) (default map[])
a|attach|list:attach|Attach to STDIN, STDOUT or STDERR
|blkio-weight|uint16|Block IO (relative weight), between 10 and 1000, or 0 to disable (default 0)
|blkio-weight-device|list:weight|Block IO weight (relative device weight) (default [])
|cap-add|list|Add Linux capabilities
|cap-drop|list|Drop Linux capabilities
|cgroup-parent|string|Optional parent cgroup for the container
|cgroupns|string|Cgroup namespace to use (host|private)\n'host':    Run the container in the Docker host's cgroup namespace\n'private': Run the container in its own private cgroup namespace\n'':        Use the cgroup namespace as configured by the\n           default-cgroupns-mode option on the daemon (default)
|cidfile|string|Write the container ID to the file
|cpu-count|int|CPU count (Windows only)
|cpu-percent|int|CPU percent (Windows only)
|cpu-period|int|Limit CPU CFS (Completely Fair Scheduler) period
|cpu-quota|int|Limit CPU CFS (Completely Fair Scheduler) quota
|cpu-rt-period|int|Limit CPU real-time period in microseconds
|cpu-rt-runtime|int|Limit CPU real-time runtime in microseconds
c|cpu-shares|int|CPU shares (relative weight)
|cpus|decimal|Number of CPUs
|cpuset-cpus|string|CPUs in which to allow execution (0-3, 0,1)
|cpuset-mems|string|MEMs in which to allow execution (0-3, 0,1)
|device|list|Add a host device to the container
|device-cgroup-rule|list:cgrouprule|Add a rule to the cgroup allowed devices list
|device-read-bps|list:bps|Limit read rate (bytes per second) from a device (default [])
|device-read-iops|list:iops|Limit read rate (IO per second) from a device (default [])
|device-write-bps|list:bps|Limit write rate (bytes per second) to a device (default [])
|device-write-iops|list:iops|Limit write rate (IO per second) to a device (default [])
|disable-content-trust|bool|Skip image verification (default true)
|dns|list:ip|Set custom DNS servers
|dns-option|list|Set DNS options
|dns-search|list:dnssearch|Set custom DNS search domains
|domainname|string|Container NIS domain name
|entrypoint|string|Overwrite the default ENTRYPOINT of the image
e|env|list:env|Set environment variables
|env-file|list|Read in a file of environment variables
|expose|list|Expose a port or a range of ports
|gpus|gpu-request|GPU devices to add to the container ('all' to pass all GPUs)
|group-add|list|Add additional groups to join
|health-cmd|string|Command to run to check health
|health-interval|duration|Time between running the check (ms|s|m|h) (default 0s)
|health-retries|int|Consecutive failures needed to report unhealthy
|health-start-interval|duration|Time between running the check during the start period (ms|s|m|h) (default 0s)
|health-start-period|duration|Start period for the container to initialize before starting health-retries countdown (ms|s|m|h) (default 0s)
|health-timeout|duration|Maximum time to allow one check to run (ms|s|m|h) (default 0s)
|help|bool|Print usage
h|hostname|string|Container host name
|init|bool|Run an init inside the container that forwards signals and reaps processes
i|interactive|bool|Keep STDIN open even if not attached
|io-maxbandwidth|bytes|Maximum IO bandwidth limit for the system drive (Windows only)
|io-maxiops|uint|Maximum IOps limit for the system drive (Windows only)
|ip|string|IPv4 address (e.g., 172.30.100.104)
|ip6|string|IPv6 address (e.g., 2001:db8::33)
|ipc|string|IPC mode to use
|isolation|string|Container isolation technology
|kernel-memory|bytes|Kernel memory limit
l|label|list:label|Set meta data on a container
|label-file|list|Read in a line delimited file of labels
|link|list:link|Add link to another container
|link-local-ip|list:ip|Container IPv4/IPv6 link-local addresses
|log-driver|string|Logging driver for the container
|log-opt|list|Log driver options
|mac-address|string|Container MAC address (e.g., 92:d0:c6:0a:29:33)
m|memory|bytes|Memory limit
|memory-reservation|bytes|Memory soft limit
|memory-swap|bytes:swap|Swap limit equal to memory plus swap: '-1' to enable unlimited swap
|memory-swappiness|int|Tune container memory swappiness (0 to 100) (default -1)
|mount|mount|Attach a filesystem mount to the container
|name|string|Assign a name to the container
|network|network|Connect a container to a network
|network-alias|list|Add network-scoped alias for the container
|no-healthcheck|bool|Disable any container-specified HEALTHCHECK
|oom-kill-disable|bool|Disable OOM Killer
|oom-score-adj|int|Tune host's OOM preferences (-1000 to 1000)
|pid|string|PID namespace to use
|pids-limit|int|Tune container pids limit (set -1 for unlimited)
|platform|string|Set platform if server is multi-platform capable
|privileged|bool|Give extended privileges to this container
p|publish|list|Publish a container's port(s) to the host
P|publish-all|bool|Publish all exposed ports to random ports
q|quiet|bool|Suppress the pull output
|read-only|bool|Mount the container's root filesystem as read only
|restart|string|Restart policy to apply when a container exits (default "no")
|rm|bool|Automatically remove the container and its associated anonymous volumes when it exits
|runtime|string|Runtime to use for this container
|security-opt|list|Security Options
|shm-size|bytes|Size of /dev/shm
|stop-signal|string|Signal to stop the container
|stop-timeout|int|Timeout (in seconds) to stop a container
|storage-opt|list|Storage driver options for the container
|sysctl|map:sysctl|Sysctl options (default map[])
|tmpfs|list|Mount a tmpfs directory
t|tty|bool|Allocate a pseudo-TTY
|ulimit|ulimit|Ulimit options (default [])
|use-api-socket|bool|Bind mount Docker API socket and required auth
u|user|string|Username or UID (format: <name|uid>[:<group|gid>])
|userns|string|User namespace to use
|uts|string|UTS namespace to use
v|volume|list|Bind mount a volume
|volume-driver|string|Optional volume driver for the container
|volumes-from|list|Mount volumes from the specified container(s)
w|workdir|string|Working directory inside the container
!|dns-opt|list|Set DNS options
!|net|network|Connect a container to a network
!|net-alias|list|Add network-scoped alias for the container
"""

_RUN = r"""
d|detach|bool|Run container in background and print container ID
|detach-keys|string|Override the key sequence for detaching a container
|explain|bool|Show the steps of the start and their times
|pull|string|Pull image before running ("always", "missing", "never") (default "missing")
|sig-proxy|bool|Proxy received signals to the process (default true)
"""

GLOBAL = r"""
|config|string|Location of client config files (default "~/.docker")
c|context|string|Name of the context to use to connect to the daemon (overrides DOCKER_HOST env var and default context set with "docker context use")
D|debug|bool|Enable debug mode
H|host|list|Daemon socket to connect to
l|log-level|string|Set the logging level ("debug", "info", "warn", "error", "fatal") (default "info")
|tls|bool|Use TLS; implied by --tlsverify
|tlscacert|string|Trust certs signed only by this CA (default "~/.docker/ca.pem")
|tlscert|string|Path to TLS certificate file (default "~/.docker/cert.pem")
|tlskey|string|Path to TLS key file (default "~/.docker/key.pem")
|tlsverify|bool|Use TLS and verify the remote
v|version|bool|Print version information and quit
"""
"""The flags before the command."""

FLAGS = {
    "container create": _CREATE
    + r"""|pull|string|Pull image before creating ("always", "missing", "never") (default "missing")
""",
    "container run": _CREATE + _RUN,
    "builder prune": r"""
a|all|bool|Remove all unused build cache, not just dangling ones
|filter|filter|Provide filter values (e.g. "until=24h")
f|force|bool|Do not prompt for confirmation
|keep-storage|bytes|Amount of disk space to keep for cache
""",
    "container attach": r"""
|detach-keys|string|Override the key sequence for detaching a container
|no-stdin|bool|Do not attach STDIN
|sig-proxy|bool|Proxy all received signals to the process (default true)
""",
    "container commit": r"""
a|author|string|Author (e.g., "John Hannibal Smith <hannibal@a-team.com>")
c|change|list|Apply Dockerfile instruction to the created image
m|message|string|Commit message
p|pause|bool|Pause container during commit (default true)
!|no-pause|bool|Disable pausing container during commit
""",
    "container cp": r"""
a|archive|bool|Archive mode (copy all uid/gid information)
L|follow-link|bool|Always follow symbol link in SRC_PATH
q|quiet|bool|Suppress progress output during copy. Progress output is automatically suppressed if no terminal is attached
""",
    "container exec": r"""
d|detach|bool|Detached mode: run command in the background
|detach-keys|string|Override the key sequence for detaching a container
e|env|list:env|Set environment variables
|env-file|list|Read in a file of environment variables
|explain|bool|Show the steps of the start and their times
i|interactive|bool|Keep STDIN open even if not attached
|privileged|bool|Give extended privileges to the command
t|tty|bool|Allocate a pseudo-TTY
u|user|string|Username or UID (format: "<name|uid>[:<group|gid>]")
w|workdir|string|Working directory inside the container
""",
    "container export": r"""
o|output|string|Write to a file, instead of STDOUT
""",
    "container inspect": r"""
f|format|string|@json
s|size|bool|Display total file sizes
""",
    "container kill": r"""
s|signal|string|Signal to send to the container
""",
    "container logs": r"""
|details|bool|Show extra details provided to logs
f|follow|bool|Follow log output
|since|string|Show logs since timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m" for 42 minutes)
n|tail|string|Number of lines to show from the end of the logs (default "all")
t|timestamps|bool|Show timestamps
|until|string|Show logs before a timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m" for 42 minutes)
""",
    "container ls": r"""
a|all|bool|Show all containers (default shows just running)
f|filter|filter|Filter output based on conditions provided
|format|string|@table
n|last|int|Show n last created containers (includes all states) (default -1)
l|latest|bool|Show the latest created container (includes all states)
|no-trunc|bool|Don't truncate output
q|quiet|bool|Only display container IDs
s|size|bool|Display total file sizes
""",
    "container prune": r"""
|filter|filter|Provide filter values (e.g. "until=<timestamp>")
f|force|bool|Do not prompt for confirmation
""",
    "container restart": r"""
s|signal|string|Signal to send to the container
t|timeout|int|Seconds to wait before killing the container
!|time|int|Seconds to wait before killing the container (deprecated: use --timeout)
""",
    "container rm": r"""
f|force|bool|Force the removal of a running container (uses SIGKILL)
l|link|bool|Remove the specified link
v|volumes|bool|Remove anonymous volumes associated with the container
""",
    "container start": r"""
a|attach|bool|Attach STDOUT/STDERR and forward signals
|checkpoint|string|Restore from this checkpoint
|checkpoint-dir|string|Use a custom checkpoint storage directory
|detach-keys|string|Override the key sequence for detaching a container
i|interactive|bool|Attach container's STDIN
""",
    "container stats": r"""
a|all|bool|Show all containers (default shows just running)
|format|string|@table
|no-stream|bool|Disable streaming stats and only pull the first result
|no-trunc|bool|Do not truncate output
""",
    "container stop": r"""
s|signal|string|Signal to send to the container
t|timeout|int|Seconds to wait before killing the container
!|time|int|Seconds to wait before killing the container (deprecated: use --timeout)
""",
    "container update": r"""
|blkio-weight|uint16|Block IO (relative weight), between 10 and 1000, or 0 to disable (default 0)
|cpu-period|int|Limit CPU CFS (Completely Fair Scheduler) period
|cpu-quota|int|Limit CPU CFS (Completely Fair Scheduler) quota
|cpu-rt-period|int|Limit the CPU real-time period in microseconds
|cpu-rt-runtime|int|Limit the CPU real-time runtime in microseconds
c|cpu-shares|int|CPU shares (relative weight)
|cpus|decimal|Number of CPUs
|cpuset-cpus|string|CPUs in which to allow execution (0-3, 0,1)
|cpuset-mems|string|MEMs in which to allow execution (0-3, 0,1)
m|memory|bytes|Memory limit
|memory-reservation|bytes|Memory soft limit
|memory-swap|bytes:swap|Swap limit equal to memory plus swap: -1 to enable unlimited swap
|pids-limit|int|Tune container pids limit (set -1 for unlimited)
|restart|string|Restart policy to apply when a container exits
!|kernel-memory|bytes|Kernel memory limit (deprecated)
""",
    "context create": r"""
|description|string|Description of the context
|docker|stringToString|set the docker endpoint (default [])
|from|string|create context from a named context
""",
    "context inspect": r"""
f|format|string|@json
""",
    "context ls": r"""
|format|string|@table
q|quiet|bool|Only show context names
""",
    "context rm": r"""
f|force|bool|Force the removal of a context in use
""",
    "context update": r"""
|description|string|Description of the context
|docker|stringToString|set the docker endpoint (default [])
""",
    "image build": r"""
|add-host|list:host|Add a custom host-to-IP mapping ("host:ip")
|build-arg|list:env|Set build-time variables
|cache-from|strings|Images to consider as cache sources
|cgroup-parent|string|Set the parent cgroup for the "RUN" instructions during build
|compress|bool|Compress the build context using gzip
|cpu-period|int|Limit the CPU CFS (Completely Fair Scheduler) period
|cpu-quota|int|Limit the CPU CFS (Completely Fair Scheduler) quota
c|cpu-shares|int|CPU shares (relative weight)
|cpuset-cpus|string|CPUs in which to allow execution (0-3, 0,1)
|cpuset-mems|string|MEMs in which to allow execution (0-3, 0,1)
|disable-content-trust|bool|Skip image verification (default true)
f|file|string|Name of the Dockerfile (Default is "PATH/Dockerfile")
|force-rm|bool|Always remove intermediate containers
|iidfile|string|Write the image ID to the file
|isolation|string|Container isolation technology
|label|list:label|Set metadata for an image
m|memory|bytes|Memory limit
|memory-swap|bytes:swap|Swap limit equal to memory plus swap: -1 to enable unlimited swap
|network|string|Set the networking mode for the RUN instructions during build (default "default")
|no-cache|bool|Do not use cache when building the image
|platform|string|Set platform if server is multi-platform capable
|pull|bool|Always attempt to pull a newer version of the image
q|quiet|bool|Suppress the build output and print image ID on success
|rm|bool|Remove intermediate containers after a successful build (default true)
|security-opt|strings|Security options
|shm-size|bytes|Size of "/dev/shm"
|squash|bool|Squash newly built layers into a single new layer
t|tag|list:tag|Name and optionally a tag in the "name:tag" format
|target|string|Set the target build stage to build.
|ulimit|ulimit|Ulimit options (default [])
""",
    "image history": r"""
|format|string|@table
H|human|bool|Print sizes and dates in human readable format (default true)
|no-trunc|bool|Don't truncate output
|platform|string|Show history for the given platform. Formatted as "os[/arch[/variant]]" (e.g., "linux/amd64")
q|quiet|bool|Only show image IDs
""",
    "image import": r"""
c|change|list|Apply Dockerfile instruction to the created image
m|message|string|Set commit message for imported image
|platform|string|Set platform if server is multi-platform capable
""",
    "image inspect": r"""
f|format|string|@json
|platform|string|Inspect a specific platform of the multi-platform image.\nIf the image or the server is not multi-platform capable, the command will error out if the platform does not match.\n'os[/arch[/variant]]': Explicit platform (eg. linux/amd64)
""",
    "image load": r"""
i|input|string|Read from tar archive file, instead of STDIN
|platform|string|Load only the given platform variant. Formatted as "os[/arch[/variant]]" (e.g., "linux/amd64")
q|quiet|bool|Suppress the load output
""",
    "image ls": r"""
a|all|bool|Show all images (default hides intermediate images)
|digests|bool|Show digests
f|filter|filter|Filter output based on conditions provided
|format|string|@table
|no-trunc|bool|Don't truncate output
q|quiet|bool|Only show image IDs
|tree|bool|List multi-platform images as a tree (EXPERIMENTAL)
""",
    "image prune": r"""
a|all|bool|Remove all unused images, not just dangling ones
|filter|filter|Provide filter values (e.g. "until=<timestamp>")
f|force|bool|Do not prompt for confirmation
""",
    "image pull": r"""
a|all-tags|bool|Download all tagged images in the repository
|disable-content-trust|bool|Skip image verification (default true)
|platform|string|Set platform if server is multi-platform capable
q|quiet|bool|Suppress verbose output
""",
    "image push": r"""
a|all-tags|bool|Push all tags of an image to the repository
|disable-content-trust|bool|Skip image signing (default true)
|platform|string|Push a platform-specific manifest as a single-platform image to the registry.\nImage index won't be pushed, meaning that other manifests, including attestations won't be preserved.\n'os[/arch[/variant]]': Explicit platform (eg. linux/amd64)
q|quiet|bool|Suppress verbose output
""",
    "image rm": r"""
f|force|bool|Force removal of the image
|no-prune|bool|Do not delete untagged parents
|platform|strings|Remove only the given platform variant. Formatted as "os[/arch[/variant]]" (e.g., "linux/amd64")
""",
    "image save": r"""
o|output|string|Write to a file, instead of STDOUT
|platform|string|Save only the given platform variant. Formatted as "os[/arch[/variant]]" (e.g., "linux/amd64")
""",
    "inspect": r"""
f|format|string|@json
s|size|bool|Display total file sizes if the type is container
|type|string|Only inspect objects of the given type
""",
    "login": r"""
p|password|string|Password or Personal Access Token (PAT)
|password-stdin|bool|Take the Password or Personal Access Token (PAT) from stdin
u|username|string|Username
""",
    "network connect": r"""
|alias|strings|Add network-scoped alias for the container
|driver-opt|strings|driver options for the network
|gw-priority|int|Highest gw-priority provides the default gateway. Accepts positive and negative values.
|ip|string|IPv4 address (e.g., "172.30.100.104")
|ip6|string|IPv6 address (e.g., "2001:db8::33")
|link|list:link|Add link to another container
|link-local-ip|strings|Add a link-local address for the container
""",
    "network create": r"""
|attachable|bool|Enable manual container attachment
|aux-address|map|Auxiliary IPv4 or IPv6 addresses used by Network driver (default map[])
|config-from|string|The network from which to copy the configuration
|config-only|bool|Create a configuration only network
d|driver|string|Driver to manage the Network (default "bridge")
|gateway|strings|IPv4 or IPv6 Gateway for the master subnet
|ingress|bool|Create swarm routing-mesh network
|internal|bool|Restrict external access to the network
|ip-range|strings|Allocate container ip from a sub-range
|ipam-driver|string|IP Address Management Driver (default "default")
|ipam-opt|map|Set IPAM driver specific options (default map[])
|ipv4|bool|Enable or disable IPv4 address assignment (default true)
|ipv6|bool|Enable or disable IPv6 address assignment
|label|list:label|Set metadata on a network
o|opt|map|Set driver specific options (default map[])
|scope|string|Control the network's scope
|subnet|strings|Subnet in CIDR format that represents a network segment
""",
    "network disconnect": r"""
f|force|bool|Force the container to disconnect from a network
""",
    "network inspect": r"""
f|format|string|@json
v|verbose|bool|Verbose output for diagnostics
""",
    "network ls": r"""
f|filter|filter|Provide filter values (e.g. "driver=bridge")
|format|string|@table
|no-trunc|bool|Do not truncate the output
q|quiet|bool|Only display network IDs
""",
    "network prune": r"""
|filter|filter|Provide filter values (e.g. "until=<timestamp>")
f|force|bool|Do not prompt for confirmation
""",
    "network rm": r"""
f|force|bool|Do not error if the network does not exist
""",
    "search": r"""
f|filter|filter|Filter output based on conditions provided
|format|string|Pretty-print search using a Go template
|limit|int|Max number of search results
|no-trunc|bool|Don't truncate output
""",
    "system check": r"""
|format|string|Print the findings in the given format ("json")
|repair|bool|Mend what can be mended
""",
    "container anatomy": r"""
|format|string|Print in the given format ("json")
""",
    "system df": r"""
|format|string|@table
v|verbose|bool|Show detailed information on space usage
""",
    "system events": r"""
f|filter|filter|Filter output based on conditions provided
|format|string|@json
|since|string|Show all events created since timestamp
|until|string|Stream events until this timestamp
""",
    "system info": r"""
f|format|string|@json
""",
    "system prune": r"""
a|all|bool|Remove all unused images not just dangling ones
|filter|filter|Provide filter values (e.g. "label=<key>=<value>")
f|force|bool|Do not prompt for confirmation
|volumes|bool|Prune anonymous volumes
""",
    "version": r"""
f|format|string|@json
""",
    "volume create": r"""
|availability|string|Cluster Volume availability ("active", "pause", "drain") (default "active")
d|driver|string|Specify volume driver name (default "local")
|group|string|Cluster Volume group (cluster volumes)
|label|list:label|Set metadata for a volume
|limit-bytes|bytes|Minimum size of the Cluster Volume in bytes
o|opt|map|Set driver specific options (default map[])
|required-bytes|bytes|Maximum size of the Cluster Volume in bytes
|scope|string|Cluster Volume access scope ("single", "multi") (default "single")
|secret|map|Cluster Volume secrets (default map[])
|sharing|string|Cluster Volume access sharing ("none", "readonly", "onewriter", "all") (default "none")
|topology-preferred|list|A topology that the Cluster Volume would be preferred in
|topology-required|list|A topology that the Cluster Volume must be accessible from
|type|string|Cluster Volume access type ("mount", "block") (default "block")
!|name|string|Specify volume name
""",
    "volume inspect": r"""
f|format|string|@json
""",
    "volume ls": r"""
|cluster|bool|Display only cluster volumes, and use cluster volume list formatting
f|filter|filter|Provide filter values (e.g. "dangling=true")
|format|string|@table
q|quiet|bool|Only display volume names
""",
    "volume prune": r"""
a|all|bool|Remove all unused volumes, not just anonymous ones
|filter|filter|Provide filter values (e.g. "label=<label>")
f|force|bool|Do not prompt for confirmation
""",
    "volume rm": r"""
f|force|bool|Force the removal of one or more volumes
""",
    "volume update": r"""
|availability|string|Cluster Volume availability ("active", "pause", "drain") (default "active")
""",
    "image bootstrap": r"""
|mirror|string|Package mirror to use instead of the host's configured one
q|quiet|bool|Only show the image ID
""",
}
"""Canonical command → its flags."""
