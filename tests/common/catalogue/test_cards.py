"""Cards: read, checked, found by name; a card says how its set is fetched."""

import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from common.catalogue import cards
from common.catalogue.cards import Card, Licence, cards_folder, find_card, read_card, read_cards
from common.catalogue.fetch import by_hand, fetch, find_loader
from common.errors import ConfigError, DataError

ROOT = Path(__file__).resolve().parents[3]
HASH = "0" * 64
CARD = """
name = "Toy"
domain = ["classification"]
summary = "A toy."
source = "https://toy.example/"
{more}
[licence]
name = "MIT"
asks = "nothing"
{tables}
"""


def write(folder, more="", tables="", key="toy"):
    path = folder / f"{key}.toml"
    path.write_text(CARD.format(more=more, tables=tables))
    return path


FILE = '[[files]]\naddress = "https://toy.example/{name}"\n'


# ------------------------------------------------------------------ our cards


def test_every_card_of_ours_is_sound():
    cards = read_cards()
    assert list(cards) == sorted(cards)
    assert {path.stem for path in (ROOT / "datasets").glob("*.toml")} == set(cards)
    assert all(card.key == key for key, card in cards.items())


def test_a_card_of_ours_without_sha256_is_not_fetched_by_its_address(tmp_path):
    found = [card for card in read_cards().values() if card.library is None]
    assert {card.way for card in found} == {"url", "by hand"}
    for card in found:
        assert (card.way == "url") == (bool(card.files) and all(file.sha256 for file in card.files))
        if card.way == "url":
            assert all(file.size_bytes for file in card.files), card.key
            continue
        with pytest.raises(DataError, match=f"{card.key} is fetched by hand") as said:
            fetch(card, tmp_path / "new" / "set")
        assert card.files[0].address in str(said.value)
    assert list(tmp_path.iterdir()) == []


def test_every_hash_of_ours_says_who_vouches_for_it():
    for path in sorted((ROOT / "datasets").glob("*.toml")):
        for file in tomllib.loads(path.read_text("utf-8")).get("files", []):
            assert ("sha256" in file) == ("sha256_from" in file), path.name


@pytest.mark.parametrize("key", [key for key, card in read_cards().items() if card.library == "sklearn"])
def test_scikit_learns_loaders_are_public_functions(key):
    assert find_loader(find_card(key)).__module__.startswith("sklearn.datasets")


@pytest.mark.parametrize("key", [key for key, card in read_cards().items() if card.library == "torchvision"])
def test_torchvisions_loaders_are_public_classes(key):
    pytest.importorskip("torchvision")
    assert find_loader(find_card(key)).__module__.startswith("torchvision.datasets")


def test_the_fields_of_a_card_of_ours():
    card = find_card("flowers")
    assert (card.way, card.domain, card.data, card.recipe) == (
        "url",
        ("classification",),
        "flower_photos",
        "classification",
    )
    assert card.megabytes == pytest.approx(228.813984)
    (file,) = card.files
    assert (file.file_name, file.unpack, file.size_bytes) == ("flower_photos.tgz", True, 228_813_984)
    assert find_card("newsgroups").recipe == "text-classification"
    assert find_card("cifar10").parts == {"train": {"train": True}, "test": {"train": False}}


# ------------------------------------------------------- where the cards lie


def test_a_wheel_carries_every_card():
    shipped = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]["data-files"]
    assert shipped == {"share/applications-cookbook/datasets": ["datasets/*.toml"]}


def test_a_checkout_reads_its_own_cards():
    assert cards_folder() == ROOT / "datasets"


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """The catalogue as if it lay in an environment, not beside the cards."""
    home = tmp_path / "lib" / "site-packages" / "common" / "data"
    home.mkdir(parents=True)
    monkeypatch.setattr(cards, "__file__", str(home / "cards.py"))
    return tmp_path


def test_an_installed_package_finds_the_cards_that_its_wheel_brought(installed, monkeypatch):
    share = installed / "share" / "applications-cookbook" / "datasets"
    share.mkdir(parents=True)
    write(share)
    entry = metadata.PackagePath("../../share/applications-cookbook/datasets/toy.toml")
    entry.dist = metadata.PathDistribution(installed / "lib" / "site-packages" / "x.dist-info")
    monkeypatch.setattr(cards.metadata, "files", lambda name: [entry])
    assert cards_folder() == share
    assert list(read_cards()) == ["toy"]


def test_cards_that_are_nowhere_are_one_sentence(installed, monkeypatch):
    def absent(name):
        raise metadata.PackageNotFoundError(name)

    for files in (lambda name: [], lambda name: None, absent):
        monkeypatch.setattr(cards.metadata, "files", files)
        with pytest.raises(DataError, match="the cards of the data sets are not installed"):
            read_cards()


def test_a_folder_without_cards_is_named(tmp_path):
    with pytest.raises(DataError, match=f"{tmp_path} holds no cards"):
        read_cards(tmp_path)


# ------------------------------------------------------------- found by name


@pytest.mark.parametrize(
    ("typed", "says"), [("flower", "did you mean 'flowers'"), ("cifar", "did you mean 'cifar10'"), ("x", "known: ")]
)
def test_a_wrong_name_answers_with_the_near_ones(typed, says):
    with pytest.raises(ConfigError, match=f"there is no data set '{typed}': {says}"):
        find_card(typed)


@pytest.mark.parametrize("typed", ["../flowers", "/etc/passwd", "flowers.toml", ""])
def test_a_name_is_never_a_path(typed):
    with pytest.raises(ConfigError, match="there is no data set"):
        find_card(typed)


# ------------------------------------------------------------ how it is fetched


@pytest.mark.parametrize(
    ("more", "tables", "way"),
    [
        ('torchvision = "CIFAR10"', "", "torchvision"),
        ('torchaudio = "YESNO"', "", "torchaudio"),
        ('sklearn = "load_wine"', "", "sklearn"),
        ("", "", "by hand"),
        ('debian = "dataset-toy"', "", "by hand"),
        ("", FILE.format(name="a.zip"), "by hand"),
        ("", FILE.format(name="a.zip") + f'sha256 = "{HASH}"', "url"),
        ("", FILE.format(name="a.zip") + f'sha256 = "{HASH}"\n' + FILE.format(name="b.zip"), "by hand"),
        ('sklearn = "load_wine"', FILE.format(name="a.zip") + f'sha256 = "{HASH}"', "sklearn"),
    ],
)
def test_the_way_follows_from_the_fields(tmp_path, more, tables, way):
    assert read_card(write(tmp_path, more, tables)).way == way


def test_what_is_fetched_by_hand_is_told_where_to_find():
    card = Card(
        key="toy", name="Toy", domain=("nlp",), summary="x", source="https://toy.example/", debian="dataset-toy",
        licence=Licence(name="MIT", asks="nothing"),
    )  # fmt: skip
    assert by_hand(card).endswith("see https://toy.example/, or install Debian's dataset-toy")


@pytest.mark.parametrize(
    ("name", "unpack"),
    [("a.zip", True), ("a.TGZ", True), ("a.tar.xz", True), ("a.csv", False), ("a.csv.gz", False), ("a.zip?dl=1", True)],
)
def test_archives_are_unpacked_and_packed_tables_stay(tmp_path, name, unpack):
    card = read_card(write(tmp_path, tables=FILE.format(name=name)))
    assert card.files[0].unpack == unpack
    said = read_card(write(tmp_path, tables=FILE.format(name=name) + f"unpack = {str(not unpack).lower()}"))
    assert said.files[0].unpack != unpack


# ------------------------------------------------------------- cards at fault


@pytest.mark.parametrize(
    ("more", "tables", "says"),
    [
        ("x = [", "", "is not TOML"),
        ('torchvison = "CIFAR10"', "", "there is no field 'torchvison': did you mean 'torchvision'"),
        ("notes = 3", "", "notes has a value of the wrong kind: 3"),
        ("download_mb = true", "", "download_mb has a value of the wrong kind: True"),
        ('torchvision = "A"\nsklearn = "load_b"', "", "torchvision and sklearn both fetch it"),
        ('data = "../elsewhere"', "", "data must lie below the set's folder, got '../elsewhere'"),
        ('data = "/etc"', "", "data must lie below the set's folder"),
        ("", "[counts]\ntrain = 0", "counts.train must be a whole number above 0, got 0"),
        ("", "[parts]\ntrain = { train = true }", "no library is named"),
        ('sklearn = "load_wine"', "[parts]\nlearn = {}", "parts.learn must be one of train, valid, test"),
        ('sklearn = "load_wine"', "[parts]\ntrain = 3", "parts.train must be one of"),
        ('sklearn = "load_wine"', "[parts]\ntrain = { a = [1] }", "hold plain arguments"),
        ("files = [3]", "", "files[0] must be a table, got 3"),
        ("", '[[files]]\nform = "zip"', "files[0]: the field 'address' is missing"),
        ("", '[[files]]\naddress = "file:///etc/passwd"', "address must begin with http:// or https://"),
        ("", '[[files]]\naddress = "https://toy.example/"', "address must end in a file name"),
        ("", '[[files]]\naddress = "https://toy.example/.."', "address must end in a file name"),
        ("", FILE.format(name="a.zip") + 'sha256 = "abc"', "sha256 must be 64 digits of 0-9a-f, got 'abc'"),
        ("", FILE.format(name="a.zip") + 'md5 = "abc"', "files[0]: there is no field 'md5'"),
        ("", FILE.format(name="a.zip") + FILE.format(name="sub/a.zip"), "two of its files have one name"),
    ],
)
def test_a_card_at_fault_is_named_with_its_field(tmp_path, more, tables, says):
    path = write(tmp_path, more, tables)
    with pytest.raises(DataError) as found:
        read_card(path)
    assert str(found.value).startswith(str(path))
    assert says in str(found.value)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("field", ["name", "domain", "summary", "source", "licence"])
def test_a_card_that_lacks_a_field_is_named(tmp_path, field):
    text = "\n".join(line for line in CARD.format(more="", tables="").splitlines() if not line.startswith(f"{field} ="))
    text = text.replace("[licence]", "[citation]").replace('asks = "nothing"', "") if field == "licence" else text
    if field == "name":
        text = text.replace("[licence]\n", '[licence]\nname = "MIT"\n')
    path = tmp_path / "toy.toml"
    path.write_text(text)
    with pytest.raises(DataError, match=f"the field '{field}' is missing"):
        read_card(path)


@pytest.mark.parametrize("domain", ['["vision"]', "[]"])
def test_a_domain_that_is_none_is_named(tmp_path, domain):
    path = write(tmp_path)
    path.write_text(path.read_text().replace('["classification"]', domain))
    with pytest.raises(DataError, match="domain"):
        read_card(path)


@pytest.mark.parametrize(
    ("more", "tables", "says"),
    [
        ('sklearn = "load_wien"', "", "has no loader 'load_wien': did you mean 'load_wine'"),
        ('sklearn = "_base"', "", "has no loader '_base'"),
        ('sklearn = "make_blobs"', "", "has no loader 'make_blobs'"),
        ('sklearn = "os.system"', "", "has no loader 'os.system'"),
        ('sklearn = "load_wine"', "[parts]\ntrain = { subst = 1 }", "load_wine takes no 'subst'"),
        ('sklearn = "fetch_20newsgroups"', '[parts]\ntrain = { data_home = "/" }', "takes no 'data_home'"),
        ('torchvision = "CIFAR11"', "", "has no loader 'CIFAR11': did you mean 'CIFAR10'"),
        ('torchvision = "utils"', "", "has no loader 'utils'"),
        ('torchvision = "CIFAR10"', '[parts]\ntrain = { root = "/" }', "CIFAR10 takes no 'root'"),
    ],
)
def test_a_loader_that_is_not_public_is_refused(tmp_path, more, tables, says):
    if "torchvision" in more:
        pytest.importorskip("torchvision")
    card = read_card(write(tmp_path, more, tables))
    with pytest.raises(DataError) as found:
        fetch(card, tmp_path / "out")
    assert says in str(found.value)
    assert not (tmp_path / "out").exists()


def test_a_library_that_is_not_installed_is_named_with_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torchaudio.datasets", None)
    card = read_card(write(tmp_path, 'torchaudio = "YESNO"'))
    with pytest.raises(
        ConfigError, match=r"toy is fetched by torchaudio.*pip install 'applications-cookbook\[audio\]'"
    ):
        fetch(card, tmp_path / "out")
