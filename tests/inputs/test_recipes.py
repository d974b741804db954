"""mergekit recipes: what is written is what is merged, what has no effect is said, and the rest is refused by name."""

import textwrap

import pytest
import torch
import yaml

from diagnostics import InputError, Recipe, merged_update, read_recipe
from diagnostics.inputs.config import RunConfig
from diagnostics.inputs.recipes import is_recipe

TIES = """
models:
  - model: models/base
    # no parameters necessary for base model
  - model: models/news
    parameters:
      density: 0.5
      weight: 0.5
  - model: models/mail
    parameters:
      density: 0.3
      weight: 3e-1
merge_method: ties
base_model: models/base
parameters:
  normalize: true
  int8_mask: true
dtype: float16
"""
TASK_ARITHMETIC = """
base_model: models/base
merge_method: task_arithmetic
models:
  - model: models/news
  - model: models/mail
    parameters: {weight: -0.4}
parameters: {weight: 0.8, lambda: 1.5}
dtype: float32
tokenizer_source: base
"""
LINEAR = """
models:
  - model: models/news
    parameters:
      weight: 1.0
  - model: models/mail
    parameters:
      weight: 0.3
merge_method: linear
dtype: torch.bfloat16
"""
LINEAR_WITH_BASE = """
base_model: models/base
models:
  - {model: models/base, parameters: {weight: 2}}
  - {model: models/news, parameters: {weight: 1}}
merge_method: linear
"""
DARE_TIES = """
models:
  - model: models/base
  - model: models/news
    parameters: {density: 0.53, weight: 0.4}
  - model: models/base+adapters/mail
    parameters: {weight: 0.3}
merge_method: dare_ties
base_model: models/base
parameters:
  int8_mask: true
  density: 0.6
dtype: bfloat16
out_dtype: float32
tokenizer: {source: union}
chat_template: auto
"""
DARE_LINEAR = """
merge_method: dare_linear
base_model: models/base
models: [{model: models/news, parameters: {weight: 0.5, density: 0.2, lambda: 3}}]
parameters: {rescale: false, normalize: true}
"""


def write(folder, text, name="recipe.yaml"):
    path = folder / name
    path.write_text(textwrap.dedent(text), encoding="utf-8")
    return path


@pytest.fixture
def folder(tmp_path):
    for name in ("models/base", "models/news", "models/mail", "adapters/mail", "other/news"):
        (tmp_path / name).mkdir(parents=True)
    return tmp_path


def test_ties(folder):
    found = read_recipe(write(folder, TIES))
    assert (found.method, found.base) == ("ties", folder / "models/base")
    assert dict(found.experts) == {"news": folder / "models/news", "mail": folder / "models/mail"}
    assert (found.weights, found.densities) == ({"news": 0.5, "mail": 0.3}, {"news": 0.5, "mail": 0.3})
    assert found.options == {"convention": "mergekit", "normalize": True, "rescale": False, "scale": 1.0}
    assert found.notes == (
        "parameters.int8_mask: no effect, as it changes memory and not the result.",
        "dtype: mergekit rounds to float16; the update here is not rounded.",
    )


def test_a_models_own_value_goes_before_the_common_one(folder):
    found = read_recipe(write(folder, TASK_ARITHMETIC))
    assert found.weights == {"news": 0.8, "mail": -0.4} and found.densities == {}
    assert found.settings == {
        "method": "task_arithmetic",
        "convention": "mergekit",
        "normalize": False,
        "scale": 1.5,
    }
    assert [note.split(":")[0] for note in found.notes] == ["tokenizer_source"]


def test_linear_needs_no_base(folder):
    found = read_recipe(write(folder, LINEAR))
    assert found.base is None and found.weights == {"news": 1.0, "mail": 0.3}
    assert found.options == {"convention": "mergekit", "normalize": True, "base_weight": 0.0}
    assert any("same from every base" in note for note in found.notes)


def test_linear_counts_the_base_where_it_has_a_weight(folder):
    listed = read_recipe(write(folder, LINEAR_WITH_BASE))
    assert list(listed.experts) == ["news"] and listed.options["base_weight"] == 2.0
    added = read_recipe(write(folder, LINEAR + "base_model: models/base\nparameters: {weight: 0.5}"))
    assert added.options["base_weight"] == 0.5 and added.weights == {"news": 1.0, "mail": 0.3}


def test_dare_and_adapters(folder):
    found = read_recipe(write(folder, DARE_TIES))
    assert found.experts["mail"] == folder / "adapters/mail" and found.densities == {"news": 0.53, "mail": 0.6}
    assert found.options == {"convention": "mergekit", "normalize": False, "rescale": True, "scale": 1.0}
    starts = ["parameters.int8_mask", "DARE drops entries at random", "dtype", "tokenizer", "chat_template"]
    assert [note.split(":")[0] for note in found.notes] == starts
    found = read_recipe(write(folder, DARE_LINEAR))
    assert found.options == {"convention": "mergekit", "normalize": True, "rescale": False, "scale": 1.0}
    assert "models.0.parameters.lambda: no effect, as mergekit reads it from the top level alone." in found.notes


def test_what_has_no_effect_is_said(folder):
    text = TASK_ARITHMETIC.replace("{weight: -0.4}", "{weight: -0.4, density: 0.5}")
    text = text.replace("models:\n", "models:\n  - {model: models/base, parameters: {weight: 1}}\n")
    found = read_recipe(write(folder, text))
    assert "models.2.parameters.density: no effect, as task_arithmetic does not use it." in found.notes
    assert "models.0.parameters.weight: no effect, as the base's own task vector is zero." in found.notes


def test_names_are_the_last_parts_of_paths_where_these_differ(folder, monkeypatch):
    text = LINEAR.replace("models/mail", str(folder / "other/news"))
    monkeypatch.chdir("/")
    assert list(read_recipe(write(folder, text)).experts) == ["models/news", str(folder / "other/news")]
    (folder / "models/mail.safetensors").touch()
    found = read_recipe(write(folder, LINEAR.replace("models/mail", "models/mail.safetensors")))
    assert list(found.experts) == ["news", "mail"]


def test_empty_parameters_are_none(folder):
    text = "merge_method: linear\nparameters:\nmodels: [{model: models/news, parameters: {weight: 1}}]"
    assert read_recipe(write(folder, text)).weights == {"news": 1.0}
    with pytest.raises(InputError, match=r"models\.0\.parameters\.weight: expected a number; found nothing"):
        read_recipe(write(folder, "merge_method: linear\nmodels:\n- model: models/news\n  parameters:\n"))


def test_it_prints_and_becomes_json(folder):
    found = read_recipe(write(folder, DARE_TIES))
    lines = str(found).splitlines()
    assert lines[0] == "dare_ties (convention mergekit, normalize False, rescale True, scale 1.0)"
    assert lines[2] == f"  news: weight 0.4, density 0.53, {folder / 'models/news'}"
    assert found.to_dict()["weights"] == {"news": 0.4, "mail": 0.3}
    assert "base: any" in str(read_recipe(write(folder, LINEAR)))


@pytest.mark.parametrize("text", [TIES, TASK_ARITHMETIC, LINEAR, LINEAR_WITH_BASE, DARE_TIES, DARE_LINEAR])
def test_a_recipe_is_what_merged_update_takes(folder, text):
    found = read_recipe(write(folder, text))
    taus = {name: {"w": torch.randn(3, 4)} for name in found.experts}
    update = merged_update(taus, found.weights, **found.settings)
    assert isinstance(found, Recipe) and update["w"].shape == (3, 4)


def test_the_weight_of_the_base_is_in_the_update(folder):
    found = read_recipe(write(folder, LINEAR_WITH_BASE))
    update = merged_update({"news": {"w": torch.tensor([3.0])}}, found.weights, **found.settings)
    assert update["w"].tolist() == [1.0], "(2 θ0 + θ) / 3 is a third of the way"


def changed(text, **changes):
    """A recipe with other values at the top level; None removes a key."""
    content = yaml.safe_load(text) | changes
    return yaml.safe_dump({key: value for key, value in content.items() if value is not None})


NEWS = {"model": "models/news", "parameters": {"weight": 0.5}}
REFUSED = {
    "slerp": (
        changed(TIES, merge_method="slerp"),
        r"merge_method: expected one of linear, .*'slerp'. It is a method of",
    ),
    "a typo": (changed(TIES, merge_method="tise"), r"merge_method: .*found 'tise'. Did you mean 'ties'"),
    "no method": (changed(TIES, merge_method=None), r"merge_method: expected the name .*found nothing. Write, for"),
    "slices": (
        changed(TIES, models=None, slices=[{"sources": [{"model": "models/news", "layer_range": [0, 2]}]}]),
        r"slices: expected none; .*write models",
    ),
    "modules": (changed(TIES, models=None, modules={"text": {}}), r"modules: expected none; .*at the top level"),
    "no models": (changed(TIES, models=None), r"models: expected a model besides the base; found nothing. Write"),
    "the base alone": (changed(TIES, models=[{"model": "models/base"}]), "models: expected a model besides the base"),
    "the base twice": (
        changed(TIES, models=[{"model": "models/base"}, NEWS, {"model": "models/base"}]),
        r"models\.2\.model: expected the base once; found 'models/base'",
    ),
    "the base in other words": (
        changed(TIES, models=[NEWS, {"model": "models/../models/base", "parameters": {"weight": 1}}]),
        r"models\.1\.model: expected another folder than the others; .*It is the one of base_model",
    ),
    "a model twice": (
        changed(TIES, models=[NEWS, {**NEWS, "model": "./models/news"}]),
        r"models\.1\.model: .*It is the one of models\.0\.model",
    ),
    "no base": (changed(TIES, base_model=None), r"base_model: expected a path; found nothing. ties adds updates to it"),
    "names for models": (changed(TIES, models=["models/news"]), r"models\.0: expected a list of models"),
    "a mapping of models": (changed(TIES, models={"news": 1}), "models: expected a list of models"),
    "a model as a mapping": (changed(TIES, models=[{"model": {"path": "a"}}]), r"models\.0\.model: expected a path"),
    "no weight": (
        changed(TIES, models=[{"model": "models/news"}]),
        r"models\.0\.parameters\.weight: expected a number; found nothing. ties needs one for every model",
    ),
    "a gradient": (
        changed(TIES, models=[{"model": "models/news", "parameters": {"weight": [0, 0.5, 1]}}]),
        r"models\.0\.parameters\.weight: expected one value for all layers; found \[0, 0\.5, 1\]. Values by layer",
    ),
    "a common gradient": (
        changed(TIES, models=[NEWS], parameters={"density": [1, 0.1]}),
        r"parameters\.density: expected one value for all layers; found \[1, 0\.1\]",
    ),
    "a filter": (
        changed(TIES, models=[{"model": "models/news", "parameters": {"weight": [{"filter": "mlp", "value": 1}]}}]),
        r"models\.0\.parameters\.weight: expected one value for all layers; .*by filter are not read here",
    ),
    "a text for a number": (
        changed(TIES, models=[{"model": "models/news", "parameters": {"weight": "half"}}]),
        r"models\.0\.parameters\.weight: expected a finite number; found 'half'. Write, for example, weight: 0\.5",
    ),
    "no number": (
        changed(TIES, models=[{"model": "models/news", "parameters": {"weight": None}}]),
        r"models\.0\.parameters\.weight: expected a finite number; found nothing",
    ),
    "density of nothing": (
        changed(TIES, models=[NEWS], parameters={"density": 0}),
        r"parameters\.density: expected a number above 0",
    ),
    "density in percent": (
        changed(TIES, models=[NEWS], parameters={"density": 50}),
        r"parameters\.density: .* up to 1; found 50\. Leave out",
    ),
    "a flag": (changed(TIES, parameters={"normalize": 1}), r"parameters\.normalize: expected true or false; found 1"),
    "gamma": (
        changed(TIES, parameters={"gamma": 0.01}),
        r"parameters: expected names among weight, .*; found 'gamma'. mergekit ignores others in ties",
    ),
    "a parameter of a model": (
        changed(TIES, models=[{"model": "models/news", "parameters": {"wieght": 1}}]),
        r"models\.0\.parameters: expected names among .*'wieght'. .*Did you mean 'weight'",
    ),
    "a key": (changed(TIES, merge_metod="ties"), r"merge_metod: expected a key among .*Did you mean 'merge_method'"),
    "a key of a model": (
        changed(TIES, models=[{**NEWS, "weight": 1}]),
        r"models\.0\.weight: expected a list of models",
    ),
    "a dtype": (changed(TIES, dtype="int8"), r"dtype: expected one of float32, .*; found 'int8'"),
    "added tokens": (
        changed(TIES, tokenizer={"source": "union", "tokens": {"<s>": {}}}),
        r"tokenizer\.tokens: expected only a source; .*resize the models first",
    ),
    "a hub id": (
        changed(TIES, base_model="meta-llama/Llama-3.2-1B", models=[NEWS]),
        r"base_model: .*'meta-llama/Llama-3\.2-1B': nothing at .*hf download meta-llama/Llama-3\.2-1B --local-dir",
    ),
    "a revision": (
        changed(TIES, models=[{**NEWS, "model": "org/news@v2"}]),
        r"models\.0\.model: .*hf download org/news --revision v2 --local-dir FOLDER",
    ),
    "a path that leads nowhere": (
        changed(TIES, models=[{**NEWS, "model": "./models/none"}]),
        r"models\.0\.model: expected a folder or file; .*nothing at .*relative to the folder of the recipe\.$",
    ),
    "an adapter of another model": (
        changed(TIES, models=[{**NEWS, "model": "models/news+adapters/mail"}]),
        r"models\.0\.model: expected a model, or base_model\+adapter; .*merge_and_unload",
    ),
    "an adapter that is not there": (
        changed(TIES, models=[{**NEWS, "model": "models/base+adapters/none"}]),
        r"models\.0\.model: expected a folder or file; found 'adapters/none': nothing at",
    ),
    "linear with a base without weight": (
        LINEAR + "base_model: models/base",
        r"base_model: expected none in a linear merge, or one with a weight; .*list it with a weight",
    ),
    "linear that scales the base": (
        LINEAR + "parameters: {normalize: false}",
        r"parameters\.normalize: expected true where the weights add up to 1\.3; found False",
    ),
    "linear without a sum": (
        LINEAR.replace("0.3", "-1.0"),
        r"models: expected weights with a sum other than zero; found 0\.0",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_followed_is_refused_by_name(case, folder):
    text, message = REFUSED[case]
    with pytest.raises(InputError, match=rf"recipe\.yaml: {message}"):
        read_recipe(write(folder, text))


def test_paths_that_mergekit_would_take_from_elsewhere(folder, monkeypatch):
    """mergekit starts relative paths where it is run."""
    (folder / "recipes").mkdir()
    monkeypatch.chdir(folder)
    with pytest.raises(InputError, match=rf"mergekit takes them from where it is run: write '{folder}/models/base'"):
        read_recipe(write(folder / "recipes", TIES))


def test_files_that_are_no_recipe(folder):
    for name, text, message in [
        ("recipe.yaml", "models: [", "expected valid YAML"),
        ("recipe.yaml", "", "found nothing. Begin with merge_method: ties and models: "),
        ("recipe.json", "{}", r"expected a configuration ending in \.yaml"),
    ]:
        with pytest.raises(InputError, match=message):
            read_recipe(write(folder, text, name))
    with pytest.raises(InputError, match=r"none\.yaml: expected a configuration file"):
        read_recipe(folder / "none.yaml")


@pytest.mark.parametrize("text", [TIES, TASK_ARITHMETIC, LINEAR, LINEAR_WITH_BASE, DARE_TIES, DARE_LINEAR])
@pytest.mark.parametrize("name", ["recipe.yaml", "recipe.yml", "recipe.YAML"])
def test_recipes_are_known_by_their_method(tmp_path, text, name):
    assert is_recipe(write(tmp_path, text, name))
    assert is_recipe(str(write(tmp_path, "merge_method: slerp\nslices: []", name))), "a recipe that is refused is one"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("run.yaml", "base: models/base\nexperts: {merge_method: models/news}\nkind: sequence-classification"),
        ("empty.yaml", ""),
        ("list.yaml", "- merge_method"),
        ("word.yml", "merge_method"),
        ("run.toml", 'merge_method = "ties"'),
        ("broken.toml", "merge_method = ties:"),
        ("notes.txt", "merge_method: ties"),
    ],
)
def test_other_files_are_no_recipes(tmp_path, name, text):
    assert not is_recipe(write(tmp_path, text, name))


def test_no_configuration_of_ours_has_the_key_of_a_recipe():
    assert "merge_method" not in RunConfig.model_fields


def test_what_is_no_file_is_no_recipe(tmp_path):
    assert not is_recipe(tmp_path) and not is_recipe(tmp_path / "missing.safetensors")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("merge_method: [ties", r"recipe\.yaml: expected valid YAML; found .*\. Correct it there"),
        ("merge_method: ties\nmerge_method: linear", "the key 'merge_method' is given twice"),
    ],
)
def test_a_broken_file_may_be_either(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        is_recipe(write(tmp_path, text))


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match=r"missing\.yaml: expected a configuration file; found No such file"):
        is_recipe(tmp_path / "missing.yaml")
    (tmp_path / "folder.yaml").mkdir()
    with pytest.raises(InputError, match=r"folder\.yaml: expected a configuration file; found Is a directory"):
        is_recipe(tmp_path / "folder.yaml")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"bytes\.yaml: expected valid YAML"):
        is_recipe(tmp_path / "bytes.yaml")
