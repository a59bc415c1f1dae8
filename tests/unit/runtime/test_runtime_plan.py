"""From configuration to steps."""

from __future__ import annotations

import copy

import pytest

from satsuma.linux import caps, syscalls
from satsuma.linux.cgroup import Cgroup, Layout
from satsuma.runtime import config, default_spec, mounts, plan
from satsuma.runtime.errors import ConfigError
from satsuma.runtime.features import example_spec

V1 = Layout({"memory": "/cg/memory", "name=systemd": "/cg/systemd", "": "/cg/unified"}, {})
V2 = Layout({"": "/cg"}, {})
ALL = (1 << len(caps.NAMES)) - 1


def _plan(change=None, *, layout: Layout = V1, held: int = ALL, **extras: object) -> plan.Plan:
    raw = copy.deepcopy(example_spec())
    if change is not None:
        change(raw)
    return plan.plan_init(
        config.parse(raw),
        plan.Extras(bundle="/b", **extras),  # type: ignore[arg-type]
        cgroup=Cgroup("/c", layout),
        held_caps=held,
    )


def _names(made: plan.Plan) -> list[str]:
    return [step.name for step in made.steps]


def test_order_of_the_steps_is_that_of_runc() -> None:
    def change(raw: dict) -> None:
        raw["linux"]["sysctl"] = {"net.ipv4.ip_forward": "1"}
        raw["hooks"] = {"prestart": [{"path": "/x"}], "createContainer": [{"path": "/y"}]}

    names = _names(_plan(change, keyring="_ses.c"))
    wanted = (
        "join_cgroup unshare loopback_up keyring propagation root_bind mount mount_cgroup1 devices dev_links "
        "parent_hooks hooks pivot reopen_null resolve_user make_cwd console remount_readonly hostname sysctl "
        "readonly_paths masked_paths"
    ).split()
    positions = [names.index(name) for name in wanted]
    assert positions == sorted(positions)


def test_cgroup_namespace_is_made_after_joining() -> None:
    made = _plan()
    assert not made.clone_flags & syscalls.CLONE_NEWCGROUP
    assert made.clone_flags & syscalls.CLONE_NEWPID
    assert _names(made).index("join_cgroup") < _names(made).index("unshare")


def test_given_descriptor_takes_the_place_of_a_new_namespace() -> None:
    made = _plan(ns_fds={"net": 7, "pid": 8})
    assert not made.clone_flags & (syscalls.CLONE_NEWNET | syscalls.CLONE_NEWPID)
    assert made.join_pid == 8
    assert ("net", 7) in [step.args for step in made.steps if step.name == "setns"]
    assert "loopback_up" not in _names(made)


def test_capabilities_that_we_lack_are_masked_with_a_warning() -> None:
    def change(raw: dict) -> None:
        raw["process"]["capabilities"] = default_spec.capability_sets(caps.NAMES)

    lacking = ALL & ~(1 << caps.NUMBERS["CAP_SYS_RESOURCE"])
    made = _plan(change, held=lacking)
    assert made.capabilities == (lacking, lacking, lacking, 0, 0)
    assert made.warnings == [
        "ignoring capabilities which the runtime itself does not hold: [CAP_SYS_RESOURCE]"
    ]


def test_no_capabilities_in_the_configuration_means_none() -> None:
    made = _plan(lambda raw: raw["process"].pop("capabilities"))
    assert made.capabilities == (0, 0, 0, 0, 0)


def test_init_is_bound_and_put_before_the_program() -> None:
    made = _plan(init_path="/usr/bin/tini-static")
    assert made.args == ["/sbin/docker-init", "--", "sh"]
    spec = next(s.args[0] for s in made.steps if s.name == "bind")
    assert isinstance(spec, mounts.MountSpec)
    assert (spec.destination, spec.readonly) == ("/sbin/docker-init", True)


def test_overlay_replaces_the_root_path() -> None:
    overlay = {"lowerdirs": ["/l2", "/l1"], "upperdir": "/u", "workdir": "/w", "volatile": True}
    made = _plan(overlay=overlay)
    step = next(s for s in made.steps if s.name == "root_overlay")
    assert step.args == (overlay,)
    assert "root_bind" not in _names(made)


def test_cgroup_mounts_of_both_versions() -> None:
    def host_namespace(raw: dict) -> None:
        raw["linux"]["namespaces"] = [n for n in raw["linux"]["namespaces"] if n["type"] != "cgroup"]

    own = next(s for s in _plan().steps if s.name == "mount_cgroup1")
    assert own.args[1] == [("memory", ["memory"], ""), ("systemd", ["name=systemd"], "")]
    bound = next(s for s in _plan(host_namespace).steps if s.name == "mount_cgroup1")
    assert bound.args[1][0] == ("memory", ["memory"], "/cg/memory/c")
    assert next(s for s in _plan(layout=V2).steps if s.name == "mount_cgroup2").args[1] == ""
    assert (
        next(s for s in _plan(host_namespace, layout=V2).steps if s.name == "mount_cgroup2").args[1]
        == "/cg/c"
    )


def test_read_only_tmpfs_becomes_so_at_the_end() -> None:
    def change(raw: dict) -> None:
        raw["mounts"][1]["options"].append("ro")

    made = _plan(change)
    assert [s.args for s in made.steps if s.name == "remount_readonly"] == [("/dev",), ("/",)]


def test_no_devices_when_dev_is_a_bind_mount() -> None:
    def change(raw: dict) -> None:
        raw["mounts"].append({"destination": "/dev/", "type": "bind", "source": "/dev", "options": ["rbind"]})

    assert "devices" not in _names(_plan(change))


@pytest.mark.parametrize(
    ("mount", "text"),
    [
        ({"destination": "/", "type": "tmpfs"}, "root directory"),
        ({"destination": "/a/..", "type": "tmpfs"}, "root directory"),
        ({"type": "tmpfs"}, "without a destination"),
        ({"destination": "/x", "type": "bind"}, "without a source"),
        ({"destination": "/x"}, "without a type"),
        ({"destination": "/x", "type": "proc", "options": ["tmpcopyup"]}, "tmpfs only"),
        ({"destination": "/x", "type": "bind", "source": "/", "options": ["idmap"]}, "needs mappings"),
    ],
)
def test_impossible_mounts(mount: dict, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        _plan(lambda raw: raw["mounts"].append(mount))


def _asking(*names: str, **more: object) -> dict:
    return {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": list(names), "action": "SCMP_ACT_NOTIFY"}],
        **more,
    }


@pytest.mark.parametrize(
    ("profile", "text"),
    [
        (_asking("mkdir"), "SCMP_ACT_NOTIFY without listenerPath"),
        (_asking("mkdir", listenerPath="x"), "must be absolute"),
        (_asking("write", listenerPath="/x"), "cannot be used for the write syscall"),
        ({"defaultAction": "SCMP_ACT_NOTIFY", "listenerPath": "/x"}, "cannot be used as default action"),
        (
            {"defaultAction": "SCMP_ACT_ALLOW", "listenerMetadata": "x"},
            "listenerMetadata without listenerPath",
        ),
    ],
)
def test_impossible_listeners(profile: dict, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        _plan(lambda raw: raw["linux"].update(seccomp=profile))


def test_a_profile_that_asks_gets_a_listener() -> None:
    made = _plan(lambda raw: raw["linux"].update(seccomp=_asking("mkdir", listenerPath="/x")))
    assert made.filter_flags & 8 and made.listener is not None
    quiet = _plan(
        lambda raw: raw["linux"].update(seccomp={"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/x"})
    )
    assert quiet.listener is None


def test_namespaces_are_joined_before_the_user_namespace_is_made() -> None:
    def change(raw: dict) -> None:
        raw["linux"]["namespaces"] = [
            {"type": "pid"},
            {"type": "mount"},
            {"type": "user"},
            {"type": "network", "path": "/proc/1/ns/net"},
        ]
        raw["linux"]["uidMappings"] = raw["linux"]["gidMappings"] = [
            {"containerID": 0, "hostID": 7, "size": 1}
        ]
        raw["linux"].pop("sysctl", None)
        raw.pop("hostname", None)

    made = _plan(change)
    assert made.clone_flags == 0 and made.reborn
    assert [name for name in _names(made) if name in ("setns", "rebirth", "userns_maps")] == [
        "setns",
        "rebirth",
        "userns_maps",
    ]


def test_describe_shows_every_step() -> None:
    made = _plan()
    text = plan.describe(made)
    assert "mount proc proc on /proc" in text
    assert "tmpfs tmpfs on /dev nosuid,strictatime mode=755,size=65536k" in text
    assert text.splitlines()[-1] == "execve sh"
    assert len(text.splitlines()) >= len(made.steps)


def test_mount_options() -> None:
    def parse(*options: str, **raw: str) -> mounts.MountSpec:
        return mounts.parse_mount({"destination": "/x", "type": "tmpfs", **raw, "options": list(options)})

    assert parse("ro", "rw").attr_set == 0
    assert parse("ro", "rw").attr_clr == syscalls.MOUNT_ATTR_RDONLY
    assert parse("noatime", "strictatime").attr_set == syscalls.MOUNT_ATTR_STRICTATIME
    assert parse("rro").rec_set == syscalls.MOUNT_ATTR_RDONLY
    assert parse("size=1k,mode=700", "foo").data == [("size", "1k"), ("mode", "700"), ("foo", None)]
    assert parse("rprivate", "shared").propagation == [
        (syscalls.MS_PRIVATE, True),
        (syscalls.MS_SHARED, False),
    ]
    bind = mounts.parse_mount({"destination": "/x", "source": "rel", "options": ["rbind"]}, "/bundle")
    assert (bind.source, bind.recursive) == ("/bundle/rel", True)


def test_plan_of_exec() -> None:
    process = config.parse_process({"args": ["id"], "cwd": "/", "terminal": True})
    made = plan.plan_exec(process, join_cgroup=["/cg/tasks"], namespaces=syscalls.CLONE_NEWNS, held_caps=ALL)
    assert _names(made) == ["join_cgroup", "setns_init", "enter_root", "resolve_user", "console"]
