"""Users and groups from the bytes of passwd and group files, without NSS.

glibc's lookups would read nsswitch.conf of the container and load its libraries (CVE-2019-14271), so the two
files are parsed here.  Numbers are never looked up as names, as in moby/sys/user; unlike Python's `int` only
ASCII digits are a number.

Source: passwd(5), group(5); messages of github.com/moby/sys/user.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MAX_ID = 0x7FFFFFFF
_DIGITS = frozenset("0123456789")


class UserError(Exception):
    """A user or group specification that cannot be resolved; the text is Docker's."""


class User:
    """What a process needs to know of its user."""

    __slots__ = ("gid", "groups", "home", "uid")

    def __init__(self, uid: int, gid: int, groups: list[int], home: str) -> None:
        self.uid = uid
        self.gid = gid
        self.groups = groups
        self.home = home


def parse_id(text: str) -> int | None:
    """Return *text* as a numeric id, None when it is no number at all.

    Raises:
        UserError: a number outside 0..2^31-1.
    """
    digits = text[1:] if text[:1] in ("-", "+") else text
    if not digits or not set(digits) <= _DIGITS:
        return None
    if digits is not text or len(digits) > 10 or int(digits) > MAX_ID:
        raise UserError(f"uids and gids must be in range 0-{MAX_ID}")
    return int(digits)


def _records(data: bytes, fields: int) -> Iterator[list[str]]:
    for line in data.split(b"\n"):
        line = line.strip()
        if not line or line.startswith(b"#"):
            continue
        parts = line.decode("utf-8", "surrogateescape").split(":")
        parts += [""] * (fields - len(parts))
        yield parts


def _number(text: str) -> int | None:
    try:
        return parse_id(text)
    except UserError:
        return None


def find_home(passwd: bytes, uid: int) -> str:
    """Return the home directory of *uid*, "/" when the file does not tell."""
    for record in _records(passwd, 7):
        if _number(record[2]) == uid:
            return record[5] or "/"
    return "/"


def resolve_user(spec: str, passwd: bytes, group: bytes, *, additional: Iterable[str] = ()) -> User:
    """Resolve "user", "user:group", "uid", "uid:gid" with the files of a container.

    Supplementary groups come from the group file only if no group is given in *spec*, as Docker does it.

    Args:
        additional: names or numbers of further groups (`--group-add`).
    Raises:
        UserError: unable to find user foo: no matching entries in passwd file
    """
    user_text, _, group_text = spec.partition(":")
    uid, gid, home, name = _find_user(user_text, passwd)
    groups: list[int] = []
    if group_text:
        gid = _find_group(group_text, group)
    elif name is not None:
        for record in _records(group, 4):
            number = _number(record[2])
            if number is not None and name in record[3].split(","):
                groups.append(number)
    groups.extend(_additional_groups(additional, group))
    return User(uid, gid, groups, home)


def _find_user(text: str, passwd: bytes) -> tuple[int, int, str, str | None]:
    """Return (uid, gid, home, name); the name is None for a number without an entry."""
    if text == "":
        text = "0"
    wanted = parse_id(text)
    for record in _records(passwd, 7):
        uid = _number(record[2])
        if uid is None or not (uid == wanted if wanted is not None else record[0] == text):
            continue
        return uid, _number(record[3]) or 0, record[5] or "/", record[0]
    if wanted is None:
        raise UserError(f"unable to find user {text}: no matching entries in passwd file")
    return wanted, 0, "/", None


def _find_group(text: str, group: bytes) -> int:
    wanted = parse_id(text)
    if wanted is not None:
        return wanted
    for record in _records(group, 4):
        gid = _number(record[2])
        if record[0] == text and gid is not None:
            return gid
    raise UserError(f"unable to find group {text}: no matching entries in group file")


def _additional_groups(names: Iterable[str], group: bytes) -> list[int]:
    gids = []
    for name in names:
        try:
            gids.append(_find_group(name, group))
        except UserError as error:
            if "range" in str(error):
                raise
            raise UserError(f"Unable to find group {name}: no matching entries in group file") from error
    return gids
