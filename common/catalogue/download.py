"""Resumable download of one file: complete and verified under its name, or a ``.partial`` for the next call.

The hash decides, not the server: a missing or wrong length, a cut connection and an ignored range cost time, but never
give a wrong file. After a failure there remain:

- for a network error or a full disk: ``NAME.partial`` and ``NAME.partial.json`` (see `PartialFile`), for the next call;
- for a wrong hash, or more bytes than allowed: nothing.

Floor: catalogue; may import train and below. Used by: recipes.
"""

import http.client
import re
import shutil
import socket
import ssl
import string
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import files
from common.catalogue.partial import PartialFile, partial_file, size_text
from common.errors import DataError, in_range

Progress = Callable[[int, int | None], None]
CHUNK = 1 << 16
STEP = 1 << 20  # after this many new bytes the count of failed tries is reset
_REDIRECTS = (301, 302, 303, 307, 308)
_PASSING = (408, 425, 429, 500, 502, 503, 504)  # status codes of temporary errors


@dataclass(frozen=True, kw_only=True)
class DownloadOptions:
    """Timeouts, retries and limits of a download.

    Attributes:
        limit_bytes: The most bytes that are read, whatever the server announces.
        stall_s: Seconds without a single byte (or without a connection) after which a try is abandoned.
        tries: Consecutive tries with less than a mebibyte each after which the download is abandoned.
        pause_s: Seconds before the second try; doubled before each further one, 30 at most.
        redirects: The most redirects that are followed in one try.
    """

    limit_bytes: int = 5_000_000_000
    stall_s: float = 30.0
    tries: int = 5
    pause_s: float = 1.0
    redirects: int = 5

    def __post_init__(self) -> None:
        in_range("limit_bytes", self.limit_bytes, 1, float("inf"))
        in_range("stall_s", self.stall_s, 0, 3600, open_low=True)
        in_range("tries", self.tries, 1, 1000)
        in_range("pause_s", self.pause_s, 0, 3600)
        in_range("redirects", self.redirects, 0, 100)


class _Again(Exception):  # noqa: N818 - no error yet: a reason to try again
    """A try failed with a temporary error, so another try may succeed."""


def download(
    url: str,
    target: Path,
    *,
    sha256: str,
    size_bytes: int | None = None,
    options: DownloadOptions | None = None,
    progress: Progress | None = None,
) -> Path:
    """Fetches a file; a file that is there already with the right hash is not fetched again.

    Args:
        url: Its http or https address.
        target: The file's path; it appears when every byte is there and the hash is right.
        sha256: The SHA-256 that the bytes must have, 64 hexadecimal digits.
        size_bytes: Their exact number, where known; no more than these are read.
        options: Timeouts, retries and limits.
        progress: Called with the received bytes and the total (or None) as they come.

    Returns:
        The target.

    Raises:
        DataError: if the address is refused or missing, the server keeps failing, or sends too much or other content.
        OSError: if the target cannot be written.
    """
    options = options or DownloadOptions()
    _check_address(url, url)
    if not re.fullmatch("[0-9a-f]{64}", sha256):
        raise DataError(f"{url}: sha256 must be 64 digits of 0-9a-f, got {sha256!r}")
    if target.is_dir():
        raise DataError(f"{target} is a folder: the file of {url} cannot have its name")
    if target.is_file() and files.sha256(target) == sha256:
        return target
    with partial_file(target, url, sha256) as part:
        _fill(part, url, size_bytes, options, progress or (lambda received, total: None))
        part.finish(target)
    return target


def _fill(part: PartialFile, url: str, size_bytes: int | None, options: DownloadOptions, progress: Progress) -> None:
    failures, mark = 0, part.size
    while not part.right:
        try:
            _try(part, url, size_bytes, options, progress)
        except _Again as reason:
            if part.right:
                return
            if part.size >= mark + STEP:
                failures, mark = 0, part.size
            failures += 1
            if failures >= options.tries:
                kept = f"; {size_text(part.size)} are kept, run again to go on" if part.size else ""
                raise DataError(f"{url}: {reason} (tried {failures} times{kept})") from reason
            time.sleep(min(30.0, options.pause_s * 2 ** (failures - 1)))
            continue
        if not part.right:
            part.discard()
            raise DataError(
                f"{url}: {size_text(part.size)} came with sha256 {part.hash.hexdigest()}, expected {part.expected}: "
                "the file was changed there, or on its way; nothing is kept"
            )


def _try(part: PartialFile, url: str, size_bytes: int | None, options: DownloadOptions, progress: Progress) -> None:
    headers = {"Accept-Encoding": "identity", "User-Agent": "cookbook"}
    if part.size and part.ranges:
        headers["Range"] = f"bytes={part.size}-"
        if part.mark:
            headers["If-Range"] = part.mark
    with _open(part, url, headers, options) as response:
        announced = _position(part, response)
        if announced is not None and announced > options.limit_bytes:
            part.discard()
            raise DataError(
                f"{url}: {size_text(announced)} are announced, the limit is {size_text(options.limit_bytes)}"
            )
        total = announced if size_bytes is None else size_bytes
        limit = min(options.limit_bytes, size_bytes or options.limit_bytes)
        free = shutil.disk_usage(part.path.parent).free
        if total is not None and min(total, limit) - part.size > free:
            raise DataError(f"{part.path.parent}: {size_text(total)} are to come, {size_text(free)} are free")
        while data := _read(response, options):
            if part.size + len(data) > limit:
                part.discard()
                what = "the limit" if limit == options.limit_bytes else "the size on its card"
                raise DataError(f"{url}: more than {size_text(limit)} came, which is {what}; nothing is kept")
            part.append(data)
            progress(part.size, total)
        if total is not None and part.size < total:
            raise _Again(f"the connection was cut after {size_text(part.size)} of {size_text(total)}")


def _position(part: PartialFile, response: http.client.HTTPResponse) -> int | None:
    """Prepares the partial file for the response's start, and returns the total size, if the response states it."""
    if response.status == 200:
        part.begin(response.headers)
        return response.length
    said = response.headers.get("Content-Range", "")
    found = re.fullmatch(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)", said)
    if response.status != 206 or not found or int(found[1]) != part.size or not part.ranges:
        part.restart(ranges=False)  # a server that cannot count is asked for everything
        raise _Again(f"asked for a range, it answers {response.status} with {said or 'no range'!r}")
    return None if found[3] == "*" else int(found[3])


def _read(response: http.client.HTTPResponse, options: DownloadOptions) -> bytes:
    try:
        return response.read1(CHUNK)
    except TimeoutError as error:
        raise _Again(f"no bytes came for {options.stall_s:g} s") from error
    except (http.client.HTTPException, OSError, ValueError) as error:
        raise _Again(f"the connection was cut ({type(error).__name__})") from error


def _open(part: PartialFile, url: str, headers: dict[str, str], options: DownloadOptions) -> http.client.HTTPResponse:
    """Returns the response of the first address that does not redirect."""
    opener = urllib.request.OpenerDirector()  # without urlopen's handlers for file:, ftp: and data: addresses
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    here = url
    for _ in range(options.redirects + 1):
        try:
            response: Any = opener.open(urllib.request.Request(here, headers=headers), timeout=options.stall_s)
            return response
        except urllib.error.HTTPError as error:
            with error:
                if error.code in _REDIRECTS:
                    here = _next_address(url, here, error.headers.get("Location"))
                    continue
                if error.code == 416:
                    part.restart(ranges=False)
                said = f"the server answers {error.code} {http.client.responses.get(error.code, '')}".rstrip()
                if error.code in (*_PASSING, 416):
                    raise _Again(said) from error
                raise DataError(f"{url}: {said}") from error
        except (OSError, http.client.HTTPException) as error:
            raise _fault(url, error, options) from error
    raise DataError(f"{url}: redirects more than {options.redirects} times, last to {here}")


def _fault(url: str, error: Exception, options: DownloadOptions) -> Exception:
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    host = urllib.parse.urlsplit(url).hostname
    if isinstance(reason, socket.gaierror):
        return DataError(f"{url}: {host} is not found (is there a network?)")
    if isinstance(reason, ssl.SSLCertVerificationError):
        return DataError(f"{url}: the certificate of {host} is not valid: {getattr(reason, 'verify_message', reason)}")
    if isinstance(reason, http.client.InvalidURL):
        return DataError(f"{url}: is not an address: {reason}")
    if isinstance(reason, TimeoutError):
        return _Again(f"no answer for {options.stall_s:g} s")
    if isinstance(reason, http.client.HTTPException):  # its text is the server's: anything, control characters too
        return _Again(f"no answer that makes sense ({type(reason).__name__})")
    return _Again(f"no answer: {str(reason) or type(reason).__name__}")


def _check_address(url: str, address: str) -> None:
    try:
        parts = urllib.parse.urlsplit(address)
        sound = bool(parts.hostname) and parts.port != 0 and address.isascii() and " " not in address
    except ValueError:
        raise DataError(f"{url}: {address!r} is not an address") from None
    if parts.scheme not in ("http", "https") or not sound:
        way = "" if address == url else f"leads to {address}: "
        raise DataError(f"{url}: {way}only http and https addresses are followed")


def _next_address(url: str, here: str, location: str | None) -> str:
    if not location:
        raise DataError(f"{url}: redirects without saying where to")
    try:
        there = urllib.parse.urljoin(here, urllib.parse.quote(location, encoding="iso-8859-1", safe=string.punctuation))
    except ValueError:
        raise DataError(f"{url}: redirects to {location!r}, which is not an address") from None
    _check_address(url, there)
    if here.startswith("https:") and not there.startswith("https:"):
        raise DataError(f"{url}: leads from https to {there}, which is not encrypted")
    return there
