"""The ground floor: nouns that every room shares and that know nothing of containers.

Owns errors, ids, names, sizes and durations, clocks, atomic files, keyed locks, failpoints, the wire format of
protobuf and log set-up.
Must not know any other room.  Its modules are imported one by one (`from satsuma.base import sizes`), because
the launcher, the monitor, `satsuma-oci` and the command line may not pay for what only the daemon needs.
"""
