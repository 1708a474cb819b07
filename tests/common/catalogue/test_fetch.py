"""A set by its card: what the libraries' own loaders leave becomes what a recipe reads; from the web it is whole or absent."""

import gzip
import hashlib
import http.server
import io
import json
import pickle
import shutil
import struct
import sys
import tarfile
import threading
import types
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.utils import Bunch

from applications.classification import read_source
from common.catalogue.cards import Card, Licence, RemoteFile, find_card
from common.catalogue.download import DownloadOptions
from common.catalogue.fetch import NOTE, fetch
from common.errors import ConfigError, DataError

QUICK = DownloadOptions(stall_s=5, tries=2, pause_s=0, limit_bytes=1_000_000)
torchvision = pytest.importorskip("torchvision", reason="torchvision is not installed")


def card(key="toy", **fields):
    given = {"name": "Toy", "domain": ("classification",), "summary": "A toy.", "source": "https://toy.example/"}
    return Card(key=key, licence=Licence(name="MIT", asks="nothing"), **{**given, **fields})


def files(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def photo(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (8, 9, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def labels(source):
    rows = [row for _, row in source.items.iterrows()]
    return [source.get_y(row) for row in rows]


# --------------------------------------------------------------- torchvision


def test_cifars_pickles_become_pictures_in_class_folders(tmp_path, monkeypatch):
    cls = torchvision.datasets.CIFAR10
    pixels = np.random.default_rng(0).integers(0, 255, (4, 3, 32, 32), dtype=np.uint8)
    names = [f"class/{i}" for i in range(10)]

    def write(self):
        folder = tmp_path.joinpath(self.root, cls.base_folder)
        folder.mkdir(exist_ok=True)
        for i, (name, _) in enumerate(cls.train_list + cls.test_list):
            data = {"data": pixels.reshape(4, -1), "labels": [0, 1, 2, i]}
            (folder / name).write_bytes(pickle.dumps(data))
        (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": names}))

    monkeypatch.setattr(cls, "download", write)
    monkeypatch.setattr(cls, "_check_integrity", lambda self: True)
    monkeypatch.setattr(cls, "meta", {**cls.meta, "md5": None})
    found = fetch(find_card("cifar10"), tmp_path / "set")
    assert found.fresh
    assert {p.suffix for p in (tmp_path / "set").rglob("*.*")} == {".png", ".json"}  # no pickle is left
    source = read_source(found.data)
    assert dict(zip(*np.unique(source.parts, return_counts=True), strict=True)) == {"train": 20, "test": 4}
    first = np.asarray(Image.open(tmp_path / "set" / "train" / "class_0" / "00000.png"))
    np.testing.assert_array_equal(first, pixels[0].transpose(1, 2, 0))


def idx(array):
    return b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def test_idx_files_stay_and_their_packed_twins_go(tmp_path, monkeypatch):
    cls = torchvision.datasets.FashionMNIST

    def write(self):
        folder = tmp_path.joinpath(self.raw_folder)
        folder.mkdir(parents=True)
        for part, count in (("train", 6), ("t10k", 4)):
            images = np.zeros((count, 28, 28), np.uint8)
            for kind, array in (("images-idx3", images), ("labels-idx1", np.arange(count, dtype=np.uint8))):
                (folder / f"{part}-{kind}-ubyte").write_bytes(idx(array))
                (folder / f"{part}-{kind}-ubyte.gz").write_bytes(gzip.compress(idx(array)))

    monkeypatch.setattr(cls, "download", write)
    found = fetch(find_card("fashion_mnist"), tmp_path / "set")
    assert found.data == tmp_path / "set" / "FashionMNIST" / "raw"
    assert not list((tmp_path / "set").rglob("*.gz"))
    assert len(read_source(found.data).items) == 10


def test_flowers_of_102_kinds_get_a_table_of_their_files(tmp_path, monkeypatch):
    from scipy.io import savemat

    cls = torchvision.datasets.Flowers102

    def write(self):
        for i in range(1, 7):
            photo(self._images_folder / f"image_{i:05d}.jpg", i)
        savemat(self._base_folder / "imagelabels.mat", {"labels": np.array([1, 1, 2, 2, 3, 3])})
        savemat(self._base_folder / "setid.mat", {"trnid": [1, 3], "valid": [2, 4], "tstid": [5, 6]})

    monkeypatch.setattr(cls, "download", write)
    monkeypatch.setattr(cls, "_check_integrity", lambda self: True)
    found = fetch(find_card("flowers102"), tmp_path / "set")
    source = read_source(found.data)
    assert labels(source) == [cls.classes[i] for i in (0, 1, 0, 1, 2, 2)]
    assert source.parts.tolist() == ["train", "train", "valid", "valid", "test", "test"]
    assert all(Path(source.get_x(row)).is_file() for _, row in source.items.iterrows())


def test_pets_get_a_table_of_their_files(tmp_path, monkeypatch):
    cls = torchvision.datasets.OxfordIIITPet

    def write(self):
        for name in ("Abyssinian_1", "Abyssinian_2", "great_dane_7"):
            photo(self._images_folder / f"{name}.jpg")
        self._anns_folder.mkdir(parents=True, exist_ok=True)
        (self._anns_folder / "trainval.txt").write_text("Abyssinian_1 1 1 1\ngreat_dane_7 2 2 1\n")
        (self._anns_folder / "test.txt").write_text("Abyssinian_2 1 1 1\n")

    monkeypatch.setattr(cls, "_download", write)
    monkeypatch.setattr(cls, "_check_exists", lambda self: True)
    found = fetch(find_card("oxford_iiit_pet"), tmp_path / "set")
    source = read_source(found.data)
    assert source.parts.tolist() == ["train", "train", "test"]
    assert labels(source)[0] == labels(source)[2] == "Abyssinian"


def test_class_folders_stay_as_they_are(tmp_path, monkeypatch):
    cls = torchvision.datasets.Imagenette

    def write(self):
        for part in ("train", "val"):
            for wnid in ("n01440764", "n02102040"):
                photo(self._size_root / part / wnid / f"{wnid}_1.JPEG")

    monkeypatch.setattr(cls, "_download", write)
    found = fetch(find_card("imagenette"), tmp_path / "set")
    source = read_source(found.data)
    assert sorted(source.parts.tolist()) == ["train", "train", "valid", "valid"]


def test_a_set_that_no_recipe_reads_is_kept_and_says_so(tmp_path, monkeypatch):
    class Strange:
        def __init__(self, root, download=False):
            photo(tmp_path.joinpath(root, "x.png"))

    monkeypatch.setattr(torchvision.datasets, "CIFAR10", Strange)
    found = fetch(card(library="torchvision", loader="CIFAR10"), tmp_path / "set")
    assert found.data is None
    assert files(tmp_path / "set") == [NOTE, "x.png"]


@pytest.mark.parametrize(
    "fault",
    [
        RuntimeError("File not found or corrupted.\nmore"),
        OSError("HTTP Error 404"),
        ConnectionResetError(104, "reset"),
        KeyError("x"),
    ],
)
def test_a_loader_that_fails_is_one_sentence_and_leaves_nothing(tmp_path, monkeypatch, fault):
    class Failing:
        def __init__(self, root, download=False, train=True):
            photo(tmp_path.joinpath(root, "half.png"))
            raise fault

    monkeypatch.setattr(torchvision.datasets, "FashionMNIST", Failing)
    with pytest.raises(DataError) as found:
        fetch(find_card("fashion_mnist"), tmp_path / "new" / "set")
    said = str(found.value)
    assert said.startswith("fashion_mnist: torchvision's FashionMNIST failed: ")
    assert "zalandoresearch" in said
    assert "dataset-fashion-mnist" in said
    assert "\n" not in said
    assert list(tmp_path.iterdir()) == []


def test_what_a_loader_prints_goes_to_standard_error(tmp_path, monkeypatch, capsys):
    class Chatty:
        def __init__(self, root, download=False):
            print("Downloading")
            photo(tmp_path.joinpath(root, "x.png"))

    monkeypatch.setattr(torchvision.datasets, "CIFAR10", Chatty)
    fetch(card(library="torchvision", loader="CIFAR10"), tmp_path / "set")
    assert tuple(capsys.readouterr()) == ("", "Downloading\n")


# --------------------------------------------------------- torchaudio, scikit-learn


def test_torchaudios_class_folders_stay_as_they_are(tmp_path, monkeypatch):
    class Commands:
        def __init__(self, root, url="v", folder_in_archive="SpeechCommands", download=False, subset=None):
            word = tmp_path.joinpath(root, "SpeechCommands", "speech_commands_v0.02", "yes")
            word.mkdir(parents=True)
            (word / "1.wav").write_bytes(b"RIFF")

    module = types.ModuleType("torchaudio.datasets")
    module.SPEECHCOMMANDS, module.__all__ = Commands, ["SPEECHCOMMANDS"]
    monkeypatch.setitem(sys.modules, "torchaudio", types.ModuleType("torchaudio"))
    monkeypatch.setitem(sys.modules, "torchaudio.datasets", module)
    found = fetch(find_card("speech_commands"), tmp_path / "set")
    assert files(found.data) == ["yes/1.wav"]


def test_a_table_becomes_csv_with_names_for_class_numbers(tmp_path):
    found = fetch(find_card("wine"), tmp_path / "wine")
    frame = pd.read_csv(found.data)
    assert frame.shape == (178, 14)
    assert frame["target"].value_counts().to_dict() == {"class_0": 59, "class_1": 71, "class_2": 48}
    from sklearn.datasets import load_wine

    np.testing.assert_array_equal(frame.drop(columns="target").to_numpy(), load_wine().data)


def test_a_regression_table_keeps_its_target(tmp_path, monkeypatch):
    frame = pd.DataFrame({"MedInc": [1.5, 2.5], "MedHouseVal": [4.526, 3.585]})
    given = Bunch(frame=frame, data=frame[["MedInc"]], target=frame["MedHouseVal"], target_names=["MedHouseVal"])

    def fetch_california_housing(*, as_frame=False):
        assert as_frame
        return given

    monkeypatch.setattr("sklearn.datasets.fetch_california_housing", fetch_california_housing)
    found = fetch(find_card("california_housing"), tmp_path / "set")
    pd.testing.assert_frame_equal(pd.read_csv(found.data), frame)


def test_texts_become_csv_with_their_part(tmp_path, monkeypatch):
    def fetch_20newsgroups(*, subset="train"):
        return Bunch(data=[f'{subset}, "quoted"\nline'], target=np.array([1]), target_names=["a", "b"])

    monkeypatch.setattr("sklearn.datasets.fetch_20newsgroups", fetch_20newsgroups)
    found = fetch(find_card("newsgroups"), tmp_path / "set")
    rows = pd.read_csv(found.data).to_dict("records")
    assert rows == [
        {"text": 'train, "quoted"\nline', "target": "b", "split": "train"},
        {"text": 'test, "quoted"\nline', "target": "b", "split": "test"},
    ]


def test_digits_become_pictures_in_class_folders(tmp_path):
    from sklearn.datasets import load_digits

    found = fetch(find_card("digits"), tmp_path / "set")
    source = read_source(found.data)
    assert len(source.items) == 1797
    digits = load_digits()
    for i in (0, 1000, 1796):
        file = tmp_path / "set" / str(digits.target[i]) / f"{i:05}.png"
        np.testing.assert_array_equal(np.asarray(Image.open(file)), np.round(digits.images[i] * (255 / 16)))


def test_a_result_of_another_kind_is_named(tmp_path, monkeypatch):
    def load_iris():
        return Bunch(data=np.zeros((2, 2)), target=np.zeros(2))

    monkeypatch.setattr("sklearn.datasets.load_iris", load_iris)
    with pytest.raises(DataError, match="toy: scikit-learn's loader gives neither pictures, nor a table, nor texts"):
        fetch(card(library="sklearn", loader="load_iris"), tmp_path / "set")
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------- the web


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A server of the files in a dictionary, on this machine."""
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "127.0.0.1")
    made = types.SimpleNamespace(files={}, asked=[], cut={})

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            made.asked.append(self.path)
            body = made.files.get(self.path)
            self.send_response(404 if body is None else 200)
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            self.wfile.write((body or b"")[: made.cut.get(self.path)])

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()

    def remote(name, body, **more):
        made.files[f"/{name}"] = body
        return RemoteFile(
            address=f"http://127.0.0.1:{server.server_port}/{name}",
            sha256=hashlib.sha256(body).hexdigest(), size_bytes=len(body), **more,
        )  # fmt: skip

    made.remote = remote
    yield made
    server.shutdown()
    server.server_close()
    thread.join()


def tgz(names):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        for name, data in names.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def test_an_archive_from_the_web_is_unpacked_with_a_note_of_its_origin(tmp_path, served):
    file = served.remote("toy.tgz", tgz({"toy/a/1.txt": b"one", "toy/LICENSE.txt": b"MIT"}), unpack=True)
    seen = []
    toy = card(files=(file,), data="toy")
    found = fetch(toy, tmp_path / "data" / "toy", options=QUICK, progress=lambda *said: seen.append(said))
    assert files(tmp_path) == [f"data/toy/{NOTE}", "data/toy/toy/LICENSE.txt", "data/toy/toy/a/1.txt"]
    assert found.data == tmp_path / "data" / "toy" / "toy"
    assert seen[-1] == ("toy.tgz", file.size_bytes, file.size_bytes)
    note = json.loads((found.folder / NOTE).read_text())
    assert note["licence"]["name"] == "MIT"
    assert note["origin"] == {"files": [{"address": file.address, "sha256": file.sha256}]}


def test_a_set_that_is_there_is_not_fetched_again(tmp_path, served):
    toy = card(files=(served.remote("toy.tgz", tgz({"x": b"x"}), unpack=True),))
    assert fetch(toy, tmp_path / "toy", options=QUICK).fresh
    assert not fetch(toy, tmp_path / "toy", options=QUICK).fresh
    assert served.asked == ["/toy.tgz"]


def test_several_files_lie_side_by_side(tmp_path, served):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as made:
        made.writestr("x.txt", "x")
    archive = served.remote("photos.zip", stream.getvalue(), unpack=True)
    table = served.remote("labels.csv.gz", gzip.compress(b"a,b\n"))
    fetch(card(files=(archive, table)), tmp_path / "toy", options=QUICK)
    assert files(tmp_path / "toy") == [NOTE, "labels.csv.gz", "photos/x.txt"]


def test_a_cut_download_keeps_what_came_for_the_next_call(tmp_path, served):
    body = tgz({"x": bytes(range(256)) * 100})
    toy = card(
        files=(served.remote("one.tgz", tgz({"a": b"a"}), unpack=True), served.remote("two.tgz", body, unpack=True))
    )
    served.cut["/two.tgz"] = 200
    with pytest.raises(DataError, match="was cut after 200 bytes"):
        fetch(toy, tmp_path / "new" / "toy", options=QUICK)
    assert files(tmp_path / "new") == [
        "toy.download/" + n for n in ("one.tgz", "two.tgz.partial", "two.tgz.partial.json")
    ]
    served.cut.clear()
    fetch(toy, tmp_path / "new" / "toy", options=QUICK)
    assert served.asked.count("/one.tgz") == 1
    assert files(tmp_path / "new") == [f"toy/{n}" for n in (NOTE, "one/a", "two/x")]


@pytest.mark.parametrize(
    ("names", "data", "says"),
    [
        ({"../evil": b"x"}, None, "leads out of the folder"),
        ({"x": bytes(2_000_000)}, None, "unpacks to more than 1 MB"),
        ({"x": b"x"}, "elsewhere", "toy: elsewhere, which its card names, is not among what came"),
    ],
)
def test_an_archive_that_is_refused_leaves_nothing(tmp_path, served, names, data, says):
    toy = card(files=(served.remote("toy.tgz", tgz(names), unpack=True),), data=data)
    with pytest.raises(DataError, match=says):
        fetch(toy, tmp_path / "new" / "toy", options=QUICK)
    assert list(tmp_path.iterdir()) == []


def test_an_address_that_is_gone_leaves_nothing(tmp_path, served):
    file = served.remote("toy.tgz", b"x", unpack=True)
    served.files.clear()
    with pytest.raises(DataError, match=r"toy\.tgz: the server answers 404 Not Found"):
        fetch(card(files=(file,)), tmp_path / "new" / "toy", options=QUICK)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_keeps_the_verified_archive(tmp_path, served, monkeypatch):
    toy = card(files=(served.remote("toy.tgz", tgz({"x": b"x"}), unpack=True),))

    def full(archive, folder, *, limits):
        raise OSError(28, "No space left on device", str(folder / "x"))

    with monkeypatch.context() as patch:
        patch.setattr("common.catalogue.fetch.unpack_into", full)
        with pytest.raises(OSError, match="No space left"):
            fetch(toy, tmp_path / "toy", options=QUICK)
    assert files(tmp_path) == ["toy.download/toy.tgz"]
    fetch(toy, tmp_path / "toy", options=QUICK)
    assert served.asked == ["/toy.tgz"]
    assert files(tmp_path) == [f"toy/{NOTE}", "toy/x"]


# ---------------------------------------------------------- folders and limits


def test_a_folder_that_holds_something_else_is_refused_and_stays(tmp_path, served):
    toy = card(files=(served.remote("toy.tgz", tgz({"x": b"x"}), unpack=True),))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "work.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name in ("mine", "file"):
        with pytest.raises(ConfigError, match=f"{name} exists and does not hold toy"):
            fetch(toy, tmp_path / name, options=QUICK)
    fetch(toy, tmp_path / "toy", options=QUICK)
    other = card("other", files=toy.files)
    with pytest.raises(ConfigError, match="does not hold other"):
        fetch(other, tmp_path / "toy", options=QUICK)
    newer = card(files=(served.remote("toy.tgz", tgz({"x": b"newer"}), unpack=True),))
    with pytest.raises(ConfigError, match="does not hold toy as its card has it"):
        fetch(newer, tmp_path / "toy", options=QUICK)
    assert files(tmp_path / "mine") == ["work.txt"]


def test_an_empty_folder_is_taken(tmp_path):
    (tmp_path / "wine").mkdir()
    assert fetch(find_card("wine"), tmp_path / "wine").fresh


@pytest.mark.parametrize("folder", [".", "..", "/"])
def test_a_folder_without_a_name_is_refused(tmp_path, folder, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="must name a new folder"):
        fetch(find_card("wine"), Path(folder))


def test_a_download_above_the_limit_is_refused_before_it_begins(tmp_path):
    with pytest.raises(ConfigError, match=r"imagenette is a download of 1.56 GB, limit_gb allows 1"):
        fetch(find_card("imagenette"), tmp_path / "set", options=DownloadOptions(limit_bytes=10**9))
    assert list(tmp_path.iterdir()) == []


def test_a_note_that_is_damaged_is_not_believed(tmp_path):
    fetch(find_card("wine"), tmp_path / "wine")
    note = json.loads((tmp_path / "wine" / NOTE).read_text())
    for text in ("{", "[]", json.dumps({**note, "data": "../x"}), json.dumps({**note, "data": "/x"})):
        (tmp_path / "wine" / NOTE).write_text(text)
        with pytest.raises(ConfigError, match="exists and does not hold wine"):
            fetch(find_card("wine"), tmp_path / "wine")
    shutil.rmtree(tmp_path / "wine")
    assert fetch(find_card("wine"), tmp_path / "wine").fresh
