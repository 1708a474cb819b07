"""A bundle that was changed is refused, with a sentence that says what is wrong with it."""

import json
import pickle
import resource
import tracemalloc

import pytest
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save_file

from common.deploy import load
from common.deploy.schema import FIELDS
from common.errors import BundleError


def refused(folder, match):
    with pytest.raises(BundleError, match=match) as caught:
        load(folder)
    text = str(caught.value)
    assert "\n" not in text.strip()
    assert len(text) < 600
    return text


def flip(file, position):
    data = bytearray(file.read_bytes())
    data[position] ^= 1
    file.write_bytes(bytes(data))


def test_the_untouched_copy_is_taken(bundle, reseal):
    load(bundle)
    reseal(bundle)
    load(bundle)


# ------------------------------------------------------------------ one byte


@pytest.mark.parametrize("name", ["model.safetensors", "README.md"])
@pytest.mark.parametrize("place", [0, 0.1, 0.5, 0.9, -1])
def test_one_byte_changed_names_the_file(bundle, name, place):
    file = bundle / name
    flip(file, place if isinstance(place, int) else int(place * file.stat().st_size))
    refused(bundle, rf"{name} was changed: its sha256 is not the one in bundle\.json")


@pytest.mark.parametrize("name", ["model.safetensors", "README.md"])
def test_one_byte_more_or_less_names_the_file(bundle, name):
    data = (bundle / name).read_bytes()
    for changed in (data + b"\0", data[:-1], b""):
        (bundle / name).write_bytes(changed)
        refused(bundle, rf"{name} has {len(changed)} bytes, bundle\.json says {len(data)}")


@pytest.mark.parametrize("bit", [1, 4, 128])
def test_one_byte_changed_anywhere_in_the_main_file_is_refused(bundle, bit):
    main = bundle / "bundle.json"
    whole = main.read_bytes()
    for position in range(bit % 3, len(whole), 9):
        data = bytearray(whole)
        data[position] ^= bit
        main.write_bytes(bytes(data))
        try:
            with pytest.raises(BundleError) as caught:
                load(bundle)
        except BaseException as error:
            raise AssertionError(f"byte {position}: {bytes(data[position - 20 : position + 20])!r}") from error
        assert "\n" not in str(caught.value)
    main.write_bytes(whole)
    load(bundle)


def test_another_text_of_the_same_content_is_refused(bundle):
    main = bundle / "bundle.json"
    content = json.loads(main.read_text())
    main.write_text(json.dumps(content))
    refused(bundle, r"bundle\.json was changed: its content does not match its sha256")


def test_a_key_given_twice_is_refused(bundle):
    main = bundle / "bundle.json"
    main.write_text(main.read_text().replace('"schema": 2,', '"schema": 2,\n  "schema": 2,'))
    refused(bundle, r"bundle\.json")


# --------------------------------------------------------- files and their names


@pytest.mark.parametrize("name", ["extra.pkl", "code.py", "model.pt", ".hidden", "README.md.bak"])
def test_a_file_that_is_not_listed_is_refused(bundle, name):
    (bundle / name).write_bytes(pickle.dumps({"a": 1}))
    refused(bundle, rf"{name} is not in the bundle's list of files \(pickles and other code are never read\)")


@pytest.mark.parametrize("name", ["extra.pkl", "code.py", "model.pt", "model.bin", "noending"])
def test_a_listed_file_of_another_kind_is_refused(bundle, reseal, name):
    (bundle / name).write_bytes(pickle.dumps({"a": 1}))
    reseal(bundle, lambda c: c["files"].update({name: {"bytes": (bundle / name).stat().st_size, "sha256": "0" * 64}}))
    refused(bundle, rf"files names '{name}': a bundle holds only \.json")


PICKLES = {
    "pickle": lambda: pickle.dumps({"weights": [1.0, 2.0]}),
    "an attack": lambda: b"cos\nsystem\n(S'touch /tmp/cookbook_was_here'\ntR.",
}


@pytest.mark.parametrize("kind", ["pickle", "an attack", "torch.save", "empty", "text"])
def test_tensors_replaced_by_a_pickle_are_refused(bundle, reseal, kind, tmp_path):
    file = bundle / "model.safetensors"
    if kind == "torch.save":
        torch.save(load_tensors(file.read_bytes()), file)
    else:
        data = {"empty": lambda: b"", "text": lambda: b"hello" * 50, **PICKLES}[kind]()
        file.write_bytes(data)
    reseal(bundle)
    refused(bundle, r"model\.safetensors is not a safetensors file")


def test_a_header_that_claims_too_much_is_refused(bundle, reseal):
    file = bundle / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[:8] = (2**62).to_bytes(8, "little")
    file.write_bytes(bytes(data))
    reseal(bundle)
    refused(bundle, r"model\.safetensors is not a safetensors file")


OUTSIDE = [
    "../model.safetensors",
    "/etc/passwd",
    "a/b.json",
    "..\\up.json",
    "C:\\x.json",
    "..",
    ".",
    "",
    "a\0.json",
    "bundle.json",
]


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_path_outside_is_refused(bundle, reseal, name):
    reseal(bundle, lambda c: c["files"].update({name: {"bytes": 1, "sha256": "0" * 64}}))
    refused(bundle, "which is not a plain name inside the bundle")


def test_a_link_is_refused(bundle, tmp_path):
    file = bundle / "model.safetensors"
    file.rename(tmp_path / "elsewhere.safetensors")
    file.symlink_to(tmp_path / "elsewhere.safetensors")
    refused(bundle, r"model\.safetensors is a link or a folder")


def test_a_link_in_place_of_the_main_file_is_refused(bundle, tmp_path):
    main = bundle / "bundle.json"
    main.rename(tmp_path / "elsewhere.json")
    main.symlink_to(tmp_path / "elsewhere.json")
    refused(bundle, r"bundle\.json")


def test_a_folder_inside_is_refused(bundle):
    (bundle / "more").mkdir()
    refused(bundle, "more is a link or a folder")


@pytest.mark.parametrize("name", ["model.safetensors", "README.md", "bundle.json"])
def test_a_missing_file_is_named(bundle, name):
    (bundle / name).unlink()
    refused(bundle, name.replace(".", r"\."))


def test_a_bundle_without_tensors_is_refused(bundle, reseal):
    (bundle / "model.safetensors").unlink()
    reseal(bundle, lambda c: c["files"].pop("model.safetensors"))
    refused(bundle, r"files must name model\.safetensors")


@pytest.mark.parametrize(
    "entry", [None, [], {}, {"bytes": "1", "sha256": "0"}, {"bytes": 1}, {"bytes": 1, "sha256": 5}]
)
def test_an_entry_of_files_of_another_form_is_refused(bundle, reseal, entry):
    reseal(bundle, lambda c: c["files"].update({"README.md": entry}))
    refused(bundle, r"files\['README\.md'\] must have bytes \(int\) and sha256 \(str\)")


# -------------------------------------------------------------------- tensors


def rewrite(bundle, reseal, edit):
    tensors = load_tensors((bundle / "model.safetensors").read_bytes())  # no map of the file that is rewritten
    edit(tensors)
    save_file(tensors, bundle / "model.safetensors")
    reseal(bundle)


def test_a_tensor_of_another_shape_is_named(bundle, reseal):
    rewrite(bundle, reseal, lambda t: t.update({"head.1.weight": torch.zeros(4, 96)}))
    refused(bundle, r"head\.1\.weight has shape \(4, 96\), the model needs \(3, 96\)")


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64, torch.int32, torch.bfloat16])
def test_a_tensor_of_another_type_is_named(bundle, reseal, dtype):
    rewrite(bundle, reseal, lambda t: t.update({"head.1.bias": torch.zeros(3, dtype=dtype)}))
    refused(bundle, rf"head\.1\.bias is {dtype}, the model needs torch\.float32")


def test_a_tensor_of_another_name_is_named(bundle, reseal):
    rewrite(bundle, reseal, lambda t: t.update({"head.1.bas": t.pop("head.1.bias")}))
    refused(bundle, r"lacks head\.1\.bias")


def test_a_tensor_too_many_is_named(bundle, reseal):
    rewrite(bundle, reseal, lambda t: t.update({"more": torch.zeros(2)}))
    refused(bundle, "has the unknown tensor more")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_number_that_is_not_finite_names_the_tensor(bundle, reseal, value):
    rewrite(bundle, reseal, lambda t: t["body.0.weight"].view(-1)[7:8].fill_(value))
    refused(bundle, r"body\.0\.weight holds numbers that are not finite")


# --------------------------------------------------------------------- fields

WRONG = {int: ["1", 1.5, None, True], str: [3, None, []], dict: [[], "x", None], list: [{}, "x", None]}


@pytest.mark.parametrize("name", FIELDS)
def test_a_field_of_the_wrong_type_is_named(bundle, reseal, name):
    main, hint = (bundle / "bundle.json").read_text(), FIELDS[name]
    wrongs = WRONG.get(hint) or [[], 3, {"a": [1]}, None]
    for wrong in wrongs:
        (bundle / "bundle.json").write_text(json.dumps({**json.loads(main), name: wrong}))
        refused(bundle, rf"bundle\.json: {name}\S* must be ")


@pytest.mark.parametrize("name", FIELDS)
def test_a_missing_field_is_named(bundle, reseal, name):
    content = json.loads((bundle / "bundle.json").read_text())
    content.pop(name)
    (bundle / "bundle.json").write_text(json.dumps(content))
    refused(bundle, f"the field '{name}' is missing")


def test_an_unknown_field_is_named(bundle, reseal):
    reseal(bundle, lambda c: c.update(code="print(1)"))
    refused(bundle, "there is no field 'code' in a bundle")


def leaves(value, path=()):
    """Every place inside the parts of a bundle that a class is built from."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield (*path, key)
            yield from leaves(inner, (*path, key))
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            yield (*path, i)
            yield from leaves(inner, (*path, i))


def put(content, path, value):
    for key in path[:-1]:
        content = content[key]
    content[path[-1]] = value


def test_a_wrong_type_at_any_place_inside_is_refused(bundle, reseal):
    whole = json.loads((bundle / "bundle.json").read_text())
    parts = {name: whole[name] for name in ("encoder", "batch_tfms", "model", "task")}
    places = [place for place in leaves(parts) if isinstance(place[-1], str)]
    assert len(places) > 30
    for place in places:
        for wrong in ({"no": [1]}, [[{}]], -1e300):
            reseal(bundle, lambda c, p=place, w=wrong: put(c, p, w))
            text = None
            try:
                text = refused(bundle, "bundle.json")
            except BaseException as error:
                raise AssertionError(f"{place} = {wrong}: {text}") from error
            (bundle / "bundle.json").write_text(json.dumps(whole))


@pytest.mark.parametrize(
    ("place", "value", "says"),
    [
        (("model", "classes"), "3", r"model\.classes must be int, got str '3'"),
        (("model", "classes"), 0, r"classes must lie in \[1, 1000000\], got 0"),
        (("model", "widths"), [24, "48"], r"model\.widths\[1\] must be int"),
        (("model", "widths"), [], r"widths"),
        (("model", "dropout"), 1.0, r"dropout must lie in \[0, 1\)"),
        (("task", "vocab"), "abc", r"task\.vocab must be a list"),
        (("task", "threshold"), 2, r"threshold must lie in \[0, 1\]"),
        (("task", "multi_label"), 1, r"task\.multi_label must be bool"),
        (("encoder", "n_inp"), 3, r"n_inp must lie in \[1, 2\], got 3"),
        (("encoder", "n_inp"), True, r"n_inp must be int"),
        (("encoder", "blocks"), [], r"n_inp"),
        (("encoder", "blocks", 0, "mode"), "CMYK", r"mode has no option 'CMYK'"),
        (("encoder", "blocks", 0, "std"), [0.0, 1.0, 1.0], r"std must lie in"),
        (("encoder", "item_tfms", 0, "size"), 10**9, r"size must lie in \[1, 16384\]"),
        (("batch_tfms", 0, "rotate"), "10", r"batch_tfms\[0\]\.rotate must be float"),
        (("batch_tfms", 0, "rotate"), 999, r"rotate must lie in"),
        (("encoder", "blocks", 0, "kind"), "os.system", r"no block is named 'os\.system'"),
        (("encoder", "item_tfms", 0, "kind"), "augment", r"no item_transform is named 'augment'"),
        (("batch_tfms", 0, "kind"), "lambda", r"no batch_transform is named 'lambda'"),
        (
            ("model", "kind"),
            "torchvision",
            r"no model is named 'torchvision': did you mean .*'torchvision_classifier'\?",
        ),
        (("model", "kind"), ["small_resnet"], r"no model is named"),
        (("task", "kind"), "builtins.eval", r"no task is named 'builtins\.eval'"),
        (("domain",), "os", r"no domain is named 'os'"),
        (("domain",), "clasification", r"did you mean 'classification'\?"),
        (("schema",), 3, r"schema 3 is neither 1 nor 2, those this version reads"),
        (("metrics", "accuracy"), "high", r"metrics\.accuracy must be float"),
        (("versions", "torch"), 2, r"versions\.torch must be str"),
        (("reading", "image_colum"), "x", r"reading of classification has no field 'image_colum': did you mean"),
        (("reading", "image_column"), 3, r"reading of classification\.image_column must be str"),
        (("parts", "ood"), {"kind": "os.system"}, r"no part is named 'os\.system'"),
        (("parts", "ood"), "x", r"parts\.ood must be an object"),
        (("parts", "../ood"), {}, r"a name must be small letters, digits and _"),
    ],
)
def test_a_wrong_value_is_named(bundle, reseal, place, value, says):
    reseal(bundle, lambda c: put(c, place, value))
    refused(bundle, says)


def test_classes_that_disagree_are_refused(bundle, reseal):
    reseal(bundle, lambda c: c["task"].update(vocab=["dark", "grey"]))
    refused(bundle, "vocab|classes")


def test_vocabularies_that_disagree_are_refused(bundle, reseal):
    reseal(bundle, lambda c: c["encoder"]["blocks"][1].update(vocab=["light", "grey", "dark"]))
    refused(bundle, "vocab|classes")


# ---------------------------------------------------------- size, depth, form


@pytest.mark.parametrize("classes", [1_000_000, 10**9, 10**30])
def test_a_huge_number_of_classes_is_refused_without_memory(bundle, reseal, classes):
    reseal(bundle, lambda c: c["model"].update(classes=classes))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tracemalloc.start()
    refused(
        bundle,
        r"the model has 1000+ classes, the task 3|classes must lie in|has shape \(3, 96\), the model needs \(1000000, 96\)|has shape \(3,\)",
    )
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    grown_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert peak < 50e6
    assert grown_kb < 200_000  # a million classes of 96 weights would be 384 MB


def test_huge_widths_are_refused_without_memory(bundle, reseal):
    reseal(bundle, lambda c: c["model"].update(widths=[4096] * 8))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(bundle, r"model\.safetensors")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_main_file_is_refused(bundle, share):
    main = bundle / "bundle.json"
    data = main.read_bytes()
    main.write_bytes(data[: int(share * len(data))])
    refused(bundle, r"bundle\.json is not readable JSON")


@pytest.mark.parametrize("text", ["[]", "null", "3", '"x"', "true"])
def test_a_main_file_that_holds_no_object_is_refused(bundle, text):
    (bundle / "bundle.json").write_text(text)
    refused(bundle, r"bundle\.json must hold an object")


@pytest.mark.parametrize("data", [b"\xff\xfe\x00", b"\x80\x04\x95.", b"\0" * 100, b"{" * 10])
def test_a_main_file_that_is_not_text_is_refused(bundle, data):
    (bundle / "bundle.json").write_bytes(data)
    refused(bundle, r"bundle\.json is not readable JSON")


def nested(text, depth, place):
    return text.replace(f'"{place}": ', f'"{place}": ' + "[" * depth + "]" * depth + ', "other": ', 1)


@pytest.mark.parametrize("place", ["versions", "encoder", "n_inp", "vocab"])
@pytest.mark.parametrize("depth", [10, 500, 5_000, 200_000])
def test_deep_nesting_is_refused(bundle, place, depth):
    main = bundle / "bundle.json"
    main.write_text(nested(main.read_text(), depth, place))
    refused(bundle, r"bundle\.json")


@pytest.mark.parametrize("kind", ["[]", "{}"])
def test_nesting_of_any_depth_where_no_one_looks_is_refused(bundle, kind):
    main = bundle / "bundle.json"
    text = main.read_text()
    left, right = ("[", "]") if kind == "[]" else ('{"a": ', "}")
    for depth in [1, 100, 500, *range(880, 1000, 3), 1100]:
        deep = left * depth + "1" + right * depth
        main.write_text(text.replace('"encoder": {', f'"encoder": {{"unseen": {deep}, ', 1))
        with pytest.raises(BundleError, match=r"bundle\.json"):
            load(bundle)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "1" * 5000])
def test_a_number_json_does_not_have_is_refused(bundle, number):
    main = bundle / "bundle.json"
    content = json.loads(main.read_text())
    value = content["metrics"]["accuracy"]
    main.write_text(main.read_text().replace(f'"accuracy": {value}', f'"accuracy": {number}', 1))
    refused(bundle, r"bundle\.json")


def test_a_main_file_of_gigabytes_is_not_read(bundle):
    with open(bundle / "bundle.json", "r+b") as stream:
        stream.truncate(1 << 32)  # sparse: it takes no space
    refused(bundle, "is larger than 64 MiB")
