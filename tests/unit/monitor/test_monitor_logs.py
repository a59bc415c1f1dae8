from __future__ import annotations

import gzip
import os

import pytest

from satsuma.base.errors import InvalidParameter, Unsupported
from satsuma.monitor import logs
from satsuma.monitor.logfile import LogFile
from satsuma.monitor.logread import LogReader


@pytest.mark.parametrize(
    ("driver", "options", "text"),
    [
        ("asdf", {}, "logger: no log driver named 'asdf' is registered"),
        ("json-file", {"x": "1"}, "unknown log opt 'x' for json-file log driver"),
        ("local", {"x": "1"}, "unknown log opt 'x' for log driver local"),
        ("json-file", {"mode": "fast"}, "logger: logging mode not supported: fast"),
        (
            "json-file",
            {"max-buffer-size": "1m"},
            "logger: max-buffer-size option is only supported with 'mode=non-blocking'",
        ),
        (
            "json-file",
            {"mode": "non-blocking", "max-buffer-size": "much"},
            "error parsing option max-buffer-size: invalid size: 'much'",
        ),
    ],
)
def test_validate_refuses_in_dockers_words(driver, options, text):
    with pytest.raises(InvalidParameter) as caught:
        logs.validate(driver, options)
    assert str(caught.value) == text


def test_validate_accepts():
    logs.validate("none", {"anything": "1"})
    logs.validate("json-file", {"max-size": "bogus until start", "labels": "a", "tag": "{{.Name}}"})
    logs.validate("local", {"mode": "non-blocking", "max-buffer-size": "4m"})


@pytest.mark.parametrize(
    ("driver", "options", "text"),
    [
        ("json-file", {"max-size": "x"}, "invalid size: 'x'"),
        ("json-file", {"max-size": "0"}, "max-size must be a positive number"),
        ("json-file", {"max-file": "0"}, "max-file cannot be less than 1"),
        ("json-file", {"max-file": "a"}, 'strconv.Atoi: parsing "a": invalid syntax'),
        ("json-file", {"compress": "yes"}, 'strconv.ParseBool: parsing "yes": invalid syntax'),
        (
            "json-file",
            {"compress": "true", "max-file": "3"},
            "compress cannot be true when max-file is less than 2 or max-size is not set",
        ),
        ("local", {"max-file": "1"}, "compression cannot be enabled when max file count is 1"),
        ("local", {"max-size": "x"}, "invalid value for max-size: x: invalid size: 'x'"),
    ],
)
def test_values_are_checked_at_start(driver, options, text):
    with pytest.raises(InvalidParameter) as caught:
        logs.parse_options(driver, options)
    assert str(caught.value) == text


def test_sizes_are_decimal():
    assert logs.parse_options("json-file", {"max-size": "10m"}).max_size == 10_000_000
    assert logs.parse_options("json-file", {"max-size": "1.5 kB"}).max_size == 1500
    assert logs.parse_options("local", {}).max_size == 20 * 1024 * 1024


def test_extra_attributes():
    found = logs.extra_attributes(
        {"labels": "a,missing", "labels-regex": "^pre", "env": "E", "env-regex": "X$"},
        labels={"a": "1", "prefix": "2", "z": "3"},
        env=["E=4", "FOX=5", "NOVALUE"],
        tag="t",
    )
    assert found == {"a": "1", "prefix": "2", "E": "4", "FOX": "5", "tag": "t"}


def test_file_mode_and_append(tmp_path):
    path = str(tmp_path / "log")
    for _ in range(2):
        file = LogFile(path)
        file.append([b"line\n"])
        file.close()
    assert (tmp_path / "log").read_bytes() == b"line\nline\n"
    assert os.stat(path).st_mode & 0o777 == 0o640


def test_rotation_keeps_records_whole_and_bounds_the_number_of_files(tmp_path):
    path = str(tmp_path / "log")
    file = LogFile(path, max_size=30, max_file=3)
    for start in range(0, 20, 4):
        file.append([b"record %04d\n" % n for n in range(start, start + 4)])
    file.close()
    assert sorted(os.listdir(tmp_path)) == ["log", "log.1", "log.2"]
    texts = [(tmp_path / name).read_bytes() for name in ("log.2", "log.1", "log")]
    assert b"".join(texts) == b"".join(b"record %04d\n" % n for n in range(20))[-len(b"".join(texts)) :]
    assert all(30 <= len(text) < 30 + 12 for text in texts[:2])


def test_one_file_is_emptied(tmp_path):
    file = LogFile(str(tmp_path / "log"), max_size=10, max_file=1)
    file.append([b"12345678\n", b"abcdefgh\n", b"ABCDEFGH\n"])
    file.close()
    assert os.listdir(tmp_path) == ["log"]
    assert (tmp_path / "log").read_bytes() == b"ABCDEFGH\n"


def test_compressed_rotation(tmp_path):
    file = LogFile(str(tmp_path / "log"), max_size=10, max_file=3, compress=True)
    for n in range(5):
        file.append([b"line %04d\n" % n])
    file._wait_for_compressor()
    file.close()
    assert sorted(os.listdir(tmp_path)) == ["log", "log.1.gz", "log.2.gz"]
    assert gzip.decompress((tmp_path / "log.2.gz").read_bytes()) == b"line 0002\n"
    assert gzip.decompress((tmp_path / "log.1.gz").read_bytes()) == b"line 0003\n"


def write(path, driver, count, start=0, **options):
    log = logs.open_log(driver, path, options, {})
    for n in range(start, start + count):
        log.write(1 + n % 2, b"line %05d\n" % n)
    return log


def numbers(entries):
    return [int(entry.line.split()[1]) for entry in entries]


def read_all(reader):
    found = []
    while batch := reader.read(7):
        found += batch
    return found


@pytest.mark.parametrize("driver", ["json-file", "local"])
@pytest.mark.parametrize("compress", ["false", "true"])
@pytest.mark.parametrize("tail", [None, 0, 1, 5, 50, 199, 200, 1000])
def test_tail_across_rotated_files(tmp_path, driver, compress, tail):
    path = str(tmp_path / "log")
    options = {"max-size": "2k", "max-file": "100", "compress": compress}
    log = write(path, driver, 200, **options)
    log._file._wait_for_compressor()
    log.close()
    with LogReader(driver, path, tail=tail) as reader:
        expected = list(range(200)) if tail is None else list(range(200))[200 - min(tail, 200) :]
        assert numbers(read_all(reader)) == expected


@pytest.mark.parametrize("driver", ["json-file", "local"])
def test_since_and_until_are_inclusive(tmp_path, driver):
    path = str(tmp_path / "log")
    write(path, driver, 10).close()
    with LogReader(driver, path) as reader:
        times = [entry.time_ns for entry in read_all(reader)]
    with LogReader(driver, path, since_ns=times[3], until_ns=times[6]) as reader:
        assert numbers(read_all(reader)) == [3, 4, 5, 6]
        assert reader.done
    assert times == sorted(set(times))


@pytest.mark.parametrize("driver", ["json-file", "local"])
@pytest.mark.parametrize("compress", ["false", "true"])
@pytest.mark.parametrize("every", [1, 13, 60])
def test_reader_goes_on_through_rotations(tmp_path, driver, compress, every):
    path = str(tmp_path / "log")
    options = {"max-size": "2k", "max-file": "20", "compress": compress}
    with LogReader(driver, path) as reader:
        assert reader.read() == []
        log = write(path, driver, 0, **options)
        found = []
        for n in range(240):
            log.write(1, b"line %05d\n" % n)
            if n % every == 0:
                found += read_all(reader)
        log.close()
        found += read_all(reader)
    assert numbers(found) == list(range(240))


def test_reader_survives_truncation(tmp_path):
    path = str(tmp_path / "log")
    log = write(path, "json-file", 3, **{"max-size": "250"})
    with LogReader("json-file", path) as reader:
        assert numbers(read_all(reader)) == [0, 1, 2]
        log.write(1, b"line 00003\n")
        log.write(1, b"line 00004\n")
        log.close()
        assert numbers(read_all(reader))[-1] == 4


def test_none_cannot_be_read(tmp_path):
    with pytest.raises(Unsupported, match="configured logging driver does not support reading"):
        LogReader("none", str(tmp_path / "log"))
    assert logs.open_log("none", "", {}, {}) is None


@pytest.mark.parametrize("driver", ["json-file", "local"])
def test_non_blocking_mode_writes_through_a_child(tmp_path, driver):
    path = str(tmp_path / "log")
    write(path, driver, 500, mode="non-blocking").close()
    with LogReader(driver, path) as reader:
        assert numbers(read_all(reader)) == list(range(500))


def test_full_disk_loses_records_but_not_the_file(tmp_path, monkeypatch, capsys):
    file = LogFile(str(tmp_path / "log"))
    file.append([b"first\n"])
    real_write = os.write
    monkeypatch.setattr(
        os, "write", lambda fd, data: real_write(fd, data[:3]) if len(data) > 3 else _no_space()
    )
    file.append([b"second\n"])
    monkeypatch.undo()
    file.append([b"third\n"])
    file.close()
    assert (tmp_path / "log").read_bytes() == b"first\nthird\n"
    assert "No space left" in capsys.readouterr().err


def _no_space():
    raise OSError(28, os.strerror(28))
