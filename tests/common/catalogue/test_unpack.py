"""Archives that are as they should be, and archives made to do harm: after a refusal nothing is left."""

import bz2
import gzip
import io
import lzma
import os
import re
import stat
import struct
import tarfile
import warnings
import zipfile

import pytest

from common.catalogue.unpack import UnpackLimits, unpack
from common.errors import ConfigError, DataError

FILES = {"set/readme.txt": b"hello", "set/a/1.bin": bytes(range(256)) * 10, "set/a/b/2.bin": b"", "set/ü.txt": b"x"}
PACKERS = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}


def entry(name, data=b"x", **fields):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, data


def tar_bytes(*entries, format=tarfile.PAX_FORMAT):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=format) as tar:
        for info, data in entries:
            tar.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def zip_bytes(*entries, mode=None, compression=zipfile.ZIP_DEFLATED):
    stream = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(stream, "w", compression) as made:
        warnings.simplefilter("ignore")
        for name, data in entries:
            info = zipfile.ZipInfo(name)
            info.compress_type = compression
            if mode is not None:
                info.external_attr = mode << 16
            made.writestr(info, data)
    return stream.getvalue()


def archive(folder, name, data):
    path = folder / name
    path.write_bytes(data)
    return path


def content(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def refused(path, *says, limits=None):
    """Checks that an archive is refused with a sentence that names it, and that nothing is left of it."""
    before = sorted(p.name for p in path.parent.iterdir())
    with pytest.raises(DataError) as found:
        unpack(path, path.parent / "out" / "set", limits=limits)
    text = str(found.value)
    assert "\n" not in text
    for part in (str(path), *says):
        assert part in text, text
    (path.parent / "out").rmdir()  # empty
    assert sorted(p.name for p in path.parent.iterdir()) == before
    return text


# ------------------------------------------------------------ what goes well


@pytest.mark.parametrize("form", ["zip", "tar", "tar.gz", "tar.bz2", "tar.xz", "stored", "gnu"])
def test_every_form_comes_out_as_it_went_in(tmp_path, form):
    if form in ("zip", "stored"):
        data = zip_bytes(*FILES.items(), compression=zipfile.ZIP_STORED if form == "stored" else zipfile.ZIP_DEFLATED)
    else:
        style = tarfile.GNU_FORMAT if form == "gnu" else tarfile.PAX_FORMAT
        data = tar_bytes(*(entry(name, body) for name, body in FILES.items()), format=style)
        data = PACKERS.get(form.split(".")[-1], bytes)(data)
    path = archive(tmp_path, "download", data)  # the bytes say what it is, not the name
    assert unpack(path, tmp_path / "out") == tmp_path / "out"
    assert content(tmp_path / "out") == FILES
    assert sorted(p.name for p in tmp_path.iterdir()) == ["download", "out"]


@pytest.mark.parametrize("form", list(PACKERS))
def test_one_packed_file_comes_out_without_its_ending(tmp_path, form):
    path = archive(tmp_path, f"ratings.csv.{form}", PACKERS[form](b"user,item\n1,2\n"))
    unpack(path, tmp_path / "out")
    assert content(tmp_path / "out") == {"ratings.csv": b"user,item\n1,2\n"}


def test_an_archive_within_stays_packed(tmp_path):
    inner = gzip.compress(b"inner")
    unpack(archive(tmp_path, "a.zip", zip_bytes(("inner.gz", inner))), tmp_path / "out")
    assert content(tmp_path / "out") == {"inner.gz": inner}


def test_empty_folders_and_dots_in_paths_are_kept_plain(tmp_path):
    entries = [entry("./", b"", type=tarfile.DIRTYPE), entry("./empty", b"", type=tarfile.DIRTYPE), entry("./a//b.txt")]
    unpack(archive(tmp_path, "a.tar", tar_bytes(*entries)), tmp_path / "out")
    assert (tmp_path / "out" / "empty").is_dir()
    assert content(tmp_path / "out") == {"a/b.txt": b"x"}


@pytest.mark.parametrize("form", ["zip", "tar"])
def test_permissions_are_plain_whatever_the_archive_says(tmp_path, form):
    if form == "tar":
        folder = entry("d", b"", type=tarfile.DIRTYPE, mode=0o000)
        data = tar_bytes(folder, entry("d/x", mode=0o4777), entry("d/y", mode=0o000))
    else:
        data = zip_bytes(("d/x", b"x"), ("d/y", b"x"), mode=stat.S_IFREG | 0o4777)
    before = os.umask(0o077)
    try:
        unpack(archive(tmp_path, "a", data), tmp_path / "out")
    finally:
        os.umask(before)
    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in (tmp_path / "out").rglob("*")}
    assert modes == {"d": 0o755, "x": 0o644, "y": 0o644}


def test_names_that_differ_by_case_are_two_files(tmp_path):
    unpack(archive(tmp_path, "a.tar", tar_bytes(entry("A.txt", b"1"), entry("a.txt", b"2"))), tmp_path / "out")
    assert content(tmp_path / "out") == {"A.txt": b"1", "a.txt": b"2"}


def test_long_and_foreign_names_of_a_tar_are_kept(tmp_path):
    long = "/".join(["d" * 60] * 4) + "/file"
    for style in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        path = archive(tmp_path, "a.tar", tar_bytes(entry(long), format=style))
        unpack(path, tmp_path / str(style))
        assert content(tmp_path / str(style)) == {long: b"x"}
    latin = tar_bytes(entry("caf\udce9.jpg"), format=tarfile.GNU_FORMAT)
    unpack(archive(tmp_path, "b.tar", latin), tmp_path / "latin")
    assert os.listdir(bytes(tmp_path / "latin")) == [b"caf\xe9.jpg"]


# ------------------------------------------------- names, links, devices


BAD_NAMES = {
    "../evil": "leads out of the folder",
    "a/../../evil": "leads out of the folder",
    "a/..": "leads out of the folder",
    "/etc/evil": "has an absolute path",
    "//host/evil": "has an absolute path",
    "C:evil": "has an absolute path",
    "c:/evil": "has an absolute path",
    "a/c:evil": "has an absolute path",
    "\\evil": "has an absolute path",
    "a\\..\\evil": "has a backslash in its name",
    "a\nb": "control characters",
    "a\x1b[2Jb": "control characters",
    "a/" * 40 + "b": "lies too deep, or its name is too long",
    "n" * 256: "lies too deep, or its name is too long",
    "/".join(["n" * 250] * 5): "lies too deep, or its name is too long",
}


@pytest.mark.parametrize("form", ["zip", "tar", "tar.gz"])
@pytest.mark.parametrize("name", list(BAD_NAMES), ids=lambda name: repr(name)[:20])
def test_a_name_that_leads_elsewhere_is_refused(tmp_path, name, form):
    good = ("good.txt", b"x")
    data = zip_bytes(good, (name, b"x")) if form == "zip" else tar_bytes(entry(*good), entry(name))
    data = gzip.compress(data) if form == "tar.gz" else data
    refused(archive(tmp_path, "bad", data), BAD_NAMES[name])
    assert not list(tmp_path.parent.rglob("evil"))


def test_a_name_with_a_nul_is_refused(tmp_path):
    data = zip_bytes(("good.txt?.sh", b"x")).replace(b"good.txt?.sh", b"good.txt\0.sh")
    refused(archive(tmp_path, "bad.zip", data), "control characters")


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        (tarfile.SYMTYPE, "'bad' is a link"),
        (tarfile.LNKTYPE, "'bad' is a link"),
        (tarfile.CHRTYPE, "'bad' is a device"),
        (tarfile.BLKTYPE, "'bad' is a device"),
        (tarfile.FIFOTYPE, "'bad' is a device"),
    ],
)
@pytest.mark.parametrize("target", ["good", "/etc/passwd", ".."])
def test_a_link_or_a_device_in_a_tar_is_refused(tmp_path, kind, says, target):
    data = tar_bytes(entry("good"), entry("bad", b"", type=kind, linkname=target), entry("bad/evil"))
    refused(archive(tmp_path, "bad.tar", data), says)


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFSOCK])
def test_a_link_or_a_device_in_a_zip_is_refused(tmp_path, kind):
    refused(
        archive(tmp_path, "bad.zip", zip_bytes(("bad", b"/etc/passwd"), mode=kind | 0o777)), "is a link or a device"
    )


def test_a_sparse_file_is_refused(tmp_path):
    info, _ = entry("holes", b"")
    info.pax_headers = {"GNU.sparse.map": "0,1", "GNU.sparse.size": str(10**15), "GNU.sparse.numblocks": "1"}
    refused(archive(tmp_path, "bad.tar", tar_bytes((info, b""))), "is a sparse file")


@pytest.mark.parametrize("form", ["zip", "tar"])
@pytest.mark.parametrize(
    ("names", "says"),
    [
        (("a", "a"), "'a' is there twice"),
        (("a", "./a"), "'./a' is there twice"),
        (("a", "a/b"), "'a/b' is a folder where another entry is a file"),
        (("a/b", "a"), "'a' is there twice"),
    ],
)
def test_a_name_twice_is_refused(tmp_path, form, names, says):
    pairs = [(name, b"x") for name in names]
    data = zip_bytes(*pairs) if form == "zip" else tar_bytes(*(entry(*pair) for pair in pairs))
    refused(archive(tmp_path, "bad", data), says)


# ------------------------------------------------------------------- bombs


SMALL = UnpackLimits(size_bytes=3_000_000, ratio=20, ratio_from_bytes=100_000, entries=50)


def packed(form, data):
    if form == "zip":
        return zip_bytes(("zeros", data))
    return PACKERS[form.split(".")[-1]](tar_bytes(entry("zeros", data)) if "tar" in form else data)


@pytest.mark.parametrize("form", ["zip", "gz", "bz2", "xz", "tar.gz", "tar.xz"])
def test_a_bomb_is_refused_while_it_unpacks(tmp_path, form):
    path = archive(tmp_path, f"bomb.{form}", packed(form, bytes(2_000_000)))
    refused(path, "unpacks to more than 20 times its", "made to fill a disk", limits=SMALL)


@pytest.mark.parametrize("form", ["zip", "gz", "tar.gz"])
def test_more_bytes_than_the_limit_are_refused(tmp_path, form):
    path = archive(tmp_path, f"large.{form}", packed(form, os.urandom(1000) * 4000))
    refused(path, "unpacks to more than 3 MB, the limit", limits=UnpackLimits(size_bytes=3_000_000))


def test_many_files_that_each_look_harmless_are_counted_together(tmp_path):
    data = zip_bytes(*((f"{i}", os.urandom(50) * 2000) for i in range(40)))
    refused(archive(tmp_path, "a.zip", data), "unpacks to more than 3 MB", limits=UnpackLimits(size_bytes=3_000_000))


def test_a_small_file_may_be_packed_as_tightly_as_it_likes(tmp_path):
    unpack(archive(tmp_path, "a.gz", gzip.compress(bytes(1_000_000))), tmp_path / "out")
    assert (tmp_path / "out" / "a").stat().st_size == 1_000_000


@pytest.mark.parametrize("form", ["zip", "tar"])
def test_too_many_entries_are_refused(tmp_path, form):
    names = [f"d/{i}" for i in range(60)]
    data = zip_bytes(*((n, b"") for n in names)) if form == "zip" else tar_bytes(*(entry(n, b"") for n in names))
    refused(archive(tmp_path, "many", data), "entries", "50", limits=SMALL)


def test_a_zip_that_counts_millions_is_refused_before_its_list_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(zipfile, "ZipFile", None)
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    wide = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, 7_000_000, 7_000_000, 1, 1)
    path = archive(tmp_path, "many.zip", b"PK\3\4" + wide + end)
    refused(path, "holds 7,000,000 entries, the limit is 1,000,000")


def test_a_zip_that_counts_too_few_is_counted_again(tmp_path):
    data = zip_bytes(*((f"{i}", b"") for i in range(60)))
    at = data.rfind(b"PK\5\6")
    data = data[: at + 8] + struct.pack("<2H", 1, 1) + data[at + 12 :]
    refused(archive(tmp_path, "many.zip", data), "more than 50 entries", limits=SMALL)


def test_a_tar_header_that_asks_for_gigabytes_is_refused(tmp_path):
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 4_000_000_000
    data = info.tobuf(tarfile.GNU_FORMAT) + bytes(5_000_000)
    refused(archive(tmp_path, "a.tar.gz", gzip.compress(data)), "a header of 4,000,000,000 bytes")


def test_a_chain_of_tar_headers_without_end_is_refused(tmp_path):
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 2
    data = (info.tobuf(tarfile.GNU_FORMAT) + b"a\0".ljust(512, b"\0")) * 5000
    refused(archive(tmp_path, "a.tar.gz", gzip.compress(data)), "is damaged")


def test_a_tar_that_leads_back_into_itself_ends(tmp_path):
    info, _ = entry("x", b"")
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[124:136] = b"\xff" * 11 + b"\x00"  # a size of -256 in base 256
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header[:512])
    refused(archive(tmp_path, "a.tar", bytes(header) + bytes(1024)), "is damaged")


# ------------------------------------------------------------------- damage


def test_a_zip_that_lies_about_a_size_is_refused(tmp_path):
    data = zip_bytes(("x", b"y" * 1000))
    true, at = struct.pack("<L", 1000), data.rfind(b"PK\1\2")
    for said in (10, 999, 1001, 2_000_000_000):
        lie = data[: at + 24] + struct.pack("<L", said) + data[at + 28 :]
        assert data[at + 24 : at + 28] == true
        refused(archive(tmp_path, "lie.zip", lie), "is damaged")


def test_encrypted_files_are_refused(tmp_path):
    data = bytearray(zip_bytes(("secret", b"x" * 50)))
    data[6] |= 1
    data[data.rfind(b"PK\1\2") + 8] |= 1
    refused(archive(tmp_path, "a.zip", bytes(data)), "'secret' is encrypted")


def test_a_packing_that_python_does_not_know_is_named(tmp_path):
    data = bytearray(zip_bytes(("x", b"x" * 50)))
    data[8] = data[data.rfind(b"PK\1\2") + 10] = 97
    refused(archive(tmp_path, "a.zip", bytes(data)), "packed in a way that is not read here")


@pytest.mark.parametrize("form", ["zip", "tar", "tar.gz", "tar.bz2", "tar.xz", "gz"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.95, 0.999])
def test_a_cut_archive_is_refused(tmp_path, form, share):
    body = os.urandom(20_000)
    if form == "zip":
        data = zip_bytes(("a", body), ("b", body))
    else:
        data = body if form == "gz" else tar_bytes(entry("a", body), entry("b", body))
        data = PACKERS.get(form.split(".")[-1], bytes)(data)
    if form == "tar" and share > 0.9:  # tarfile pads with zeros: cut into the last file
        share = 0.75
    refused(archive(tmp_path, f"cut.{form}", data[: int(len(data) * share)]))


@pytest.mark.parametrize("form", ["zip", "tar.gz", "tar.xz", "gz"])
def test_a_byte_that_changed_is_found(tmp_path, form):
    body = bytes(range(256)) * 50
    data = packed(form, body) if form in ("zip", "gz") else PACKERS[form.split(".")[-1]](tar_bytes(entry("a", body)))
    for at in range(12, len(data), max(1, len(data) // 40)):
        changed = data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :]
        path = archive(tmp_path, f"a.{form}", changed)
        try:
            unpack(path, tmp_path / "out")
        except DataError as found:
            sentence = str(found)
        else:
            sentence = None
        if sentence is not None:
            assert str(path) in sentence
            assert not (tmp_path / "out").exists()
            continue
        kept = list(content(tmp_path / "out").values())  # a name, a date or a comment changed: the bytes did not
        assert kept == [body], at
        for file in sorted((tmp_path / "out").rglob("*"), reverse=True):
            file.rmdir() if file.is_dir() else file.unlink()
        (tmp_path / "out").rmdir()
    assert not list(tmp_path.glob(".*"))


def test_a_damaged_header_in_the_middle_of_a_tar_is_not_taken_for_its_end(tmp_path):
    data = bytearray(tar_bytes(entry("a", b"1"), entry("b", b"2"), format=tarfile.GNU_FORMAT))
    data[1024 + 10] ^= 1
    refused(archive(tmp_path, "a.tar", bytes(data)), "is damaged: it ends in the middle, or a header in it is damaged")


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.tar", b"hello" * 300),
        ("a.zip", b""),
        ("a.tgz", b"plain text"),
        ("a.rar", b"Rar!\x1a\x07\x01\x00"),
        ("a.bin", b"\0" * 1024),
    ],
)
def test_what_is_no_archive_is_named(tmp_path, name, data):
    refused(archive(tmp_path, name, data), "is no archive that is read here")


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.zip", zip_bytes()),
        ("a.zip", zip_bytes(("d/", b""))),
        ("a.tar.gz", gzip.compress(tar_bytes())),
        ("a.tar", tar_bytes(entry("d", b"", type=tarfile.DIRTYPE))),
    ],
    ids=["zip", "zip of a folder", "tar", "tar of a folder"],
)
def test_an_archive_without_files_is_refused(tmp_path, name, data):
    refused(archive(tmp_path, name, data), "holds no files")


def test_text_named_tar_gz_is_damaged_and_not_one_file(tmp_path):
    refused(archive(tmp_path, "a.tar.gz", gzip.compress(b"hello")), "is damaged")


# ------------------------------------------------------------------ the target


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_a_target_that_exists_is_refused_and_stays(tmp_path, kind):
    target = tmp_path / "out"
    target.mkdir() if kind == "folder" else target.symlink_to("/nowhere") if kind == "link" else target.write_text(
        "mine"
    )
    path = archive(tmp_path, "a.zip", zip_bytes(("x", b"x")))
    with pytest.raises(DataError, match=re.escape(f"{target} exists")):
        unpack(path, target)
    assert os.path.lexists(target)


def test_an_archive_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.zip"):
        unpack(tmp_path / "gone.zip", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    path = archive(tmp_path, "a.zip", zip_bytes(("x", b"x"), ("y", b"y")))

    def full(self, mode):
        raise OSError(28, "No space left on device", str(self))

    monkeypatch.setattr("common.catalogue.unpack.os.chmod", lambda path, mode: full(path, mode))
    with pytest.raises(OSError, match="No space left"):
        unpack(path, tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["a.zip"]


@pytest.mark.parametrize("name", ["size_bytes", "ratio", "entries", "depth", "name_bytes"])
def test_limits_out_of_range_are_named(name):
    with pytest.raises(ConfigError, match=name):
        UnpackLimits(**{name: 0})
