"""Hostile configurations: whatever stands in config.json, the answer is a plan or one of our errors."""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from satsuma.linux import passwd, seccomp
from satsuma.linux.cgroup import Cgroup, Layout
from satsuma.runtime import devices, execargs, explain, fastjson, maker, resctrl, resources
from satsuma.runtime.config import parse, parse_process
from satsuma.runtime.errors import RuntimeFailure
from satsuma.runtime.features import example_spec
from satsuma.runtime.plan import Extras, plan_init

LAYOUTS = (
    Layout({"memory": "/c/memory", "cpu": "/c/cpu", "devices": "/c/devices", "pids": "/c/pids"}, {}),
    Layout({"": "/c"}, {}),
)
RULE = {
    "names": ["kexec_load", "socket"],
    "action": "SCMP_ACT_ERRNO",
    "errnoRet": 38,
    "args": [{"index": 0, "value": 16, "valueTwo": 1, "op": "SCMP_CMP_MASKED_EQ"}],
}
HOOK = {"path": "/bin/true", "args": ["true"], "env": ["A=b"], "timeout": 5}
MAPPING = {"containerID": 0, "hostID": 1000, "size": 10}
# Everything that the specification has for Linux, each field once.
FULL: dict[str, Any] = {
    "annotations": {"a": "b"},
    "domainname": "d",
    "hooks": {"prestart": [HOOK], "createRuntime": [HOOK], "startContainer": [HOOK], "poststop": [HOOK]},
    "root": {"path": "rootfs", "readonly": True},
    "process": {
        "terminal": True,
        "consoleSize": {"height": 1, "width": 2},
        "cwd": "/",
        "env": ["A=b"],
        "args": ["sh"],
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 1, "hard": 2}],
        "apparmorProfile": "p",
        "selinuxLabel": "l",
        "noNewPrivileges": True,
        "oomScoreAdj": 1,
        "scheduler": {
            "policy": "SCHED_OTHER",
            "nice": 1,
            "priority": 0,
            "flags": ["SCHED_FLAG_RESET_ON_FORK"],
        },
        "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 1},
        "execCPUAffinity": {"initial": "0-1", "final": "0"},
        "user": {"uid": 0, "gid": 0, "umask": 18, "additionalGids": [1], "additionalGroups": ["a"]},
        "capabilities": {"bounding": ["CAP_KILL"], "ambient": ["CAP_KILL"]},
    },
    "linux": {
        "resources": {
            "unified": {"memory.high": "1"},
            "devices": [{"allow": True, "type": "c", "major": 1, "minor": 2, "access": "rwm"}],
            "memory": {
                "limit": 1 << 24,
                "reservation": 1,
                "swap": 1 << 25,
                "swappiness": 1,
                "disableOOMKiller": True,
            },
            "cpu": {
                "shares": 2,
                "quota": 1000,
                "period": 1000,
                "cpus": "0",
                "mems": "0",
                "idle": 0,
                "burst": 1,
            },
            "pids": {"limit": 5},
            "blockIO": {
                "weight": 10,
                "leafWeight": 10,
                "weightDevice": [{"major": 1, "minor": 1, "weight": 10}],
                "throttleReadBpsDevice": [{"major": 1, "minor": 1, "rate": 10}],
            },
            "hugepageLimits": [{"pageSize": "2MB", "limit": 1}],
            "network": {"classID": 1, "priorities": [{"name": "eth0", "priority": 1}]},
            "rdma": {"mlx5_1": {"hcaHandles": 1, "hcaObjects": 1}},
        },
        "devices": [
            {"path": "/dev/x", "type": "c", "major": 1, "minor": 2, "fileMode": 438, "uid": 0, "gid": 0}
        ],
        "uidMappings": [MAPPING],
        "gidMappings": [MAPPING],
        "timeOffsets": {"monotonic": {"secs": 1, "nanosecs": 2}},
        "sysctl": {"net.ipv4.ip_forward": "1"},
        "seccomp": {
            "defaultAction": "SCMP_ACT_ERRNO",
            "defaultErrnoRet": 1,
            "architectures": ["SCMP_ARCH_X86_64"],
            "flags": ["SECCOMP_FILTER_FLAG_LOG"],
            "listenerPath": "/x",
            "listenerMetadata": "m",
            "syscalls": [RULE, {"names": ["getcwd"], "action": "SCMP_ACT_NOTIFY"}],
        },
        "rootfsPropagation": "slave",
        "maskedPaths": ["/proc/a"],
        "readonlyPaths": ["/proc/b"],
        "mountLabel": "l",
        "personality": {"domain": "LINUX", "flags": []},
        "memoryPolicy": {"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]},
        "intelRdt": {
            "closID": "c",
            "l3CacheSchema": "L3:0=f",
            "memBwSchema": "MB:0=1",
            "schemata": ["L3:0=f"],
            "enableMonitoring": True,
            "enableCMT": True,
        },
        "netDevices": {"eth0": {"name": "eth1"}},
        "cgroupsPath": "/x",
    },
}
MOUNT = {"destination": "/m", "type": "bind", "source": "/s", "options": ["idmap", "ro"]}
MOUNT |= {"uidMappings": [MAPPING], "gidMappings": [MAPPING]}
WEIRD: list[Any] = [
    None,
    True,
    0,
    -1,
    1 << 31,
    1 << 32,
    1 << 64,
    -(1 << 70),
    10**400,
    0.5,
    float("inf"),
    "",
    "x",
    "\0",
    "a\nb",
    "../../x",
    "é\udcff",
    "0" * 5000,
    "9-1,-,5-",
    "0-99999999999",
    [],
    [None],
    [[]],
    [{}],
    ["x"],
    [0],
    ["\0"],
    {},
    {"x": None},
    {"x": {}},
    {"": []},
    {"../x": "y"},
]


def full() -> dict[str, Any]:
    spec = copy.deepcopy(example_spec())
    for key, value in FULL.items():
        if isinstance(value, dict) and isinstance(spec.get(key), dict):
            spec[key] = {**spec[key], **copy.deepcopy(value)}
        else:
            spec[key] = copy.deepcopy(value)
    spec["linux"]["namespaces"] += [{"type": "user"}, {"type": "time"}]
    spec["mounts"].append(copy.deepcopy(MOUNT))
    return spec


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of everything in a document."""
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*path, key))


def attempt(raw: Any) -> str:
    """Go as far as there are no side effects; return the error."""
    try:
        config = parse(raw)
    except RuntimeFailure as error:
        return str(error)
    for layout in LAYOUTS:
        with contextlib.suppress(RuntimeFailure):
            resources.plan_resources(config.resources, v2=layout.mode == "v2")
        with contextlib.suppress(RuntimeFailure):
            devices.parse_devices(config.resources.get("devices") or [])
        try:
            group = Cgroup(config.cgroups_path or "/x", layout)
            # What this kernel lacks must not hide what comes after it.
            extras = Extras(bundle="/b", lsm_optional=True)
            plan = plan_init(config, extras, cgroup=group, held_caps=(1 << 41) - 1)
            plan.describe()
            explain.planned(plan)
            if config.intel_rdt is not None:
                resctrl.Group(config.intel_rdt, "id", "/sys/fs/resctrl")
            flags = {"cap": ["CAP_KILL"], "additional-gids": [3], "env": ["A=b"]}
            parse_process(execargs.process_from(copy.deepcopy(raw), flags, ["x"]))
        except RuntimeFailure as error:
            return str(error)
    return ""


def test_the_whole_specification_is_accepted() -> None:
    """Else the tests below would stop where the first field is refused."""
    assert attempt(full()) == ""
    resources.check(full()["linux"]["resources"])


def test_limits_of_a_wrong_type_are_refused_by_name() -> None:
    limits = full()["linux"]["resources"]
    for path in places({key: value for key, value in limits.items() if key != "devices"}):
        changed = copy.deepcopy(limits)
        target = changed
        for key in path[:-1]:
            target = target[key]
        target[path[-1]] = -0.5
        with pytest.raises(RuntimeFailure, match=r"linux\.resources\.[a-zA-Z.0-9_-]+ has the wrong type"):
            resources.check(changed)


def replaced(path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    raw = full()
    target = raw
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = copy.deepcopy(value)
    return raw


@pytest.mark.parametrize(
    "top", ["process", "root", "mounts", "hooks", "linux", "annotations", "hostname", "ociVersion"]
)
def test_no_field_of_a_wrong_type_gets_through_as_a_traceback(top: str) -> None:
    for path in [(top,), *((top, *rest) for rest in places(full().get(top)))]:
        for value in WEIRD:
            try:
                attempt(replaced(path, value))
            except Exception as error:
                pytest.fail(f"{'.'.join(map(str, path))} = {value!r:.60}: {error!r:.300}")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
PLACES = list(places(full()))


@given(st.lists(st.tuples(st.sampled_from(PLACES), JSON), min_size=1, max_size=3))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_random_values_anywhere(changes: list[tuple[tuple[Any, ...], Any]]) -> None:
    raw: Any = full()
    for path, value in changes:
        target = raw
        try:
            for key in path[:-1]:
                target = target[key]
            target[path[-1]] = value
        except (KeyError, IndexError, TypeError):
            continue
    attempt(raw)


@given(JSON)
@settings(max_examples=100, deadline=None)
def test_any_json_as_configuration(raw: Any) -> None:
    attempt(raw)


SECCOMP_VALUES = st.one_of(
    JSON,
    st.sampled_from(
        ["SCMP_ACT_ERRNO", "SCMP_ACT_ALLOW", "SCMP_CMP_EQ", "SCMP_CMP_MASKED_EQ", "SCMP_ARCH_X86_64"]
    ),
    st.sampled_from(["read", "socket", "nosuchcall"]),
)


@given(
    st.fixed_dictionaries(
        {"defaultAction": SECCOMP_VALUES},
        optional={
            "defaultErrnoRet": SECCOMP_VALUES,
            "architectures": st.lists(SECCOMP_VALUES, max_size=2) | JSON,
            "flags": st.lists(SECCOMP_VALUES, max_size=2) | JSON,
            "syscalls": st.lists(
                st.fixed_dictionaries(
                    {"names": st.lists(SECCOMP_VALUES, max_size=2) | JSON, "action": SECCOMP_VALUES},
                    optional={
                        "errnoRet": SECCOMP_VALUES,
                        "args": st.lists(
                            st.fixed_dictionaries(
                                {
                                    "index": st.integers(-1, 7) | JSON,
                                    "value": st.integers(-1, 1 << 64) | JSON,
                                },
                                optional={"op": SECCOMP_VALUES, "valueTwo": st.integers() | JSON},
                            ),
                            max_size=3,
                        )
                        | JSON,
                    },
                ),
                max_size=3,
            )
            | JSON,
        },
    )
)
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_seccomp_compiler_answers_with_a_program_or_its_error(profile: dict[str, Any]) -> None:
    raw = full()
    raw["linux"]["seccomp"] = profile
    attempt(raw)
    try:
        program = seccomp.compile_profile(profile)
    except (seccomp.ProfileError, KeyError, TypeError, AttributeError, ValueError):
        return  # unchecked documents are the caller's, `parse` checks them
    assert len(program) % 8 == 0


@given(st.binary(max_size=300), st.binary(max_size=300), st.text(max_size=30))
@settings(max_examples=300, deadline=None)
def test_passwd_and_group_files_of_any_bytes(users: bytes, groups: bytes, spec: str) -> None:
    try:
        user = passwd.resolve_user(spec, users, groups, additional=[spec[:3]])
    except passwd.UserError:
        pass
    else:
        assert 0 <= user.uid < 1 << 32 and 0 <= user.gid < 1 << 32
        assert all(0 <= gid < 1 << 32 for gid in user.groups)
    assert isinstance(passwd.find_home(users, 0), str)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (b"", "invalid JSON"),
        (b"\xff\xfe", "malformed spec file"),
        (b'{"a": NaN}', "malformed spec file"),
        (b'{"a": Infinity}', "malformed spec file"),
        (b'{"a": ' + b"9" * 5000 + b"}", "malformed spec file"),
        (b"[" * 100000, "nested too deeply"),
        (b'{"a":' * 5000 + b"1" + b"}" * 5000, "nested too deeply"),
        (b'{"a": "x', "malformed spec file"),
        (b'{"a": "\\ud800"}', "malformed spec file"),
        (b'{"\\udfff": 1}', "malformed spec file"),
        (b'{"a": "\x01"}', "malformed spec file"),
        (b"[]", "not a JSON object"),
        (b"null", "not a JSON object"),
        (b"{} x", "extra data"),
        (b" " * (17 << 20), "larger than 16 MiB"),
    ],
)
def test_malformed_files(tmp_path: Path, text: bytes, part: str) -> None:
    (tmp_path / "config.json").write_bytes(text)
    with pytest.raises(RuntimeFailure, match=part):
        parse(maker.load_config(str(tmp_path)))


def test_pairs_of_surrogates_are_characters(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(b'{"a": "\\ud83c\\udf4a"}')
    assert maker.load_config(str(tmp_path)) == {"a": "\U0001f34a"}


def test_the_last_of_equal_keys_wins_as_in_go(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(b'{"a": 1, "a": 2}')
    assert maker.load_config(str(tmp_path)) == {"a": 2}


@given(st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
@settings(max_examples=300, deadline=None)
def test_json_reader_agrees_with_the_library(data: bytes) -> None:
    try:
        ours = fastjson.loads(data)
    except ValueError:
        return
    assert repr(ours) == repr(json.loads(data))
