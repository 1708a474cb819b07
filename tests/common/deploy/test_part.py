"""Parts of a bundle beside the model: they travel with it, hashed like all else."""

import json
from dataclasses import dataclass, field

import pytest

from common.deploy import BundlePart, load
from common.errors import BundleError, ConfigError
from common.registry import register


@register("part", "test_centre")
@dataclass(frozen=True)
class Centre(BundlePart):
    """Numbers in a file, and one in the spec."""

    scale: float = 1.0
    held: dict = field(default_factory=dict, init=False, compare=False)
    ending = ".json"

    def file_names(self):
        return (f"centre{self.ending}",)

    def files(self):
        return {f"centre{self.ending}": json.dumps([1.5, 2.5]).encode()}

    def load_files(self, files):
        try:
            self.held["centre"] = json.loads(files["centre.json"])
        except ValueError as error:
            raise BundleError(f"centre.json is not readable JSON: {error}") from error


@pytest.fixture()
def with_part(trainer, tmp_path):
    return trainer.export(tmp_path / "with", parts={"in_domain": Centre(2.0)})


def test_a_part_travels_with_its_file(with_part):
    assert {file.name for file in with_part.iterdir()} >= {"in_domain.centre.json"}
    part = load(with_part).parts["in_domain"]
    assert part == Centre(2.0)
    assert part.held == {"centre": [1.5, 2.5]}


def test_a_bundle_without_parts_has_none(exported):
    assert load(exported).parts == {}


def test_a_part_that_was_changed_is_refused(with_part):
    (with_part / "in_domain.centre.json").write_text("[1.5, 2.6]")
    with pytest.raises(BundleError, match=r"in_domain\.centre\.json was changed: its sha256 is not the one in"):
        load(with_part)


def test_a_spec_of_a_part_that_was_changed_is_refused(with_part):
    main = with_part / "bundle.json"
    main.write_text(main.read_text().replace('"scale": 2.0', '"scale": 3.0'))
    with pytest.raises(BundleError, match=r"bundle\.json was changed: its content does not match its sha256"):
        load(with_part)


def test_a_careful_forger_meets_the_parts_own_checks(with_part, reseal):
    (with_part / "in_domain.centre.json").write_text("[1.5")
    reseal(with_part)
    with pytest.raises(BundleError, match=r"centre\.json is not readable JSON"):
        load(with_part)
    reseal(with_part, lambda content: content["parts"]["in_domain"].update(scale="wide"))
    with pytest.raises(BundleError, match=r"test_centre\.scale must be float"):
        load(with_part)


def test_a_file_of_a_part_that_is_gone_is_named(with_part, reseal):
    (with_part / "in_domain.centre.json").unlink()
    with pytest.raises(BundleError, match=r"in_domain\.centre\.json is missing"):
        load(with_part)
    reseal(with_part, lambda content: content["files"].pop("in_domain.centre.json"))
    with pytest.raises(BundleError, match=r"files must name in_domain\.centre\.json, which the part in_domain needs"):
        load(with_part)


@pytest.mark.parametrize("name", ["In", "a.b", "../up", "", "a b"])
def test_a_name_that_is_no_small_word_is_refused_and_leaves_nothing(trainer, tmp_path, name):
    with pytest.raises(ConfigError, match="a name must be small letters"):
        trainer.export(tmp_path / "b", parts={name: Centre()})
    assert list(tmp_path.iterdir()) == []


class Code(Centre):
    ending = ".py"


class Weights(Centre):
    def files(self):
        return {"safetensors": b""}


@pytest.mark.parametrize(("name", "part"), [("ood", Code()), ("model", Weights())])
def test_a_file_that_a_bundle_cannot_hold_or_has_already_is_refused(trainer, tmp_path, name, part):
    with pytest.raises(ConfigError, match=f"parts: {name} cannot have a file"):
        trainer.export(tmp_path / "b", parts={name: part})
    assert list(tmp_path.iterdir()) == []
