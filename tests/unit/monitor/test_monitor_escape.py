from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from satsuma.monitor.escape import DEFAULT, DetachKeys


def run(keys, chunks):
    detector = DetachKeys(keys)
    passed = b""
    for chunk in chunks:
        out, detached = detector.feed(chunk)
        passed += out
        if detached:
            return passed, True
    return passed + detector.flush(), False


def test_default_keys():
    assert run(DEFAULT, [b"ls\n\x10\x11more"]) == (b"ls\n", True)


def test_sequence_in_pieces_holds_back_its_start():
    detector = DetachKeys(b"ab")
    assert detector.feed(b"xa") == (b"x", False)
    assert detector.feed(b"b") == (b"", True)


def test_broken_sequence_goes_to_the_container():
    assert run(b"abc", [b"ab", b"x"]) == (b"abx", False)


def test_byte_that_breaks_a_sequence_starts_no_new_one():
    assert run(b"\x10\x11", [b"\x10\x10\x11"]) == (b"\x10\x10\x11", False)


def test_no_keys_pass_everything():
    assert run(b"", [b"\x10\x11"]) == (b"\x10\x11", False)


@given(st.lists(st.binary()), st.binary(min_size=1, max_size=3))
def test_cuts_do_not_matter(chunks, keys):
    assert run(keys, chunks) == run(keys, [b"".join(chunks)])


@given(st.lists(st.sampled_from([b"a", b"b", b"ab", b"ba"])))
def test_nothing_is_lost_without_a_detach(chunks):
    passed, detached = run(b"abb", chunks)
    if not detached:
        assert passed == b"".join(chunks)
