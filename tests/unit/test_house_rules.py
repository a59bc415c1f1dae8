"""Rules for code that runs beside hostile containers, checked on the syntax trees of the sources.

Each test states one rule and the reason.  Exceptions are listed by module and function with their own reason, so
that a new one is a decision and not an accident.  An entry that no longer excuses anything fails as well.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import satsuma

ROOT = Path(satsuma.__file__).parent
REPOSITORY = Path(__file__).parents[2]

# Between clone and execve.  What they import from `linux` is not among them as a whole: `Root`, `mount`, `pty`, `ns`,
# `caps`, `prctl`, `passwd` and the part of `seccomp` that loads.
STAGE = ("runtime/stage.py", "runtime/birth.py", "runtime/finish.py", "runtime/rootfs.py", "runtime/hooks.py")
STAGE_LIBRARY = tuple(
    f"linux/{name}.py" for name in ("root", "mount", "pty", "ns", "caps", "prctl", "passwd", "syscalls")
)
SMALL_PROGRAMS = ("linux", "runtime", "monitor")
DAEMON_ONLY = frozenset(
    (
        "monitor/client.py",
        "monitor/burial.py",
        "monitor/specs.py",
        "monitor/channel.py",
        "monitor/logfollow.py",
    )
)

Use = tuple[str, str]
"""(module, function in which it stands; "" is the module itself)"""


@cache
def modules() -> tuple[str, ...]:
    return tuple(sorted(str(path.relative_to(ROOT)) for path in ROOT.rglob("*.py")))


def in_rooms(*rooms: str) -> list[str]:
    return [module for module in modules() if module.split("/")[0] in rooms]


def dotted(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


@cache
def nodes(module: str) -> tuple[tuple[str, ast.AST], ...]:
    """Return (function, node) for all that runs; types for checkers are left out."""

    def visit(node: ast.AST, function: str) -> Iterator[tuple[str, ast.AST]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and dotted(child.test).endswith("TYPE_CHECKING"):
                continue
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                yield function, child
                yield from visit(child, f"{function}.{child.name}".lstrip("."))
            elif isinstance(child, ast.ClassDef):
                yield from visit(child, f"{function}.{child.name}".lstrip("."))
            else:
                yield function, child
                yield from visit(child, function)

    return tuple(visit(ast.parse((ROOT / module).read_text(), module), ""))


def imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [f"{node.module}.{alias.name}" for alias in node.names] + [node.module or ""]
    return []


def uses(names: set[str], where: list[str] | tuple[str, ...]) -> set[tuple[str, str, str]]:
    """Return (module, function, name) of each mention of a dotted name or import of a module in *where*."""
    found = set()
    for module in where:
        for function, node in nodes(module):
            name = dotted(node)
            if name in names:
                found.add((module, function, name))
            for target in imported(node):
                if target.split(".")[0] in names or target in names:
                    found.add((module, function, target.split(".")[0]))
    return found


def check(found: set[tuple[str, str, str]], allowed: dict[Use, str]) -> None:
    places = {(module, function) for module, function, _ in found}
    assert not sorted(item for item in found if item[:2] not in allowed)
    assert not sorted(set(allowed) - places), "exceptions that excuse nothing"


def test_the_stage_and_its_library_import_nothing_late():
    """P-03, P-04: an import after the root has changed would run files of the container (CVE-2019-14271)."""
    for module in (*STAGE, *STAGE_LIBRARY):
        late = [(f, imported(node)) for f, node in nodes(module) if f and imported(node)]
        assert not late, module


def test_the_stage_names_nothing_that_reads_the_host_by_name():
    """P-04: NSS, locale, codecs and helpers of the library that open files or import when they are called."""
    names = {
        "open",
        "print",
        "pwd",
        "grp",
        "locale",
        "subprocess",
        "logging",
        "tempfile",
        "shutil",
        "pathlib",
        "importlib",
        "traceback",
        "glob",
        "time.strptime",
        "socket.getaddrinfo",
        "os.path.expanduser",
        "os.execvp",
        "os.execvpe",
        "os.popen",
        "os.path.exists",
    }
    check(
        uses(names, (*STAGE, *STAGE_LIBRARY)),
        {
            ("linux/caps.py", "last_cap"): "the daemon asks, never the stage",
            ("linux/mount.py", "_redirect_options"): "at import, before any namespace",
            ("runtime/rootfs.py", "dev_links"): "asks the host's procfs, before pivot_root",
            ("runtime/stage.py", "check_maps"): "the host's procfs, before pivot_root",
        },
    )


def test_the_stage_decodes_only_utf8():
    """P-03: any other codec is a module that is loaded when it is first used."""
    for module in (*STAGE, *STAGE_LIBRARY):
        for _, node in nodes(module):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            if (
                node.func.attr in ("encode", "decode")
                and node.args
                and isinstance(node.args[0], ast.Constant)
            ):
                assert node.args[0].value in ("utf-8",), (module, node.lineno)


def test_no_program_of_the_engine_loads_code_from_data():
    """P-07."""
    check(
        uses(
            {"pickle", "marshal", "shelve", "yaml", "eval", "exec", "os.system", "os.popen", "runpy"},
            modules(),
        ),
        {("linux/dbus.py", "encode_message"): "a function of its own, D-Bus's word for encoding"},
    )
    for module in modules():
        for _, node in nodes(module):
            if isinstance(node, ast.Call) and dotted(node.func).startswith("subprocess."):
                assert not {k.arg for k in node.keywords} & {"shell", "preexec_fn"}, (module, node.lineno)


def test_archives_are_never_unpacked_by_the_library():
    """P-07: tarfile's and zipfile's extraction follow what they have just written."""
    check(
        uses({"tarfile", "zipfile", "shutil.unpack_archive"}, modules()),
        {
            ("cli/contexts.py", "export"): "the user's own context, written",
            ("cli/contexts.py", "_add"): "the user's own context, written",
            ("cli/contexts.py", "_members"): "reads three known members into memory, unpacks nothing",
        },
    )
    for module in modules():
        for _, node in nodes(module):
            assert not (isinstance(node, ast.Attribute) and node.attr in ("extractall", "_extract_member"))


def test_only_the_launcher_and_the_stage_fork():
    """P-01, P-11: the daemon has threads and an event loop, and must never be copied."""
    check(
        uses({"os.fork", "os.forkpty", "multiprocessing"}, modules()),
        {
            ("cli/autostart.py", "start_engine"): "the command line puts a daemon into the background",
            ("cli/setns.py", "_run_as_child"): "`satsuma setns`: a program in the namespaces of another",
            ("monitor/launcher.py", "serve"): "its very purpose",
            ("monitor/logchild.py", "ChildFile.__init__"): "a log writer, child of a single-threaded monitor",
            ("monitor/logfile.py", "LogFile._start_compressor"): "child of a single-threaded monitor",
            ("runtime/hooks.py", "_run"): "a hook, child of a single-threaded process",
            ("runtime/sources.py", "send_mount"): "makes one mount, child of a single-threaded process",
            (
                "runtime/systemd.py",
                "SystemdGroup._hold",
            ): "keeps a scope alive, child of a single-threaded process",
        },
    )


def test_namespaces_are_entered_by_the_stage_and_by_threads_made_for_it():
    """P-01, P-11."""
    found = set()
    for module in modules():
        for function, node in nodes(module):
            if isinstance(node, ast.Call) and dotted(node.func).rpartition(".")[2] in (
                "unshare",
                "setns",
                "chroot",
                "pivot_root",
            ):
                found.add((module, function, dotted(node.func)))
    check(
        {item for item in found if not item[0].startswith("linux/")},
        {
            ("cli/setns.py", "_join"): "`satsuma setns`, a process of its own",
            ("engine/sources.py", "shm_of_process.enter"): "in a thread that ends there",
            ("monitor/launcher.py", "make_netns"): "in a child",
            ("network/netns.py", "run_inside.inside"): "in a thread that ends there",
            ("network/netns.py", "make_netns.inside"): "in a thread that ends there",
            ("runtime/birthplace.py", "Birthplace.__exit__"): "for its children, and back",
            ("runtime/checkpoint.py", "_OwnMounts.__enter__"): "for CRIU, and back",
            ("runtime/checkpoint.py", "_OwnMounts.enter"): "for CRIU, and back",
            ("runtime/checkpoint.py", "_OwnMounts.leave"): "for CRIU, and back",
            ("runtime/birthplace.py", "_join_pidns"): "for its children, and back",
            ("runtime/birthplace.py", "_new_timens"): "for its children, and back",
            ("runtime/netdevices.py", "_route_inside"): "a socket of another network namespace, and back",
            ("runtime/sources.py", "_make"): "in a child that makes one mount",
            ("runtime/cradle.py", "Cradle.take"): "stage",
            ("runtime/rootfs.py", "pivot"): "stage",
            ("runtime/rootfs.py", "chroot"): "stage",
            ("runtime/rootfs.py", "chroot_path"): "stage",
            ("runtime/stage.py", "setns"): "stage",
            ("runtime/stage.py", "setns_init"): "stage",
            ("runtime/stage.py", "unshare"): "stage",
        },
    )


def test_the_small_programs_have_no_threads():
    """P-11: namespaces and parent death signals belong to threads."""
    small = [module for module in in_rooms(*SMALL_PROGRAMS) if module not in DAEMON_ONLY]
    check(uses({"threading", "_thread", "concurrent", "asyncio"}, small), {})


def test_children_are_waited_for_one_by_one():
    """P-12: waitpid(-1) takes the status of somebody else's child."""
    for module in modules():
        for _, node in nodes(module):
            if isinstance(node, ast.Call) and dotted(node.func) in (
                "os.waitpid",
                "os.wait3",
                "os.wait",
                "os.wait4",
            ):
                everyone = not node.args or ast.unparse(node.args[0]) == "-1"
                # The monitor reaps what its container leaves behind: it is a subreaper.
                assert not everyone or module == "monitor/loop.py", (module, node.lineno)


def test_descriptors_are_not_inherited_by_accident():
    """P-09: PEP 446 does not cover dup2, recv_fds and recvmsg."""
    for module in modules():
        for _, node in nodes(module):
            if not isinstance(node, ast.Call):
                continue
            name = dotted(node.func).rpartition(".")[2]
            assert name != "recv_fds", (module, node.lineno)
            if name == "dup2":
                assert any(k.arg == "inheritable" for k in node.keywords) or module.startswith("cli/"), (
                    module,
                    node.lineno,
                )
            if isinstance(node.func, ast.Attribute) and node.func.attr == "recvmsg":
                text = ast.unparse(node)
                # One place takes its flags from the caller, and adds the flag itself.
                assert "MSG_CMSG_CLOEXEC" in text, (module, node.lineno, text)


def test_raw_system_calls_stand_in_one_room():
    """P-10: an untyped ctypes call cuts integers to 32 bits in silence."""
    check(
        {item for item in uses({"ctypes"}, modules()) if not item[0].startswith("linux/")},
        {
            ("monitor/title.py", ""): "writes its own argument area",
        }
        | {place: "" for place in _functions_using("monitor/title.py", "ctypes")},
    )


def _functions_using(module: str, name: str) -> set[Use]:
    return {(m, f) for m, f, _ in uses({name, f"{name}.memmove"}, (module,)) if f}


def test_the_engine_never_gives_its_own_environment_to_a_container():
    """P-13, T-A06: what a container gets is made from scratch."""
    rooms = in_rooms(
        "linux", "runtime", "monitor", "container", "volume", "store", "engine", "network", "api"
    )
    check(
        uses({"os.environ", "os.environb", "os.getenv"}, rooms),
        {
            ("api/listen.py", "_inherited"): "socket activation: LISTEN_FDS",
            ("monitor/client.py", "_spawn"): "failpoints of tests",
            ("linux/systemd.py", "_sockets"): "where D-Bus is",
            ("runtime/cli.py", "_preserved"): "LISTEN_FDS, which runc hands on as well",
            ("runtime/maker.py", "_pass_listen_fds"): "LISTEN_FDS, which runc hands on as well",
            ("runtime/cli.py", "_create_and_start"): "NOTIFY_SOCKET, which runc relays as well",
            ("runtime/cli.py", "_start"): "NOTIFY_SOCKET, which runc relays as well",
            ("runtime/maker.py", "create_container"): "NOTIFY_SOCKET, which runc relays as well",
            ("runtime/criu.py", "Service.__init__"): "criu(8) of the host, outside of the container",
            ("runtime/criu.py", "unusable"): "criu(8) of the host, outside of the container",
            ("runtime/explainer.py", "_drawer"): "NO_COLOR",
            ("runtime/cli.py", "_default_root"): "XDG_RUNTIME_DIR",
            ("runtime/maker.py", "_first_state"): "SUDO_USER in the list",
            ("runtime/seal.py", "_execute"): "the same call once more",
            ("runtime/ps.py", "_run"): "ps(1) of the host, outside of the container",
        },
    )


def test_paths_of_untrusted_trees_are_not_joined():
    """P-06: `os.path.join(root, "/etc/passwd")` is "/etc/passwd"; `Root` is the way in."""
    names = {f"os.path.{name}" for name in ("join", "realpath", "abspath", "normpath")} | {"pathlib", "glob"}
    rooms = in_rooms(
        "linux", "runtime", "monitor", "store", "image", "volume", "container", "build", "engine"
    )
    check(
        {item for item in uses(names, rooms) if (item[0], item[2]) != ("build/sources.py", "glob")},
        {
            ("engine/start.py", "cgroups_path"): "a name in the cgroup file system",
            (
                "engine/sources.py",
                "check_propagation",
            ): "a bind source on the host, compared with mount points",
            ("linux/sealed.py", "open_sealed"): "our own interpreter",
            ("monitor/client.py", "_default_command"): "our own program",
            ("monitor/launcher.py", "_program"): "our own program",
            ("runtime/cli.py", "_plan"): "the bundle, as its caller names it",
            ("runtime/cli.py", "_spec"): "the bundle, as its caller names it",
            ("runtime/maker.py", "_check_rootfs"): "the bundle, as its caller names it",
            ("runtime/seal.py", "start_again"): "our own interpreter",
            ("runtime/maker.py", "prepare"): "the bundle, as its caller names it",
            ("runtime/checkpoint.py", "_paths"): "directories for images and logs, as the caller names them",
            (
                "runtime/mounts.py",
                "parse_mount",
            ): "a bind source on the host; a comparison of the destination",
            ("store/store.py", "Store.open"): "the data root, as the administrator names it",
        },
    )


def test_the_working_directory_and_the_umask_are_set_once():
    """P-07: both belong to the whole process, its threads included."""
    rooms = [module for module in modules() if not module.startswith("cli/")]
    check(
        uses({"os.chdir", "os.umask"}, rooms),
        {
            ("daemon/main.py", "_run"): "once, before anything else",
            ("monitor/launcher.py", "main"): "once",
            ("monitor/settle.py", "settle"): "once",
            ("runtime/finish.py", "adopt"): "the program's",
            ("runtime/hooks.py", "_become_hook"): "the hook's",
            ("runtime/rootfs.py", "pivot"): "into the new root",
            ("runtime/rootfs.py", "chroot"): "into the new root",
            ("runtime/rootfs.py", "chroot_path"): "into the new root",
            ("runtime/stage.py", "_prepare"): "zero, so that modes are exact",
        },
    )


def test_foreign_digits_are_ascii():
    """P-16: '²'.isdigit() is true, and int('١٢') is 12."""
    rooms = in_rooms("spec", "wire", "runtime", "container", "build", "api", "network", "image", "registry")
    allowed = {
        "build/download.py": "compared with a number only if it is one",
        "runtime/default_spec.py": "names in sysfs",
        "wire/gotemplate": "the template language has its own scanner of numbers",
        "wire/http_client.py": "status codes of a server: a failed int is the answer to a broken server",
        "wire/tar.py": "bytes, for which only ASCII digits are digits",
        "wire/shell_words.py": "a position in a name, never a number",
    }
    found: list[Use] = []
    for module in rooms:
        if any(module.startswith(name) for name in allowed):
            continue
        for function in (node for _, node in nodes(module) if isinstance(node, ast.FunctionDef)):
            text = ast.unparse(function)
            if ".isdigit()" in text or ".isdecimal()" in text:
                found += [] if ".isascii()" in text else [(module, function.name)]
    assert not found


def test_regular_expressions_match_whole_strings():
    """P-16: `$` also matches before a line end, so "name\\n" would be a name."""
    for module in modules():
        for _, node in nodes(module):
            if not (
                isinstance(node, ast.Call) and dotted(node.func) in ("re.match", "re.compile", "re.search")
            ):
                continue
            if node.args and isinstance(node.args[0], ast.Constant) and isinstance(node.args[0].value, str):
                pattern = node.args[0].value
                assert not (pattern.startswith("^") and pattern.endswith("$")), (module, node.lineno)


def test_privileged_programs_take_no_code_from_their_surroundings():
    """P-19: neither PYTHONPATH nor a user's site-packages nor the working directory."""
    from satsuma.monitor import client

    assert {"-I", "-S", "-B"} <= set(client._default_command("cgroupfs")[1:-1])
    assert 'exec "$python" -IS "$self" "$@"' in (REPOSITORY / "programs/satsuma-oci").read_text()


def test_each_rule_is_held_by_a_test_that_exists():
    """The tables of ARCHITECTURE.md, "Isolation"."""
    text = (REPOSITORY / "ARCHITECTURE.md").read_text()
    rows = re.findall(r"^\| ([PT]-R?\d\d) \|[^|]*\|(.*)\|$", text, re.M)
    wanted = [f"P-{number:02}" for number in range(1, 21)]
    wanted += [f"T-R{number:02}" for number in (*range(1, 24), 26)]
    assert [rule for rule, _ in rows] == wanted
    for rule, tests in rows:
        named = re.findall(r"`([a-z_/]+\.py)(?:::(\w+))?`", tests)
        assert named, rule
        for path, test in named:
            content = (REPOSITORY / "tests" / path).read_text()
            assert not test or f"def {test}(" in content, (rule, path, test)
            assert test or rule in content, (rule, path)


def test_nothing_about_security_hangs_on_assert():
    """P-17: `python -O` drops assertions; those in the code are for the type checker (is not None, isinstance)."""
    for module in in_rooms("linux", "runtime"):
        for function, node in nodes(module):
            if function and isinstance(node, ast.Assert):
                text = ast.unparse(node.test)
                assert "is not None" in text or "isinstance" in text, (module, node.lineno, text)
