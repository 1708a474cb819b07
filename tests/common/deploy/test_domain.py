"""The domain as a value: what is true of every installed one, and how a model, an option or a file finds its own."""

import dataclasses
import json
from importlib.metadata import entry_points

import numpy as np
import pytest
from torch import nn

from common.deploy import Domain, Predictor, evaluate, predict_files
from common.deploy.domain import CORE, PLAIN, NoReading, domain_of, find_domain, one_input, owners
from common.errors import ConfigError
from common.registry import domains
from common.spec import option, to_spec
from common.task.classification import ClassificationTask
from common.task.regression import RegressionTask
from common.task.task import Task

RECIPES = {point.name: point for point in entry_points(group="cookbook.recipes")}


@pytest.mark.parametrize("name", domains())
def test_every_installed_domain_is_a_value_of_that_name(name):
    found = find_domain(name)
    assert isinstance(found, Domain)
    assert found.name == name
    assert found.reading.__dataclass_params__.frozen
    assert all(field.metadata["help"] for field in dataclasses.fields(found.reading))
    options = found.options()
    assert found.options(json.loads(json.dumps(to_spec(options)))) == options


def test_every_recipe_is_of_one_domain():
    named = [recipe for name in domains() for recipe in find_domain(name).recipes]
    assert sorted(named) == sorted(RECIPES)


@pytest.mark.parametrize("name", [name for name in domains() if find_domain(name).recipes])
def test_a_recipe_has_every_option_of_reading_with_the_same_default_and_words(name):
    """So that a run is told in one way how data is read, and an evaluation in the same."""
    domain = find_domain(name)
    for recipe in domain.recipes:
        own = {field.name: field for field in dataclasses.fields(RECIPES[recipe].load().Options)}
        for field in dataclasses.fields(domain.reading):
            assert (own[field.name].default, own[field.name].metadata["help"]) == (
                field.default,
                field.metadata["help"],
            ), field.name


def test_a_model_and_a_task_belong_to_the_domain_whose_package_holds_them():
    from applications.detection import DetectionTask
    from applications.segmentation import create_model as unet
    from applications.tabular import TabularRegression

    linear, classes = nn.Linear(1, 1), ClassificationTask(("a", "b"))
    assert domain_of(unet("small_resnet", 2), classes) == "segmentation"  # the model's first
    assert domain_of(linear, DetectionTask(("a",))) == "detection"
    assert domain_of(linear, TabularRegression()) == "tabular"
    assert domain_of(linear, classes) == "classification"  # by the task's registered name
    assert domain_of(linear, RegressionTask()) == "regression"


def test_what_no_domain_holds_is_of_the_core():
    class Own(Task):
        registered_name = "own"

    assert domain_of(nn.Linear(1, 1), Own()) == domain_of(nn.Linear(1, 1), Task()) == PLAIN == CORE.name


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reading:
    column: str = option("x", "a column")
    least: int | None = option(None, "a number")


def test_options_are_the_stored_ones_and_over_them_those_that_are_given():
    toy = Domain(name="toy", reading=Reading)
    assert toy.options() == Reading()
    assert toy.options({"column": "y"}) == Reading(column="y")
    assert toy.options(Reading(column="y", least=2), least=3) == Reading(column="y", least=3)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"colum": "y"}, "reading of toy has no field 'colum': did you mean 'column'?"),
        ({"least": "3"}, "reading of toy.least must be int or NoneType, got str '3'"),
    ],
)
def test_an_option_that_is_not_there_or_of_the_wrong_type_is_named(given, says):
    with pytest.raises(ConfigError) as caught:
        Domain(name="toy", reading=Reading).options(**given)
    assert says in str(caught.value)


def test_an_option_names_the_domains_that_have_it():
    assert owners("label_column") == ["classification"]
    assert owners("split_column") == ["classification", "tabular"]
    assert owners("window") == ["detection", "segmentation"]
    assert owners("nothing") == []


def test_an_entry_point_that_is_no_domain_says_what_to_do(monkeypatch):
    from common.deploy import domain

    monkeypatch.setattr(domain, "load_domain", lambda name: json)
    with pytest.raises(ConfigError, match=r"gives a module, not a Domain: install its package anew"):
        find_domain("old")


def test_the_core_reads_no_files_and_says_so(trainer, monkeypatch):
    predictor = trainer.predictor()
    monkeypatch.setattr(Predictor, "domain", CORE)
    with pytest.raises(
        ConfigError, match=r"the domain core reads no files: give the raw values to Predictor\.evaluate"
    ):
        evaluate(predictor, None)
    assert CORE.options() == NoReading()


def test_evaluate_reads_as_the_model_in_memory_was_taught(trainer, photos, exported):
    found = evaluate(trainer.predictor(), photos)
    assert found == evaluate(Predictor(exported), photos)
    with pytest.raises(ConfigError, match="reading of classification has no field 'targt'"):
        evaluate(Predictor(exported), photos, targt="x")


def test_files_are_predicted_together_and_named(exported, photos):
    files = sorted(photos.rglob("*.png"))[:3]
    predictor = Predictor(exported)
    found = list(predict_files(predictor, files))
    assert [name for name, _ in found] == [str(file) for file in files]
    assert [record for _, record in found] == predictor.predict_many(files)
    assert one_input(files[0]) == ([str(files[0])], [str(files[0])])


def test_windows_are_refused_where_a_domain_has_none(exported, photos):
    with pytest.raises(ConfigError, match="window_px is for domains that look through windows, this is one of class"):
        list(predict_files(Predictor(exported), ["x.png"], 64))


def test_rows_of_a_table_are_inputs(tmp_path):
    (tmp_path / "t.csv").write_text("a,b\n1,2\n3,4\n")
    names, rows = find_domain("tabular").inputs(tmp_path / "t.csv")
    assert [name.rsplit("/", 1)[-1] for name in names] == ["t.csv, row 0", "t.csv, row 1"]
    assert np.array_equal(rows.to_numpy(), [[1, 2], [3, 4]])
