"""``cookbook data`` as a person types it: the list, a set that installed packages carry, one from a server, mistakes."""

import hashlib
import http.server
import io
import json
import re
import sys
import tarfile
import threading

import pytest
from PIL import Image

from common.catalogue import cards as catalogue
from common.catalogue.cards import read_cards

OK_PREFIX = "cookbook: error: "
CARD = """
name = "Toy photos"
domain = ["classification"]
summary = "A toy."
source = "https://toy.example/"
data = "toy"
[licence]
name = "CC BY 4.0"
spdx = "CC-BY-4.0"
asks = "attribution"
[counts]
all = 24
[[files]]
address = "{address}"
sha256 = "{sha256}"
size_bytes = {size}
"""


def archive():
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        for i in range(24):
            picture = io.BytesIO()
            Image.new("RGB", (20, 20), (200, 10 * i, 0) if i % 2 else (0, 10 * i, 200)).save(picture, "PNG")
            info = tarfile.TarInfo(f"toy/{'red' if i % 2 else 'blue'}/{i}.png")
            info.size = picture.tell()
            tar.addfile(info, io.BytesIO(picture.getvalue()))
    return stream.getvalue()


@pytest.fixture
def toy(tmp_path_factory, monkeypatch):
    """One card, of an archive that a server on this machine has."""
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "127.0.0.1")
    body = archive()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    cards = tmp_path_factory.mktemp("cards")
    address = f"http://127.0.0.1:{server.server_port}/toy.tgz"
    sha256 = hashlib.sha256(body).hexdigest()
    (cards / "toy.toml").write_text(CARD.format(address=address, sha256=sha256, size=len(body)))
    monkeypatch.setattr(catalogue, "cards_folder", lambda: cards)
    yield cards
    server.shutdown()
    server.server_close()
    thread.join()


def left(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def sentence(found):
    code, out, err = found
    assert code not in (0, None)
    assert out == ""
    (line,) = err.strip().splitlines()
    assert line.startswith(OK_PREFIX)
    assert "COOKBOOK_DEBUG" not in line
    return line


# ---------------------------------------------------------------------- list


def test_list_has_a_line_for_every_card(here):
    code, out, err = here("data", "list")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].split() == ["name", "domain", "size", "licence", "how"]
    assert [line.split()[0] for line in lines[1:]] == list(read_cards())
    (flowers,) = (line for line in lines if line.startswith("flowers "))
    for part in ("classification", "3,670 (229 MB)", "CC BY 2.0", "by address, checked by sha256"):
        assert part in flowers
    assert any("torchvision CIFAR10" in line for line in lines)
    assert any(re.search(r"by hand: https://\S+$", line) for line in lines)


def test_list_as_json_has_the_same_sets(here):
    code, out, _ = here("data", "list", "--json")
    assert code == 0
    records = json.loads(out)
    assert [record["name"] for record in records] == list(read_cards())
    for record in records:
        assert record["licence"]
        assert record["asks"]
        assert record["items"] > 0
        assert record["way"] in ("torchvision", "torchaudio", "sklearn", "url", "by hand")


def test_help_and_its_parts_load_nothing_heavy(here):
    import subprocess

    code = "import sys, recipes.cli; recipes.cli._parser(); print(*sorted(m for m in sys.modules if '.' not in m))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "numpy", "rich", "urllib3", "tomllib", "http", "zipfile"} & set(loaded)
    for verb in (["data"], ["data", "list"], ["data", "get"]):
        done, out, _ = here(*verb, "--help")
        assert done == 0
        assert f"cookbook {' '.join(verb)}" in out


# ----------------------------------------------------------------------- get


def test_get_says_where_it_lies_what_it_asks_and_how_to_use_it(here, toy, tmp_path):
    code, out, err = here("data", "get", "toy")
    assert code == 0, err
    assert out.splitlines() == [
        "Toy photos lies in data/toy",
        "licence: CC BY 4.0 (CC-BY-4.0): attribution",
        "use it: cookbook run classification --data data/toy/toy",
    ]
    assert re.fullmatch(r"toy\.tgz: \d+ bytes in \d+\.\d s\n", err)  # no terminal here: one line
    assert len(left(tmp_path)) == 25
    code, out, err = here("data", "get", "toy")
    assert (code, err) == (0, "")
    assert out.startswith("Toy photos was there already in data/toy\n")


def test_the_line_that_get_prints_runs(here, toy, tmp_path):
    import shlex

    _, out, _ = here("data", "get", "toy", "--to", "my photos")
    command = shlex.split(out.splitlines()[-1].removeprefix("use it: cookbook "))
    assert command[-1] == "my photos/toy"
    code, _, err = here(*command, "--size", 16, "--epochs", 1, "--quick", "--out", "run")
    assert code == 0, err
    assert (tmp_path / "run" / "bundle").is_dir()


def test_get_of_what_a_package_carries_needs_no_network(here, tmp_path, monkeypatch):
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("the network was asked"))
    code, out, err = here("data", "get", "wine", "--to", "wine")
    assert (code, err) == (0, "")
    assert left(tmp_path) == ["wine/data-card.json", "wine/wine.csv"]
    assert "wine/wine.csv" in out.splitlines()[-1]


def test_a_bar_is_shown_in_a_terminal(toy, tmp_path, monkeypatch, capsys):
    from recipes.cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert main(["data", "get", "toy"]) == 0
    said = capsys.readouterr()
    assert "toy.tgz" in said.err
    assert "toy.tgz" not in said.out


# ------------------------------------------------------------------ mistakes


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["data"], "list|get"),
        (["data", "gte"], "'gte'"),
        (["data", "get"], "NAME"),
        (["data", "get", "flower"], "there is no data set 'flower': did you mean 'flowers'"),
        (
            ["data", "get", "esc10"],
            "esc10 is fetched by hand, for its card has no sha256 to check it with: see https://",
        ),
        (["data", "get", "wine", "--limit-gb", "0"], "limit_gb must lie in"),
        (["data", "get", "wine", "--limit-gb", "nan"], "limit_gb must lie in"),
        (["data", "get", "wine", "--limit-gb", "lots"], "--limit-gb: invalid float value: 'lots'"),
        (["data", "get", "wine", "--too", "x"], "--too is not an option here"),
        (["data", "get", "imagenette", "--limit-gb", "1"], "imagenette is a download of 1.56 GB, limit_gb allows 1"),
        (["data", "get", "wine", "--to", "."], "to=. must name a new folder"),
    ],
)
def test_a_mistake_is_one_sentence_and_leaves_nothing(here, tmp_path, arguments, says):
    assert says in sentence(here(*arguments))
    assert left(tmp_path) == []


def test_a_folder_in_use_is_one_sentence(here, toy, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "x").write_text("x")
    assert "mine exists and does not hold toy" in sentence(here("data", "get", "toy", "--to", "mine"))
    assert left(tmp_path) == ["mine/x"]


def test_a_wrong_hash_is_one_sentence_and_leaves_nothing(here, toy, tmp_path):
    text = (toy / "toy.toml").read_text()
    (toy / "toy.toml").write_text(re.sub(r'sha256 = "\w+"', f'sha256 = "{"0" * 64}"', text))
    code, out, err = here("data", "get", "toy")
    assert (code, out) == (1, "")
    assert "toy.tgz: " in err.splitlines()[-1]
    assert "nothing is kept" in err.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


def test_a_card_at_fault_is_one_sentence(here, toy):
    (toy / "toy.toml").write_text("name = ")
    assert "toy.toml: is not TOML" in sentence(here("data", "list"))
