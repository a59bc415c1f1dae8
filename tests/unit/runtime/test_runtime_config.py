"""The configuration parser: runc's words, closed sets, ranges."""

from __future__ import annotations

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from satsuma.runtime import config
from satsuma.runtime.errors import ConfigError
from satsuma.runtime.features import example_spec

PROCESS = {"args": ["sh"], "cwd": "/"}


def _with(path: str, value: object) -> dict:
    raw = copy.deepcopy(example_spec())
    *parents, last = path.split(".")
    target = raw
    for key in parents:
        target = target.setdefault(key, {})
    target[last] = value
    return raw


def test_example_is_valid() -> None:
    parsed = config.parse(example_spec())
    assert parsed.process is not None and parsed.process.args == ["sh"]
    assert parsed.namespaces == dict.fromkeys(("pid", "net", "ipc", "uts", "mnt", "cgroup"), "")


@pytest.mark.parametrize(
    ("path", "value", "text"),
    [
        ("process.args", [], "args must not be empty"),
        ("process.cwd", "tmp", "Cwd must be an absolute path"),
        ("process.rlimits", [{"type": "RLIMIT_TEST"}], "wrong rlimit value: RLIMIT_TEST"),
        ("process.rlimits", [{"type": "RLIMIT_CPU"}] * 2, "given twice"),
        ("process.oomScoreAdj", 1001, "out of range"),
        ("process.user.uid", -1, "out of range"),
        ("process.user.uid", "0", "wrong type"),
        ("process.user.uid", True, "wrong type"),
        ("process.terminal", "yes", "wrong type"),
        ("process.scheduler", {"policy": "SCHED_FOO"}, "invalid scheduler policy"),
        ("process.ioPriority", {"class": "FOO"}, "invalid ioPriority class"),
        ("process.env", ["A=\0"], "list of strings"),
        ("linux.namespaces", [{"type": "pid"}, {"type": "pid"}], r'duplicated ns \{"pid" ""\}'),
        ("linux.namespaces", [{"type": "foo"}], r'namespace \{"foo" ""\} does not exist'),
        ("linux.namespaces", [{"type": "net", "path": "x"}], "does not exist"),
        ("linux.namespaces", [{"type": "network", "path": "x"}], "must be absolute"),
        ("linux.sysctl", {"kernel.foo": "1"}, 'sysctl "kernel.foo" is not in a separate kernel namespace'),
        ("linux.sysctl", {"net.a": "1\n2"}, "invalid value"),
        ("linux.sysctl", {"net/../kernel/core_pattern": "x"}, "invalid sysctl name|is not in a separate"),
        ("linux.sysctl", {"kernel.hostname": "x"}, "conflicts"),
        ("linux.uidMappings", [{"containerID": 0, "hostID": 0, "size": 1}], "user namespace isn't enabled"),
        ("linux.rootfsPropagation", "foo", "not supported"),
        ("linux.intelRdt", ["x"], "wrong type"),
        ("linux.netDevices", {"eth0/": {}}, "invalid network device name"),
        ("linux.netDevices", {"a": {"name": "x"}, "b": {"name": "x"}}, "would be called 'x'"),
        ("linux.timeOffsets", {"realtime": {"secs": 1}}, "unknown clock 'realtime'"),
        ("linux.timeOffsets", {"monotonic": {"secs": "1"}}, "wrong type"),
        ("linux.timeOffsets", {"monotonic": {"secs": 1}}, "time namespace isn't enabled"),
        ("linux.personality", {"domain": "FOO"}, "invalid personality"),
        ("hooks.prestart", [{"path": "x"}], "not absolute"),
        ("hooks.prestart", [{"path": "/x", "timeout": 0}], "timeout"),
        ("ociVersion", "2.0.0", "unknown version"),
        ("ociVersion", "1.0", "semver"),
    ],
)
def test_refused(path: str, value: object, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        config.parse(_with(path, value))


def test_private_namespaces_are_needed() -> None:
    raw = _with("linux.namespaces", [{"type": "mount"}])
    with pytest.raises(ConfigError, match="unable to set hostname without a private UTS namespace"):
        config.parse(raw)
    raw = _with("linux.namespaces", [{"type": "uts"}])
    with pytest.raises(ConfigError, match="private MNT namespace"):
        config.parse(raw)
    raw = _with("linux.sysctl", {"net.ipv4.ip_forward": "1"})
    raw["linux"]["namespaces"] = [{"type": kind} for kind in ("uts", "mount")]
    with pytest.raises(ConfigError, match="not allowed in host network namespace"):
        config.parse(raw)


@pytest.mark.parametrize("version", ["1.0.0", "1.0.2-dev", "1.2.1", "1.3.0+x", "1.99.0"])
def test_all_versions_1_are_accepted(version: str) -> None:
    config.parse(_with("ociVersion", version))


def test_unknown_keys_are_no_errors_and_unknown_capabilities_are_kept_for_a_warning() -> None:
    raw = _with("foo", {"bar": 1})
    raw["process"]["capabilities"] = {"bounding": ["CAP_CHOWN", "CAP_FOO"], "effective": ["CAP_FOO"]}
    process = config.parse(raw).process
    assert process is not None and process.caps == (1, 0, 0, 0, 0)
    assert process.unknown_caps == ["CAP_FOO"]


def test_sysctl_notation_with_slashes() -> None:
    assert config.normalise_sysctl("net/ipv4/conf/eth0.100/forwarding") == "net.ipv4.conf.eth0/100.forwarding"
    assert config.normalise_sysctl("net.ipv4.ip_forward") == "net.ipv4.ip_forward"


def test_cpu_lists() -> None:
    assert config.parse_cpu_list("0-3,7") == [0, 1, 2, 3, 7]
    assert config.parse_cpu_list("") == []
    for bad in ("a", "3-1", "1-", "-1", "\u0661"):
        with pytest.raises(ConfigError):
            config.parse_cpu_list(bad)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
_KEYS = st.sampled_from(
    "process root mounts hostname linux hooks annotations process.user process.rlimits process.capabilities "
    "linux.namespaces linux.seccomp linux.sysctl linux.uidMappings process.scheduler process.args".split()
)


@given(_KEYS, _JSON)
def test_garbage_is_a_config_error(path: str, value: object) -> None:
    try:
        config.parse(_with(path, value))
    except ConfigError:
        pass
