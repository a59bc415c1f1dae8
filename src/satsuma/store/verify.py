"""Verification: is everything on disk that the database promises, and nothing else?

Owns `check` and `repair` of the store.  What images need beyond layers is checked in the room `image`.

Two severities: *garbage* can be removed without loss, *loss* means that something promised is gone.
"""

from __future__ import annotations

import hashlib
import os
from typing import NamedTuple

from satsuma.store.layers import GENERATED
from satsuma.store.store import Store

GARBAGE = "garbage"
LOSS = "loss"


class Finding(NamedTuple):
    """One fault: `severity` is `GARBAGE` or `LOSS`; `path` is what `repair` would throw away."""

    severity: str
    subject: str
    message: str
    path: str = ""


def check(store: Store, *, deep: bool = False) -> list[Finding]:
    """Compare rows and directories; with *deep* also every blob with its digest.

    Order: while nothing is being created, or the newest objects may be reported as garbage.
    """
    findings = [Finding(LOSS, "database", complaint) for complaint in store.db.check()]
    findings += _check_layers(store)
    findings += _check_containers(store)
    findings += _check_content(store, deep=deep)
    for path, kind, key in store.garbage():
        findings.append(Finding(GARBAGE, f"{kind} {key}", "directory without a record", path))
    for name, kind, key in store.trash.entries():
        path = f"{store.trash.directory}/{name}"
        findings.append(Finding(GARBAGE, f"{kind} {key}", "waits for removal", path))
    return findings


def _check_layers(store: Store) -> list[Finding]:
    findings = []
    for layer in store.layers.all():
        subject = f"layer {layer.chain_id}"
        if not os.path.isdir(store.snapshots.layer_dir(layer.chain_id)):
            findings.append(Finding(LOSS, subject, "directory is gone"))
        if layer.parent is not None and store.layers.find(layer.parent) is None:
            findings.append(Finding(LOSS, subject, f"parent {layer.parent} is gone"))
        if layer.blob != GENERATED and not store.content.has(layer.blob):
            findings.append(Finding(LOSS, subject, f"blob {layer.blob} is gone"))
    return findings


def _check_containers(store: Store) -> list[Finding]:
    findings = []
    for key in sorted(store.db.collection("containers").ids()):
        directory = store.snapshots.directory(key)
        missing = [n for n in ("lower", "upper", "work") if not os.path.lexists(f"{directory}/{n}")]
        if missing:
            findings.append(
                Finding(LOSS, f"container {key}", f"gone from its directory: {', '.join(missing)}")
            )
            continue
        top = os.readlink(f"{directory}/lower").partition(".")[0]
        if top != "scratch" and store.layers.find(f"sha256:{top}") is None:
            findings.append(Finding(LOSS, f"container {key}", f"layer sha256:{top} is gone"))
    return findings


def _check_content(store: Store, *, deep: bool) -> list[Finding]:
    findings = []
    needed = {layer.blob for layer in store.layers.all()}
    for digest, _ in store.content.walk():
        path = store.content.path(digest)
        if digest not in needed:
            findings.append(Finding(GARBAGE, f"blob {digest}", "no layer needs it", path))
        elif deep and _digest_of(path) != digest:
            findings.append(Finding(LOSS, f"blob {digest}", "content does not match the digest"))
    findings += [
        Finding(GARBAGE, f"ingest {os.path.basename(path)}", "unfinished blob", path)
        for path in store.content.leftovers()
    ]
    return findings


def _digest_of(path: str) -> str:
    with open(path, "rb", buffering=0) as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


def repair(store: Store, findings: list[Finding]) -> list[Finding]:
    """Remove the garbage among *findings* and return what is left: losses cannot be mended here."""
    for finding in findings:
        if finding.severity != GARBAGE:
            continue
        if os.path.isdir(finding.path):
            if not finding.path.startswith(store.trash.directory + "/"):
                store.trash.throw(finding.path, "garbage", "repair")
        elif finding.path:
            os.unlink(finding.path)
    store.trash.empty()
    return [finding for finding in findings if finding.severity != GARBAGE]
