"""Every data set card is readable, complete, and says what its licence asks."""

import tomllib
from pathlib import Path

import pytest

CARDS = sorted((Path(__file__).resolve().parents[1] / "datasets").glob("*.toml"))
DOMAINS = {"classification", "detection", "segmentation", "audio", "nlp", "captioning", "tabular", "collab"}
NEEDED = {"digits", "fashion_mnist", "cifar10", "imagenette", "oxford_iiit_pet", "flowers"}
NEEDED |= {"wine", "california_housing", "newsgroups", "speech_commands", "esc10", "movielens_100k"}
NEEDED |= {"camvid", "penn_fudan", "pascal_voc_2007", "coco_2017", "bccd"}


def test_the_promised_cards_are_there():
    assert {card.stem for card in CARDS} >= NEEDED


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.stem)
def test_a_card_is_complete(card):
    content = tomllib.loads(card.read_text("utf-8"))
    for name in (
        "name",
        "domain",
        "summary",
        "source",
        "input",
        "counts",
        "licence",
        "citation",
        "reference",
    ):
        assert content.get(name), f"{card.name} lacks {name}"
    assert content.get("classes") or content.get("target"), f"{card.name} does not say what is predicted"
    assert set(content["domain"]) <= DOMAINS
    assert content["licence"]["name"]
    assert content["licence"]["asks"]
    assert all(isinstance(n, int) and n > 0 for n in content["counts"].values())
    ways = {"torchvision", "torchaudio", "sklearn", "debian", "files"} & set(content)
    assert ways, f"{card.name} does not say how to get it"


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.stem)
def test_a_card_is_in_the_table_of_the_folder(card):
    assert f"({card.name})" in (card.parent / "README.md").read_text("utf-8")
