"""The closed registry."""

import sys

import pytest

import common.augment
import common.data
from common import registry
from common.errors import ConfigError
from common.registry import domains, load_domain, names, register, resolve


@pytest.fixture
def own_table(monkeypatch):
    """A copy of the registry, so that what a test registers is gone afterwards."""
    monkeypatch.setattr(registry, "_registry", {group: dict(table) for group, table in registry._registry.items()})


def make(name, module):
    return type(name, (), {"__qualname__": name, "__module__": module})


def test_resolve_returns_the_registered_class():
    assert resolve("block", "category") is common.data.CategoryBlock
    assert resolve("batch_transform", "augment") is common.augment.Augment


def test_names_are_sorted_and_resolve():
    for group in registry.GROUPS:
        assert names(group) == sorted(names(group))
        assert [resolve(group, name).registered_name for name in names(group)] == names(group)
    assert {"category", "image", "text"} <= set(names("block"))


@pytest.mark.parametrize(
    ("group", "wrong", "near"),
    [
        ("block", "categroy", "category"),
        ("block", "Image", "image"),
        ("item_transform", "rezise", "resize"),
        ("batch_transform", "augmnt", "augment"),
    ],
)
def test_a_wrong_name_answers_with_the_near_one(group, wrong, near):
    with pytest.raises(ConfigError, match=f"no {group} is named '{wrong}'.*did you mean .*'{near}'"):
        resolve(group, wrong)


def test_a_name_near_nothing_answers_with_the_known_ones():
    with pytest.raises(ConfigError, match=r"known: .*normalize"):
        resolve("batch_transform", "qqqq")


@pytest.mark.parametrize("wrong", [None, 7, ["category"], {"kind": "category"}])
def test_what_is_not_a_name_is_refused(wrong):
    with pytest.raises(ConfigError, match="no block is named"):
        resolve("block", wrong)


@pytest.mark.usefixtures("own_table")
def test_register_gives_the_class_its_name():
    cls = register("block", "toy")(make("Toy", "here"))
    assert cls.registered_name == "toy"
    assert resolve("block", "toy") is cls


@pytest.mark.usefixtures("own_table")
def test_a_second_class_under_a_taken_name_is_refused():
    register("block", "toy")(make("Toy", "here"))
    with pytest.raises(ConfigError, match="'toy' is already registered"):
        register("block", "toy")(make("Other", "here"))


@pytest.mark.usefixtures("own_table")
def test_a_class_of_the_same_name_from_another_module_is_refused():
    first = register("block", "toy")(make("Toy", "here"))
    with pytest.raises(ConfigError, match="'toy' is already registered"):
        register("block", "toy")(make("Toy", "elsewhere"))
    assert resolve("block", "toy") is first


@pytest.mark.usefixtures("own_table")
def test_a_module_loaded_again_may_register_its_class_again():
    register("block", "toy")(make("Toy", "here"))
    again = register("block", "toy")(make("Toy", "here"))
    assert resolve("block", "toy") is again


def test_installed_domains_are_listed():
    assert "classification" in domains()


def test_a_domain_that_is_not_installed_is_not_imported():
    with pytest.raises(ConfigError, match=r"no domain is named 'os'"):
        load_domain("os")
    with pytest.raises(ConfigError, match=r"did you mean 'classification'"):
        load_domain("clasification")
    assert "antigravity" not in sys.modules
    with pytest.raises(ConfigError):
        load_domain("antigravity")
    assert "antigravity" not in sys.modules
