"""HTTP for the builder: `ADD https://…` and remote contexts, with urllib.

Source: docs.docker.com/reference/dockerfile/#adding-files-from-a-url.
"""

from __future__ import annotations

import email.message
import email.utils
import hashlib
import http.client
import os
import re
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from typing import IO

from satsuma.base.errors import InvalidParameter, System

__all__ = ["Download", "DownloadFailed", "download", "is_git_url", "is_url"]

# A server that says nothing for this long is given up; Docker waits for ever.
_TIMEOUT_S = 60.0
_BLOCK = 1 << 18
_MAX_ERROR_BODY = 1024
_GIT_URL = re.compile(r"https?://.*\.git(#.+)?|git://.*|github\.com/.*|git@.*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Download:
    """What came: the file name the server or the URL gives (may be empty), its type, its time (0: unknown)."""

    name: str
    content_type: str
    mtime: float
    digest: str


def is_url(text: str) -> bool:
    """Tell whether *text* is fetched with HTTP."""
    return text.startswith(("http://", "https://"))


def is_git_url(text: str) -> bool:
    """Tell whether *text* names a git repository, by Docker's rules."""
    return _GIT_URL.fullmatch(text) is not None


class DownloadFailed(System):
    """The server cannot be reached, or the connection broke."""


def download(url: str, target: IO[bytes]) -> Download:
    """Fetch *url* into *target*.

    Raises:
        InvalidParameter: the URL cannot be, or the server refuses it.
        System: the connection failed.
    """
    request = urllib.request.Request(url, headers={"User-Agent": "satsuma", "Accept-Encoding": "identity"})
    digest = hashlib.sha256()
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:
            expected = answer.headers.get("Content-Length")
            size = 0
            while block := answer.read(_BLOCK):
                target.write(block)
                digest.update(block)
                size += len(block)
            if expected is not None and expected.isdecimal() and size != int(expected):
                raise System(f"error downloading {url}: unexpected EOF")
            headers = answer.headers
            path = urllib.parse.urlsplit(url).path
    except urllib.error.HTTPError as exc:
        body = exc.read(_MAX_ERROR_BODY).decode("utf-8", "replace").strip()
        message = f"failed to GET {url} with status {exc.code} {exc.reason}"
        raise InvalidParameter(f"{message}: {body}" if body else message) from None
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError) as exc:
        reason = getattr(exc, "reason", exc)
        words = (reason.strerror or str(reason)).lower() if isinstance(reason, OSError) else str(reason)
        raise DownloadFailed(f'Get "{url}": {words}') from exc
    except ValueError as exc:
        raise InvalidParameter(f"invalid URL {url}: {exc}") from None
    return Download(
        _file_name(path, headers),
        headers.get_content_type(),
        _last_modified(headers),
        f"sha256:{digest.hexdigest()}",
    )


def _file_name(path: str, headers: email.message.Message) -> str:
    name = os.path.basename(urllib.parse.unquote(path))
    if not name:
        name = os.path.basename(headers.get_filename() or "")
    return "" if name in (".", "..") or "\0" in name else name


def _last_modified(headers: email.message.Message) -> float:
    try:
        return email.utils.parsedate_to_datetime(headers.get("Last-Modified", "")).timestamp()
    except (ValueError, TypeError):
        return 0.0
