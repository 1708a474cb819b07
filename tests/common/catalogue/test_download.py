"""A download against a server on this machine that cuts, stalls, lies about sizes, redirects and changes its mind."""

import contextlib
import errno
import hashlib
import http.server
import json
import os
import re
import socket
import ssl
import threading
import time
import urllib.error
from dataclasses import dataclass, field

import pytest

from common.catalogue import download as module
from common.catalogue.download import DownloadOptions, download
from common.catalogue.partial import PartialFile, size_text
from common.errors import ConfigError, DataError

BODY = bytes(range(256)) * 400  # 102,400 bytes
HASH = hashlib.sha256(BODY).hexdigest()
QUICK = DownloadOptions(stall_s=5.0, tries=4, pause_s=0.0, limit_bytes=1_000_000)
NAME = "data.bin"


@dataclass
class Site:
    """What the server answers, and what it was asked.

    Each of ``plan`` answers one request, the last one all further ones; it writes to the handler.
    """

    plan: list = field(default_factory=list)
    asked: list = field(default_factory=list)
    release: threading.Event = field(default_factory=threading.Event)
    url: str = ""


@pytest.fixture
def site(monkeypatch):
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "127.0.0.1,localhost")
    made = Site()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            made.asked.append((self.path, dict(self.headers)))
            answer = made.plan[min(len(made.asked), len(made.plan)) - 1]
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                answer(self)
            self.close_connection = True

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    made.url = f"http://127.0.0.1:{server.server_port}/{NAME}"
    yield made
    made.release.set()
    server.shutdown()
    server.server_close()
    thread.join()


# ------------------------------------------------------------------ answers


def whole(body=BODY, status=200, send=None, **headers):
    """Answers with headers, and with a body of which only ``send`` bytes come."""

    def answer(handler):
        given = {"Content-Length": str(len(body)), **{k.replace("_", "-"): v for k, v in headers.items()}}
        handler.send_response(status)
        for name, value in given.items():
            if value is not None:
                handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body if send is None else body[:send])

    return answer


def ranged(body=BODY, send=None, etag='"one"', says=None):
    """Answers a range with 206 (if If-Range fits), else everything; only ``send`` bytes come."""

    def answer(handler):
        asked = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
        if not asked or handler.headers.get("If-Range", etag) != etag:
            return whole(body, send=send, ETag=etag)(handler)
        start = int(asked[1])
        if start >= len(body):
            return whole(b"", 416)(handler)
        said = says or f"bytes {start}-{len(body) - 1}/{len(body)}"
        return whole(body[start:], 206, send=send, ETag=etag, Content_Range=said)(handler)

    return answer


def status(code, **headers):
    return whole(b"no", code, **headers)


def to(address, code=302):
    return whole(b"", code, Location=address)


def wait(site, after=0):
    """Announces everything, sends so much, then nothing until the test ends."""

    def answer(handler):
        whole(send=after)(handler)
        handler.wfile.flush()
        site.release.wait(20)

    return answer


def raw(data):
    def answer(handler):
        handler.wfile.write(data)

    return answer


def endless(handler):
    handler.send_response(200)
    handler.end_headers()
    for _ in range(10_000):
        handler.wfile.write(bytes(65536))


# ------------------------------------------------------------------- asking


def get(site, folder, *, sha256=HASH, options=QUICK, **more):
    return download(site.url, folder / NAME, sha256=sha256, options=options, **more)


def refused(site, folder, *says, **more):
    """Checks that a download fails with a sentence that names the address, and returns it."""
    with pytest.raises(DataError) as found:
        get(site, folder, **more)
    text = str(found.value)
    assert "\n" not in text
    for part in (site.url, *says):
        assert part in text, text
    assert not (folder / NAME).exists()
    return text


def left(folder):
    return sorted(path.name for path in folder.iterdir())


def ranges(site):
    return [headers.get("Range") for _, headers in site.asked]


KEPT = [f"{NAME}.partial", f"{NAME}.partial.json"]


# ------------------------------------------------------------ what goes well


def test_a_file_comes_whole_and_alone(site, tmp_path):
    site.plan = [whole()]
    seen = []
    path = get(site, tmp_path, progress=lambda received, total: seen.append((received, total)))
    assert path.read_bytes() == BODY
    assert left(tmp_path) == [NAME]
    assert path.stat().st_mode & 0o777 == 0o644
    assert seen[-1] == (len(BODY), len(BODY))
    assert seen == sorted(seen)


def test_a_verified_file_is_not_fetched_again(site, tmp_path):
    site.plan = [whole()]
    get(site, tmp_path)
    get(site, tmp_path)
    assert len(site.asked) == 1


def test_a_file_with_another_hash_is_fetched_and_takes_its_place(site, tmp_path):
    (tmp_path / NAME).write_bytes(b"damaged")
    site.plan = [whole()]
    assert get(site, tmp_path).read_bytes() == BODY
    assert left(tmp_path) == [NAME]


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(whole(Content_Length=None), id="absent"),
        pytest.param(whole(Content_Length="nonsense"), id="no number"),
        pytest.param(whole(Content_Length="-5"), id="negative"),
        pytest.param(whole(Content_Length="200000"), id="too large"),
    ],
)
def test_a_wrong_length_does_not_keep_the_right_bytes_out(site, tmp_path, answer):
    site.plan = [answer]
    assert get(site, tmp_path).read_bytes() == BODY
    assert left(tmp_path) == [NAME]


def test_chunks_are_read(site, tmp_path):
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (BODY[:7], BODY[7:50_000], BODY[50_000:]))
    site.plan = [raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n")]
    assert get(site, tmp_path).read_bytes() == BODY


def test_a_redirect_is_followed_five_times(site, tmp_path):
    site.plan = [*(to(f"/step{i}", code) for i, code in enumerate((301, 302, 303, 307, 308))), whole()]
    assert get(site, tmp_path).read_bytes() == BODY
    assert [path for path, _ in site.asked] == [f"/{NAME}", *(f"/step{i}" for i in range(5))]


@pytest.mark.parametrize("code", [408, 429, 500, 502, 503, 504])
def test_a_passing_fault_is_tried_again(site, tmp_path, code):
    site.plan = [status(code), status(code), whole()]
    assert get(site, tmp_path).read_bytes() == BODY
    assert len(site.asked) == 3


# ----------------------------------------------------------- cut and resumed


def test_a_cut_download_goes_on_where_it_stopped(site, tmp_path):
    site.plan = [ranged(send=30_000), ranged(send=20_000), ranged()]
    assert get(site, tmp_path).read_bytes() == BODY
    assert ranges(site) == [None, "bytes=30000-", "bytes=50000-"]
    assert [headers.get("If-Range") for _, headers in site.asked] == [None, '"one"', '"one"']
    assert left(tmp_path) == [NAME]


def test_the_next_call_goes_on_where_the_last_one_gave_up(site, tmp_path):
    site.plan = [ranged(send=10_000), status(503)]
    said = refused(site, tmp_path, "503", "tried 4 times", "10 kB are kept")
    assert "run again to go on" in said
    assert left(tmp_path) == KEPT
    site.plan = [ranged()]
    assert get(site, tmp_path).read_bytes() == BODY
    assert ranges(site)[-1] == "bytes=10000-"
    assert left(tmp_path) == [NAME]


def test_a_partial_file_that_is_already_whole_needs_no_server(site, tmp_path):
    (tmp_path / KEPT[0]).write_bytes(BODY)
    (tmp_path / KEPT[1]).write_text(json.dumps({"url": site.url, "sha256": HASH, "mark": None}))
    get(site, tmp_path)
    assert site.asked == []
    assert left(tmp_path) == [NAME]


@pytest.mark.parametrize("note", ["", "[]", '{"url": "http://elsewhere/x", "sha256": "0", "mark": null}'])
def test_a_partial_file_of_something_else_is_dropped(site, tmp_path, note):
    (tmp_path / KEPT[0]).write_bytes(b"of another set")
    (tmp_path / KEPT[1]).write_text(note)
    site.plan = [ranged()]
    assert get(site, tmp_path).read_bytes() == BODY
    assert ranges(site) == [None]


def test_a_server_that_ignores_ranges_is_read_from_the_start(site, tmp_path):
    site.plan = [whole(send=30_000), whole()]
    assert get(site, tmp_path).read_bytes() == BODY
    assert ranges(site) == [None, "bytes=30000-"]


def test_a_file_that_changed_between_two_tries_is_read_from_the_start(site, tmp_path):
    older = bytes(len(BODY))
    site.plan = [ranged(older, send=30_000, etag='"older"'), ranged()]
    assert get(site, tmp_path).read_bytes() == BODY
    assert [headers.get("If-Range") for _, headers in site.asked] == [None, '"older"']


def test_a_weak_mark_is_not_used_and_a_date_is(site, tmp_path):
    site.plan = [whole(send=9000, ETag='W/"weak"', Last_Modified="Mon, 01 Jan 2024 00:00:00 GMT"), whole()]
    get(site, tmp_path)
    assert site.asked[1][1]["If-Range"] == "Mon, 01 Jan 2024 00:00:00 GMT"


@pytest.mark.parametrize(
    "says",
    ["bytes 0-102399/102400", "bytes 30001-102399/102400", "bytes */102400", "nonsense", "bytes 30000-9" + "9" * 30],
)
def test_a_wrong_range_is_not_stitched_in_but_all_read_anew(site, tmp_path, says):
    site.plan = [ranged(send=30_000), ranged(says=says), ranged()]
    assert get(site, tmp_path).read_bytes() == BODY
    assert ranges(site) == [None, "bytes=30000-", None]


def test_a_range_that_cannot_be_met_begins_anew(site, tmp_path):
    site.plan = [whole(BODY[:500], Content_Length="900"), status(416), ranged()]
    assert get(site, tmp_path).read_bytes() == BODY
    assert ranges(site) == [None, "bytes=500-", None]


def test_a_server_that_always_cuts_is_given_up_after_the_tries(site, tmp_path):
    site.plan = [whole(send=100)]
    said = refused(site, tmp_path, "the connection was cut after 100 bytes of 102 kB", "tried 4 times")
    assert "run again" in said
    assert len(site.asked) == 4
    assert left(tmp_path) == KEPT


def test_tries_are_counted_anew_after_a_mebibyte(site, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "STEP", 1000)
    site.plan = [ranged(send=2000)] * 60
    assert get(site, tmp_path).read_bytes() == BODY
    assert len(site.asked) == 52


def test_a_length_that_is_too_small_is_made_up_for_by_ranges_where_the_card_knows_the_size(site, tmp_path):
    site.plan = [whole(Content_Length="1000", ETag='"one"'), ranged()]
    assert get(site, tmp_path, size_bytes=len(BODY)).read_bytes() == BODY


# ------------------------------------------------------------------- stalls


@pytest.mark.parametrize("after", [0, 5000])
def test_a_server_that_stalls_is_given_up(site, tmp_path, after):
    site.plan = [wait(site, after)]
    started = time.perf_counter()
    quick = DownloadOptions(stall_s=0.1, tries=2, pause_s=0)
    refused(site, tmp_path, "no bytes came for 0.1 s", options=quick)
    assert time.perf_counter() - started < 3
    assert left(tmp_path) == (KEPT if after else [])


def test_a_server_that_never_answers_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/x"
        with pytest.raises(DataError, match=re.escape(f"{url}: no answer for 0.1 s (tried 2 times)")):
            download(url, tmp_path / "x", sha256=HASH, options=DownloadOptions(stall_s=0.1, tries=2, pause_s=0))
    assert left(tmp_path) == []


def test_the_pause_grows_and_has_an_end(site, tmp_path, monkeypatch):
    pauses = []
    monkeypatch.setattr(module.time, "sleep", pauses.append)
    site.plan = [status(500)]
    refused(site, tmp_path, options=DownloadOptions(tries=8, pause_s=1))
    assert pauses == [1, 2, 4, 8, 16, 30, 30]


# ------------------------------------------------------------------ refusals


def test_a_wrong_hash_leaves_nothing(site, tmp_path):
    site.plan = [whole(BODY[:-1] + b"!")]
    refused(site, tmp_path, "sha256", HASH, "nothing is kept")
    assert left(tmp_path) == []
    assert len(site.asked) == 1


def test_a_length_that_is_too_small_is_a_wrong_hash(site, tmp_path):
    site.plan = [whole(Content_Length="1000")]
    refused(site, tmp_path, "1 kB came with sha256")
    assert left(tmp_path) == []


def test_a_length_above_the_limit_is_refused_before_a_byte_is_read(site, tmp_path):
    site.plan = [whole(Content_Length="9000000000")]
    refused(site, tmp_path, "9 GB are announced, the limit is 1 MB")
    assert left(tmp_path) == []


@pytest.mark.parametrize("answer", [endless, whole(Content_Length="10")], ids=["endless", "announced small"])
def test_no_more_than_the_limit_is_read_whatever_is_announced(site, tmp_path, answer):
    site.plan = [answer]
    said = refused(site, tmp_path)
    assert ("more than 1 MB came" in said) == (answer is endless)
    assert left(tmp_path) == []


def test_no_more_than_the_size_on_the_card_is_read(site, tmp_path):
    site.plan = [whole(BODY + b"!", Content_Length=None)]
    refused(site, tmp_path, "more than 102 kB came, which is the size on its card", size_bytes=len(BODY))
    assert left(tmp_path) == []


@pytest.mark.parametrize("code", [304, 400, 401, 403, 404, 410, 451, 505])
def test_an_answer_that_stays_is_not_tried_again(site, tmp_path, code):
    site.plan = [status(code)]
    refused(site, tmp_path, f"the server answers {code}")
    assert len(site.asked) == 1
    assert left(tmp_path) == []


def test_a_redirect_that_goes_round_is_given_up(site, tmp_path):
    site.plan = [to(site.url)]
    refused(site, tmp_path, "redirects more than 5 times")
    assert len(site.asked) == 6
    assert left(tmp_path) == []


@pytest.mark.parametrize(
    "address",
    [
        "file:///etc/passwd",
        "ftp://127.0.0.1/x",
        "data:text/plain,x",
        "gopher://127.0.0.1/",
        "http://:80/",
        "http://[::1/x",
    ],
)
def test_a_redirect_to_what_is_no_web_address_is_refused(site, tmp_path, address):
    site.plan = [to(address)]
    refused(site, tmp_path)
    assert len(site.asked) == 1
    assert left(tmp_path) == []


def test_a_redirect_without_a_place_is_refused(site, tmp_path):
    site.plan = [whole(b"", 302)]
    refused(site, tmp_path, "redirects without saying where to")


def test_a_redirect_from_https_to_http_is_refused():
    with pytest.raises(DataError, match="https://a.example/x: leads from https to http://a.example/y, which is not"):
        module._next_address("https://a.example/x", "https://a.example/x", "http://a.example/y")
    assert module._next_address("u", "https://a.example/x", "/y z") == "https://a.example/y%20z"
    assert module._next_address("u", "http://a.example/x", "https://b.example/") == "https://b.example/"


@pytest.mark.parametrize(
    "garbage",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzzz\r\nnonsense\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffff\r\nshort",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"",
    ],
    ids=["chunk size", "chunk cut", "headers", "no http", "nothing"],
)
def test_garbage_is_given_up_after_the_tries(site, tmp_path, garbage):
    site.plan = [raw(garbage)]
    refused(site, tmp_path, "tried 4 times")
    assert len(site.asked) == 4
    assert set(left(tmp_path)) <= set(KEPT)


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://h/x", "/etc/passwd", "http:///x", "http://h:0/", "http://h/a b"]
)
def test_an_address_of_another_kind_is_refused(tmp_path, url):
    with pytest.raises(DataError) as found:
        download(url, tmp_path / "x", sha256=HASH)
    assert url in str(found.value)
    assert left(tmp_path) == []


def test_a_host_that_is_not_found_is_named_at_once(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")

    def unknown(*_, **__):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(DataError, match="nowhere.example is not found .is there a network"):
        download("http://nowhere.example/x", tmp_path / "x", sha256=HASH)
    assert left(tmp_path) == []


def test_a_certificate_that_is_not_valid_is_not_tried_again():
    fault = urllib.error.URLError(ssl.SSLCertVerificationError("self-signed certificate"))
    found = module._fault("https://a.example/x", fault, QUICK)
    assert isinstance(found, DataError)
    assert "the certificate of a.example is not valid" in str(found)


def test_a_port_that_nobody_listens_on_is_given_up_after_the_tries(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(DataError, match=r"no answer: .*refused \(tried 4 times\)"):
        download(f"http://127.0.0.1:{port}/x", tmp_path / "x", sha256=HASH, options=QUICK)
    assert left(tmp_path) == []


@pytest.mark.parametrize("sha256", ["", HASH.upper(), HASH[:-1], "md5"])
def test_a_hash_that_is_none_is_refused(site, tmp_path, sha256):
    refused(site, tmp_path, "sha256 must be 64 digits", sha256=sha256)
    assert site.asked == []


@pytest.mark.parametrize(
    "wrong",
    [{"limit_bytes": 0}, {"stall_s": 0}, {"tries": 0}, {"pause_s": -1}, {"redirects": -1}, {"stall_s": float("nan")}],
)
def test_options_out_of_range_are_named(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        DownloadOptions(**wrong)


# ---------------------------------------------------------- the disk, others


def test_a_disk_that_fills_up_keeps_what_came(site, tmp_path, monkeypatch):
    site.plan = [ranged(send=30_000), ranged()]
    append, calls = PartialFile.append, []

    def full_later(part, data):
        calls.append(part.size)
        if part.size >= 30_000:
            raise OSError(errno.ENOSPC, "No space left on device")
        append(part, data)

    monkeypatch.setattr(PartialFile, "append", full_later)
    with pytest.raises(DataError) as found:
        get(site, tmp_path)
    assert str(found.value).startswith(
        f"{tmp_path / NAME}: the disk is full: free some space and run again; about 30 kB have come and are kept in"
    )
    assert left(tmp_path) == KEPT
    monkeypatch.setattr(PartialFile, "append", append)
    assert get(site, tmp_path).read_bytes() == BODY
    assert ranges(site)[-1] == "bytes=30000-"


def test_a_disk_without_room_is_found_out_before_the_bytes_come(site, tmp_path, monkeypatch):
    site.plan = [whole()]
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1000})())
    with pytest.raises(DataError, match=r"102 kB are to come, 1 kB are free"):
        get(site, tmp_path)
    assert left(tmp_path) == []


def test_two_processes_do_not_write_one_file(site, tmp_path):
    fcntl = pytest.importorskip("fcntl")
    (tmp_path / KEPT[0]).write_bytes(b"theirs")
    with open(tmp_path / KEPT[0], "r+b") as theirs:
        fcntl.flock(theirs, fcntl.LOCK_EX)
        with pytest.raises(DataError, match="another process is downloading it"):
            get(site, tmp_path)
    assert (tmp_path / KEPT[0]).read_bytes() == b"theirs"
    assert site.asked == []


def test_a_target_that_is_a_folder_is_named(site, tmp_path):
    (tmp_path / NAME).mkdir()
    with pytest.raises(DataError, match=f"{NAME} is a folder"):
        get(site, tmp_path)


def test_ctrl_c_keeps_what_came(site, tmp_path):
    site.plan = [ranged(), ranged()]

    def stop(received, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        get(site, tmp_path, progress=stop)
    assert left(tmp_path) == KEPT
    kept = os.path.getsize(tmp_path / KEPT[0])
    assert 0 < kept <= len(BODY)
    assert get(site, tmp_path).read_bytes() == BODY


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 bytes"), (999, "999 bytes"), (1000, "1 kB"), (999_600, "1 MB"), (2.5e9, "2.5 GB")]
)
def test_sizes_in_words(size, text):
    assert size_text(size) == text
