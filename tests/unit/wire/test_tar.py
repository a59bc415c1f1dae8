"""tar: against tarfile as oracle, against garbage, and against bombs."""

import io
import os
import subprocess
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from satsuma.wire import tar

KINDS = [tar.FILE, tar.LINK, tar.SYMLINK, tar.CHAR, tar.BLOCK_DEVICE, tar.DIRECTORY, tar.FIFO]
names = st.binary(min_size=1, max_size=300).filter(lambda n: b"\0" not in n and not n.endswith(b"/"))


def archive(entries):
    return b"".join(tar.encode(e) + data + tar.padding(len(data)) for e, data in entries) + tar.END


def feed(data, cut=None):
    stream = io.BytesIO(data)
    return tar.Reader((lambda n: stream.read(min(n, cut))) if cut else stream.read)


def read_all(data, cut=None):
    reader = feed(data, cut)
    return [(entry, reader.read_payload(1 << 20)) for entry in reader]


def fields(entry):
    return {slot: getattr(entry, slot) for slot in tar.Entry.__slots__}


@st.composite
def entries(draw):
    kind = draw(st.sampled_from(KINDS))
    data = draw(st.binary(max_size=1500)) if kind == tar.FILE else b""
    entry = tar.Entry(
        draw(names),
        kind,
        mode=draw(st.integers(0, 0o7777)),
        uid=draw(st.integers(0, 2**32)),
        gid=draw(st.integers(0, 2**32)),
        size=len(data),
        mtime_ns=draw(st.integers(-(10**18), 10**19)),
        linkname=draw(names) if kind in (tar.LINK, tar.SYMLINK) else b"",
        device=(draw(st.integers(0, 4095)), draw(st.integers(0, 2**20)))
        if kind in (tar.CHAR, tar.BLOCK_DEVICE)
        else (0, 0),
        xattrs=draw(
            st.dictionaries(st.sampled_from([b"user.a", b"security.capability"]), st.binary(max_size=40))
        ),
    )
    return entry, data


@given(st.lists(entries(), max_size=5), st.integers(1, 2000))
def test_what_is_written_is_read_whatever_the_cuts(items, cut):
    found = read_all(archive(items), cut)
    assert [(fields(e), d) for e, d in found] == [(fields(e), d) for e, d in items]


@given(entries())
def test_tarfile_reads_what_we_write(item):
    entry, data = item
    with tarfile.open(fileobj=io.BytesIO(archive([item])), encoding="utf-8") as oracle:
        (member,) = oracle.getmembers()
        assert os.fsencode(member.name) == entry.name.rstrip(b"/")
        assert (member.mode, member.uid, member.gid) == (entry.mode, entry.uid, entry.gid)
        assert member.type == entry.kind
        if entry.kind == tar.FILE:
            assert oracle.extractfile(member).read() == data


@given(
    st.text(st.characters(min_codepoint=33, max_codepoint=0x2FF), min_size=1, max_size=200),
    st.binary(max_size=1000),
    st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]),
    st.integers(0, 2**33),
)
def test_we_read_what_tarfile_writes(name, data, style, mtime):
    info = tarfile.TarInfo(name.strip("/") or "x")
    info.size, info.mtime, info.uid = len(data), mtime, 2**31 + 5
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=style, encoding="utf-8") as oracle:
        oracle.addfile(info, io.BytesIO(data))
    ((entry, payload),) = read_all(buffer.getvalue())
    assert entry.name == info.name.encode()
    assert payload == data
    assert entry.mtime_ns == mtime * 10**9
    assert entry.uid == 2**31 + 5


@given(st.binary(max_size=3000))
def test_garbage_raises_only_the_declared_error(data):
    try:
        read_all(data)
    except tar.TarError:
        pass


@settings(max_examples=60)
@given(st.lists(entries(), min_size=1, max_size=3), st.data())
def test_damaged_archives_raise_only_the_declared_error(items, data):
    raw = bytearray(archive(items))
    for _ in range(data.draw(st.integers(1, 8))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        read_all(bytes(raw))
    except tar.TarError:
        pass


def test_every_truncation_is_noticed_or_harmless():
    raw = archive([(tar.Entry(b"a", size=700), b"x" * 700), (tar.Entry(b"b" * 200, size=3), b"abc")])
    for end in range(0, len(raw), 100):
        try:
            found = read_all(raw[:end])
        except tar.TarError:
            continue
        assert len(found) <= 2


@pytest.mark.parametrize(
    "flags",
    [
        ["--format=gnu"],
        ["--format=posix"],
        ["--format=posix", "--sparse-version=0.0"],
        ["--format=posix", "--sparse-version=0.1"],
    ],
)
def test_sparse_files_of_gnu_tar(tmp_path, flags):
    size = 60 * 65536
    with open(tmp_path / "holes", "wb") as file:
        for i in range(30):
            file.seek(i * 2 * 65536)
            file.write(b"%d" % i)
        file.truncate(size)
    raw = subprocess.run(
        ["tar", "-C", tmp_path, *flags, "-Scf-", "holes"], check=True, capture_output=True
    ).stdout
    assert len(raw) < size // 4
    reader = feed(raw)
    entry = reader.next_entry()
    assert (entry.name, entry.kind, entry.size) == (b"holes", tar.FILE, size)
    content = bytearray(size)
    for offset, view in reader.chunks():
        content[offset : offset + len(view)] = view
    assert content == (tmp_path / "holes").read_bytes()
    assert reader.next_entry() is None


def header(kind, size, name=b"x"):
    return tar._block(tar.Entry(name, kind, size=size))


@pytest.mark.parametrize(
    "raw",
    [
        header(b"x", 300 << 20),
        header(b"L", 1 << 30),
        header(b"x", 12) + b"12 a=" + bytes(507),
        header(b"0", 8**11 - 1),
        header(b"x", 30) + (b"30 GNU.sparse.major=1\n" + b"7 x=yz\n").ljust(512, b"\0"),
    ],
)
def test_bombs_are_refused_without_reading_them(raw):
    with pytest.raises(tar.TarError):
        read_all(raw)


def test_number_of_entries_is_limited():
    raw = archive([(tar.Entry(b"a"), b"")] * 10)
    stream = io.BytesIO(raw)
    with pytest.raises(tar.TarError, match="too many entries"):
        list(tar.Reader(stream.read, max_entries=5))


def test_signed_checksum_of_old_programs_is_accepted():
    block = bytearray(header(b"0", 0, b"cafe"))
    block[3] = 0xE9
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(b - 256 if b > 127 else b for b in block)
    assert feed(bytes(block)).next_entry().name == b"caf\xe9"


@pytest.mark.parametrize("field", [b"0_0644\0\0", b"+0644\0\0\0", b"0o644\0\0\0", b"00009\0\0\0"])
def test_numbers_are_octal_digits_only(field):
    with pytest.raises(tar.TarError):
        tar._number(field)


def test_skipped_payload_does_not_disturb_the_next_entry():
    raw = archive([(tar.Entry(b"a", size=5000), b"x" * 5000), (tar.Entry(b"b", size=1), b"y")])
    reader = feed(raw, 333)
    assert [e.name for e in reader] == [b"a", b"b"]


def test_an_archive_may_end_with_its_last_payload() -> None:
    """The docker command line sends such contexts; Go's archive/tar takes them."""
    import io

    from satsuma.wire import tar

    raw = tar.encode(tar.Entry(b"Dockerfile", size=7)) + b"FROM x\n"
    reader = tar.Reader(io.BytesIO(raw).read)
    entry = reader.next_entry()
    assert entry is not None and reader.read_payload(100) == b"FROM x\n"
    assert reader.next_entry() is None
    cut = tar.Reader(io.BytesIO(raw[:-1]).read)
    cut.next_entry()
    with pytest.raises(tar.TarError):
        cut.next_entry()
