"""Mistakes in checkpoints: paths, broken files, pickles, indexes, models that do not fit together."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import torch

import diagnostics as dx
from tests.errors.mistake import Mistake, header, model, text

INDEX = "model.safetensors.index.json"


def checked(base: str, *experts: str) -> Callable[[], object]:
    """The call behind a command line of paths."""
    return lambda: dx.geometry(base, list(experts))


def mistake(change: Callable[[Path], object], path: str = "broken.safetensors", **options) -> Mistake:
    """A model that cannot be read, given as an expert."""
    return Mistake(f"geometry base.safetensors {path}", change, checked("base.safetensors", path), **options)


class Opened:
    """Unpickling this leaves a file behind."""

    def __reduce__(self):
        return os.system, ("touch opened-by-a-pickle",)


PICKLE = pickle.dumps(Opened())
ZIPPED = b"PK\x03\x04" + bytes(60)


def cut(at: int) -> Callable[[Path], object]:
    """The first bytes of a model; a negative number cuts from the end."""
    return lambda folder: text("broken.safetensors", (folder / "news.safetensors").read_bytes()[:at])(folder)


def index(weight_map: dict[str, str], *, shards: tuple[str, ...] = ("one.safetensors",)) -> Callable[[Path], object]:
    """A folder with an index, and shards that hold the whole model each."""

    def change(folder: Path) -> None:
        (folder / "sharded").mkdir()
        for shard in shards:
            shutil.copy(folder / "news.safetensors", folder / "sharded" / shard)
        (folder / "sharded" / INDEX).write_text(json.dumps({"weight_map": weight_map}))

    return change


def adapter(**options: object) -> Callable[[Path], object]:
    """A folder with an adapter's configuration and no factors that fit."""

    def change(folder: Path) -> None:
        (folder / "adapter").mkdir()
        config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, **options}
        (folder / "adapter" / "adapter_config.json").write_text(json.dumps(config))
        shutil.copy(folder / "news.safetensors", folder / "adapter" / "adapter_model.safetensors")

    return change


def folder_with(name: str, content: bytes = PICKLE) -> Callable[[Path], object]:
    """A folder with one file."""

    def change(folder: Path) -> None:
        (folder / "model").mkdir()
        (folder / "model" / name).write_bytes(content)

    return change


def loop(folder: Path) -> None:
    """A link to itself."""
    (folder / "loop").symlink_to("loop")


def two_files(folder: Path) -> None:
    """A folder with two models."""
    (folder / "two").mkdir()
    for name in ("news", "mail"):
        shutil.copy(folder / f"{name}.safetensors", folder / "two")


def tensor(**entry: object) -> dict[str, object]:
    """A header of one tensor."""
    return {"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **entry}}


BROKEN = "broken.safetensors"
NAN, INF = torch.tensor([1.0, float("nan")]), torch.tensor([float("-inf"), 1.0])
OVERLAP = {"v": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]}, **tensor()}
BOTH = {"weight": "one.safetensors", "bias": "one.safetensors"}

MODELS: dict[str, Mistake] = {
    "a path that leads nowhere": mistake(lambda folder: None, "nowhere"),
    "a path too long to look up": mistake(lambda folder: None, "x" * 300),
    "a home of nobody": mistake(lambda folder: None, "~nobody-of-this-name/model"),
    "links in a circle": mistake(loop, "loop"),
    "a text file": mistake(lambda folder: None, "notes.txt"),
    "a folder without weights": mistake(lambda folder: (folder / "empty").mkdir(), "empty"),
    "a folder with two files": mistake(two_files, "two"),
    "an empty file": mistake(text(BROKEN, "")),
    "a header cut": mistake(cut(40)),
    "data cut": mistake(cut(-5)),
    "an absurd length of the header": mistake(text(BROKEN, header({}, length=2**63))),
    "a header of gigabytes": mistake(text(BROKEN, header({}, length=2**33))),
    "a header that is not JSON": mistake(text(BROKEN, header(b"{'w': 1}"))),
    "a dtype that nobody knows": mistake(text(BROKEN, header(tensor(dtype="F7"), bytes(8)))),
    "a dtype that torch lacks": mistake(text(BROKEN, header(tensor(dtype="F8_E8M0", shape=[8]), bytes(8)))),
    "offsets that overlap": mistake(text(BROKEN, header(OVERLAP, bytes(12)))),
    "offsets beyond the end": mistake(text(BROKEN, header(tensor(data_offsets=[0, 800], shape=[200]), bytes(8)))),
    "negative offsets": mistake(text(BROKEN, header(tensor(data_offsets=[-8, 0]), bytes(8)))),
    "a GGUF file": mistake(text("model.gguf", b"GGUF\3" + bytes(40)), "model.gguf"),
    "a pointer of Git LFS": mistake(text(BROKEN, "version https://git-lfs.github.com/spec/v1\nsize 9\n")),
    "a pickled file": mistake(text("model.pt", PICKLE), "model.pt"),
    "a pickled folder": mistake(folder_with("pytorch_model.bin"), "model"),
    "a pickle under another name": mistake(text(BROKEN, PICKLE)),
    "a zipped pickle under another name": mistake(text(BROKEN, ZIPPED)),
    "a pickle as a shard": mistake(index({"w": "one.bin"}, shards=("one.bin",)), "sharded"),
    "an index out of its folder": mistake(index({"weight": "../news.safetensors"}), "sharded"),
    "an index of a missing shard": mistake(index({**BOTH, "bias": "two.safetensors"}), "sharded"),
    "an index of a missing tensor": mistake(index({**BOTH, "scale": "one.safetensors"}), "sharded"),
    "an index without a map": mistake(index({}), "sharded"),
    "an index that is not JSON": mistake(folder_with(INDEX, b"{"), "model"),
    "an adapter of another kind": mistake(adapter(peft_type="IA3"), "adapter"),
    "an adapter without a rank": mistake(adapter(r=0), "adapter"),
    "an adapter of other tensors": mistake(adapter(), "adapter"),
    "NaN in an expert": mistake(model(BROKEN, bias=NAN)),
    "Inf in an expert": mistake(model(BROKEN, bias=INF)),
    "a tensor missing": mistake(model(BROKEN, bias=None)),
    "a tensor too many": mistake(model(BROKEN, scale=torch.ones(2))),
    "another shape": mistake(model(BROKEN, bias=torch.ones(3))),
    "other names": mistake(model(BROKEN, bias=None, weight=None, **{"net.weight": torch.ones(2, 3), "net.bias": NAN})),
    "an expert that is the base": mistake(lambda folder: None, "base.safetensors"),
    "a private name of nothing": Mistake(
        "geometry base.safetensors news.safetensors --private head",
        call=lambda: dx.geometry("base.safetensors", ["news.safetensors"], private=["head"]),
    ),
    "two experts of one name": Mistake(
        "geometry base.safetensors news.safetensors ./news.safetensors",
        call=checked("base.safetensors", "news.safetensors", "./news.safetensors"),
    ),
    "NaN in the base of a problem": Mistake("predict merge.yaml", model("base.safetensors", bias=NAN)),
    "no index of bases": Mistake("", call=lambda: dx.load_bases("base", "base.safetensors")),
}
