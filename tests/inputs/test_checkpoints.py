"""Reading checkpoints: every way of storing the same tensors gives them back, and nothing else is read."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from diagnostics.errors import CheckpointError
from diagnostics.inputs.checkpoints import is_adapter, load_parameters, open_checkpoint

DTYPES = [
    torch.float32,
    torch.bfloat16,
    torch.float16,
    torch.float64,
    torch.float8_e4m3fn,
    torch.int64,
    torch.bool,
]
INDEX = "model.safetensors.index.json"


def weights() -> dict[str, Tensor]:
    return {
        "layer.weight": torch.arange(6.0).reshape(2, 3),
        "layer.bias": torch.ones(2),
        "scale": torch.tensor(2.0),
    }


def write_shards(folder: Path, tensors: dict[str, Tensor], shard_of: dict[str, int]) -> Path:
    weight_map = {name: f"model-{shard}.safetensors" for name, shard in shard_of.items()}
    for file in sorted(set(weight_map.values())):
        save_file({name: tensors[name] for name in tensors if weight_map[name] == file}, folder / file)
    return write_index(folder, weight_map)


def write_index(folder: Path, weight_map: object) -> Path:
    index = folder / INDEX
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return index


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype, name
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=0, msg=f"{name} changed on the way")


@st.composite
def sharded(draw: st.DrawFn) -> tuple[dict[str, Tensor], dict[str, int]]:
    names = draw(st.lists(st.from_regex(r"[a-z]{1,3}(\.[a-z]{1,3}){0,2}", fullmatch=True), min_size=1, unique=True))
    tensors = {}
    for position, name in enumerate(names):
        shape = draw(st.lists(st.integers(0, 3), max_size=3))
        numbers = torch.arange(torch.Size(shape).numel()).reshape(shape) + position
        tensors[name] = numbers.to(draw(st.sampled_from(DTYPES)))
    return tensors, {name: draw(st.integers(0, 3)) for name in names}


@settings(deadline=None, max_examples=40)
@given(sharded())
def test_any_split_into_shards_gives_the_same_tensors(tmp_path_factory, case):
    tensors, shard_of = case
    folder = tmp_path_factory.mktemp("shards")
    index = write_shards(folder, tensors, shard_of)
    assert_same(load_parameters(folder), tensors)
    assert_same(load_parameters(index), tensors)


@settings(deadline=None, max_examples=40)
@given(sharded())
def test_headers_agree_with_the_tensors(tmp_path_factory, case):
    tensors, _ = case
    file = tmp_path_factory.mktemp("single") / "model.safetensors"
    save_file(tensors, file)
    checkpoint = open_checkpoint(file)
    assert {name: (checkpoint.shape(name), checkpoint.dtype(name)) for name in checkpoint.names} == {
        name: (tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items()
    }


@pytest.mark.parametrize("file", ["model.safetensors", "diffusion_pytorch_model.safetensors", "other.safetensors"])
@pytest.mark.parametrize("kind", [str, Path])
def test_folder_with_one_file(tmp_path, file, kind):
    save_file(weights(), tmp_path / file)
    assert_same(load_parameters(kind(tmp_path)), weights())
    assert open_checkpoint(kind(tmp_path)).label == str(tmp_path)
    assert open_checkpoint(kind(tmp_path), label="mine").label == "mine"


def test_model_file_is_preferred_to_others_beside_it(tmp_path):
    save_file(weights(), tmp_path / "model.safetensors")
    save_file({"w": torch.ones(1)}, tmp_path / "optimizer.safetensors")
    assert_same(load_parameters(tmp_path), weights())


def test_diffusers_index(tmp_path):
    index = write_shards(tmp_path, weights(), dict.fromkeys(weights(), 0))
    index.rename(tmp_path / "diffusion_pytorch_model.safetensors.index.json")
    assert_same(load_parameters(tmp_path), weights())


def test_hub_cache_links_into_its_own_blobs(tmp_path):
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "abc"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    save_file(weights(), blobs / "0f0f")
    (snapshot / "model-0.safetensors").symlink_to("../../blobs/0f0f")
    write_index(snapshot, dict.fromkeys(weights(), "model-0.safetensors"))
    assert_same(load_parameters(snapshot), weights())


def test_values_are_read_only_when_asked_for(tmp_path):
    save_file({"a": torch.ones(3), "b": torch.zeros(3)}, tmp_path / "model.safetensors")
    checkpoint = open_checkpoint(tmp_path)
    file = tmp_path / "model.safetensors"
    with file.open("r+b") as handle:  # the last tensor's bytes, changed after opening
        handle.seek(-12, os.SEEK_END)
        handle.write(torch.full((3,), 7.0).numpy().tobytes())
    assert checkpoint.tensor("b").tolist() == [7.0, 7.0, 7.0], "the values were read at opening"


def test_file_that_vanishes_after_opening_is_named(tmp_path):
    save_file(weights(), tmp_path / "model.safetensors")
    checkpoint = open_checkpoint(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors: expected a complete safetensors file"):
        checkpoint.tensor("scale")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_reading_leaves_nothing_mapped(tmp_path):
    save_file(weights(), tmp_path / "model.safetensors")
    checkpoint = open_checkpoint(tmp_path)
    for name in checkpoint.names:
        checkpoint.tensor(name).sum()
    assert str(tmp_path) not in Path("/proc/self/maps").read_text(), "pages of the file stay in memory"


def test_tied_tensors_count_once_in_memory():
    weight, storage, square = torch.ones(2, 3), torch.arange(8.0), torch.ones(2, 2)
    tensors = {
        "embed": weight,
        "head": weight,
        "same memory": weight.view(2, 3),
        "flat view": weight.view(6),
        "transposed": square.T,
        "square": square,
        "copy": weight.clone(),
        "first half": storage[:4],
        "second half": storage[4:],
        "empty": torch.empty(0),
        "also empty": torch.empty(0),
    }
    checkpoint = open_checkpoint(tensors)
    assert checkpoint.aliases == {"head": "embed", "same memory": "embed"}
    assert set(checkpoint.names) == set(tensors) - checkpoint.aliases.keys()


def test_module_parameters_are_detached():
    layer = torch.nn.Linear(2, 2)
    parameters = load_parameters(dict(layer.named_parameters()))
    assert not any(tensor.requires_grad for tensor in parameters.values())
    assert parameters["weight"].data_ptr() == layer.weight.data_ptr(), "memory was copied"


Writer = Callable[[Path], object]


def file_of(name: str, content: bytes) -> Writer:
    def write(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return write


def folder_of(*names: str) -> Writer:
    def write(folder: Path) -> Path:
        for name in names:
            save_file(weights(), folder / name)
        return folder

    return write


def junk_folder(*names: str) -> Writer:
    def write(folder: Path) -> Path:
        for name in names:
            (folder / name).write_bytes(b"\x80\x04junk")
        return folder

    return write


def index_of(content: str) -> Writer:
    def write(folder: Path) -> Path:
        (folder / INDEX).write_text(content)
        return folder

    return write


def truncated(folder: Path) -> Path:
    save_file(weights(), folder / "model.safetensors")
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:-3])
    return folder


def shard_missing(folder: Path) -> Path:
    write_shards(folder, weights(), {"layer.weight": 0, "layer.bias": 1, "scale": 1})
    (folder / "model-1.safetensors").unlink()
    return folder


def pointing_to(shard: str) -> Writer:
    def write(folder: Path) -> Path:
        model = folder / "model"
        model.mkdir()
        save_file(weights(), folder / "outside.safetensors")
        (model / "link.safetensors").symlink_to(folder / "outside.safetensors")
        write_index(model, dict.fromkeys(weights(), shard.format(folder=folder)))
        return model

    return write


def index_naming(weight_map: dict[str, str]) -> Writer:
    def write(folder: Path) -> Path:
        save_file(weights(), folder / "model-0.safetensors")
        write_index(folder, weight_map)
        return folder

    return write


def adapter(*beside: str) -> Writer:
    def write(folder: Path) -> Path:
        (folder / "adapter_config.json").write_text("{}")
        return folder_of("adapter_model.safetensors", *beside)(folder)

    return write


def file_without_tensors(folder: Path) -> Path:
    save_file({}, folder / "model.safetensors")
    return folder


def unsupported_dtype(folder: Path) -> Path:
    header = json.dumps({"w": {"dtype": "F8_E8M0", "shape": [1], "data_offsets": [0, 1]}}).encode()
    (folder / "m.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"\0")
    return folder


ALL = dict.fromkeys(weights(), "model-0.safetensors")
REFUSED: dict[str, tuple[Writer, list[str]]] = {
    "missing path": (lambda folder: folder / "nowhere", ["nowhere", "nothing there", "downloaded"]),
    "empty folder": (lambda folder: folder, ["no weights of a whole model", "save_pretrained"]),
    "empty mapping": (lambda folder: {}, ["at least one tensor", "empty mapping"]),
    "a list": (lambda folder: [torch.ones(1)], ["list", "a module, a mapping of tensors or a path"]),
    "a module without parameters": (lambda folder: torch.nn.Tanh(), ["Tanh", "at least one tensor"]),
    "a number": (lambda folder: {"w": 1.0}, ["'w'", "float", "names and tensors"]),
    "meta tensor": (lambda folder: {"w": torch.empty(1, device="meta")}, ["w", "meta tensor"]),
    "sparse tensor": (lambda folder: {"w": torch.eye(2).to_sparse()}, ["w", "dense", "sparse_coo"]),
    "pickled file": (
        file_of("model.pt", b"PK\x03\x04"),
        ["pickled", ".pt", "safe_serialization=True", "save_file"],
    ),
    "pickled folder": (junk_folder("pytorch_model.bin"), ["pytorch_model.bin", "safe_serialization=True"]),
    "old checkpoint": (junk_folder("a.ckpt", "b.pth"), ["a.ckpt, b.pth", "Opening a pickle can run code"]),
    "disguised pickle": (
        file_of("model.safetensors", b"PK\x03\x04" + bytes(40)),
        ["pickled file under another name"],
    ),
    "GGUF file": (file_of("model.gguf", b"GGUF\x03" + bytes(40)), ["GGUF", "safetensors model"]),
    "GGUF folder": (junk_folder("model.gguf"), ["GGUF files (model.gguf)"]),
    "LFS pointer": (
        file_of("m.safetensors", b"version https://git-lfs.github.com/spec/v1\n"),
        ["git lfs pull"],
    ),
    "truncated file": (truncated, ["model.safetensors", "truncated or corrupt", "again"]),
    "empty file": (file_of("model.safetensors", b""), ["0 bytes", "truncated or corrupt"]),
    "text file": (file_of("model.safetensors", b"{'a': 1}" * 9), ["72 bytes", "corrupt"]),
    "unknown dtype": (unsupported_dtype, ["w", "F8_E8M0", "BF16"]),
    "two files": (
        folder_of("a.safetensors", "b.safetensors"),
        ["2 candidates: a.safetensors, b.safetensors", "index"],
    ),
    "index is not JSON": (index_of("{"), [INDEX, "valid JSON"]),
    "index is a list": (index_of("[]"), ["a JSON object", "list"]),
    "index without map": (index_of("{}"), [INDEX, "weight_map"]),
    "index with numbers": (index_of('{"weight_map": {"w": 1}}'), ["weight_map", "none that is usable"]),
    "index with empty map": (index_of('{"weight_map": {}}'), ["weight_map"]),
    "shard missing": (shard_missing, ["model-1.safetensors", "no such file"]),
    "absolute shard": (pointing_to("{folder}/outside.safetensors"), ["outside.safetensors", "leads outside"]),
    "shard above": (pointing_to("../outside.safetensors"), ["'../outside.safetensors', which leads outside"]),
    "linked shard": (pointing_to("link.safetensors"), ["'link.safetensors', which leads outside"]),
    "tensor missing": (
        index_naming({**ALL, "lost": "model-0.safetensors"}),
        ["missing from the shard: lost"],
    ),
    "tensor unnamed": (index_naming({"scale": ALL["scale"]}), ["not in the index: layer.bias, layer.weight"]),
    "adapter": (adapter(), ["PEFT adapter", "needs its base", "open_expert(base, folder)"]),
    "adapter file": (
        lambda folder: adapter()(folder) / "adapter_model.safetensors",
        ["open_expert(base, folder)"],
    ),
    "adapter and model": (adapter("model.safetensors"), ["both (adapter_config.json and model.safetensors)"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(tmp_path, case):
    write, fragments = REFUSED[case]
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(write(tmp_path))
    message = str(caught.value)
    assert [part for part in fragments if part not in message] == [], message
    assert "expected" in message and message.endswith("."), message


def test_index_beside_a_whole_file_is_ambiguous(tmp_path):
    write_shards(tmp_path, weights(), dict.fromkeys(weights(), 0))
    save_file(weights(), tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=f"2 candidates: model.safetensors, {INDEX}"):
        open_checkpoint(tmp_path)
    assert_same(load_parameters(tmp_path / "model.safetensors"), weights())


def test_long_lists_are_counted(tmp_path):
    save_file({f"t{i}": torch.ones(1) for i in range(9)}, tmp_path / "model-0.safetensors")
    write_index(tmp_path, {"t0": "model-0.safetensors"})
    with pytest.raises(CheckpointError, match="t1, t2, t3, t4, t5 and 3 more"):
        open_checkpoint(tmp_path)


def test_is_adapter_leaves_other_sources_alone(tmp_path):
    assert not is_adapter(tmp_path)
    assert not is_adapter({"adapter_config.json": torch.ones(1)})
