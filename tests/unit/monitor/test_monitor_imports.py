"""The import budget: what the launcher loads, every monitor carries."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import satsuma

SOURCE = str(pathlib.Path(satsuma.__file__).parent.parent)
LOAD = """
import sys
sys.path.append(sys.argv[1])
from satsuma.monitor.runtime_backend import RuntimeBackend
from satsuma.monitor import launcher, monitor, title
from satsuma.linux import ns
print("\\n".join(sys.modules))
"""
ALLOWED = set(
    """
    __future__ __main__ _abc _codecs _collections _collections_abc _ctypes _frozen_importlib
    _frozen_importlib_external _functools _heapq _imp _io _json _operator _signal _socket _sre _stat _struct
    _thread _warnings _weakref abc array builtins codecs collections collections.abc copyreg ctypes ctypes._endian
    encodings encodings.aliases encodings.utf_8 enum errno fcntl functools gc genericpath heapq io itertools json
    json.decoder json.encoder json.scanner keyword marshal math mmap operator os os.path posix posixpath re re._casefix
    re._compiler re._constants re._parser reprlib resource select selectors signal socket stat struct sys termios
    time types zipimport zlib satsuma satsuma.base satsuma.linux satsuma.monitor satsuma.runtime _sitebuiltins
    """.split()
)
OWN = ("satsuma.base.", "satsuma.linux.", "satsuma.monitor.", "satsuma.runtime.")
DAEMON_ONLY = {
    "satsuma.base.aio",
    "satsuma.base.log",
    "satsuma.monitor.client",
    "satsuma.monitor.logfollow",
    "satsuma.linux.rtnetlink",
    "satsuma.linux.nftables",
}


def loaded() -> set[str]:
    output = subprocess.run(
        [sys.executable, "-I", "-S", "-B", "-c", LOAD, SOURCE], capture_output=True, text=True, check=True
    )
    return set(output.stdout.split())


def test_launcher_and_monitor_load_only_what_is_allowed():
    modules = loaded()
    extra = {name for name in modules if not name.startswith(OWN)} - ALLOWED
    assert not extra
    assert not modules & DAEMON_ONLY
