"""The streamed geometry against a plain float64 definition that holds everything at once."""

import math
import pathlib
import threading
import time
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from diagnostics import CheckpointError, InputError, geometry
from diagnostics.inputs.adapters import open_expert
from diagnostics.inputs.alignment import align
from diagnostics.inputs.checkpoints import FileCheckpoint, MemoryCheckpoint, open_checkpoint
from diagnostics.measures import streaming
from tests.inputs.test_checkpoints import write_shards
from tests.measures.test_factors import model, save_adapter

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.float8_e4m3fn)
OPEN = Path("/proc/self/fd")
SHAPES = ((), (0, 3), (1,), (5, 7), (200,), (13, 11), (3, 64))


@st.composite
def models(draw):
    """A base and up to 20 experts of a few tensors, each model's tensors in dtypes of their own."""
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    shapes = {f"t{place}": shape for place, shape in enumerate(draw(st.permutations(SHAPES)))}
    base = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    found = {}
    for number in range(draw(st.integers(1, 20)) + 1):
        scale = draw(st.sampled_from([0.0, 1e-3, 1.0])) if number else 0.0
        values = {name: value + scale * rng.normal(size=value.shape) for name, value in base.items()}
        found[f"m{number}"] = {
            name: torch.tensor(value, dtype=torch.float64).to(draw(st.sampled_from(DTYPES)))
            for name, value in values.items()
        }
    return found.pop("m0"), found


def plainly(base, experts, names):
    """Gram matrix and norm of the base by the definition, whole vectors of some tensors at once."""
    flat = lambda params: np.concatenate([params[name].double().numpy().ravel() for name in names])  # noqa: E731
    moves = np.stack([flat(params) - flat(base) for params in experts.values()])
    return np.einsum("ik,jk->ij", moves, moves), math.sqrt((flat(base) ** 2).sum())


@contextmanager
def small():
    """Slices and blocks of few coordinates, so that tensors take several of each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streaming, "_NUMBERS", 64 * 8)
        patch.setattr(streaming, "_SLICE", 150)
        patch.setattr(streaming, "_PRODUCT", 64)
        patch.setattr(streaming, "_SERIAL", 20)
        yield patch


@settings(deadline=None, max_examples=40)
@given(case=models(), threads=st.integers(1, 3))
def test_sums_are_those_of_the_definition(tmp_path_factory, case, threads):
    base, experts = case
    folder = tmp_path_factory.mktemp("models")
    paths = {}
    for name, params in {"base": base, **experts}.items():
        (folder / name).mkdir()
        write_shards(folder / name, params, {key: len(key + name) * place % 3 for place, key in enumerate(params)})
        paths[name] = folder / name
    with small():
        held = geometry(base, experts)
    with small() as patch:
        patch.setattr(torch, "get_num_threads", lambda: threads)
        found = geometry(paths.pop("base"), paths)
    assert list(found.layers) == list(base)
    for part, names in [(found, list(base)), *((layer, [name]) for name, layer in found.layers.items())]:
        gram, norm = plainly(base, experts, names)
        scale = np.sqrt(np.outer(gram.diagonal(), gram.diagonal()))
        assert (np.abs(part.gram.numpy() - gram) <= 1e-12 * scale).all()
        assert part.base_norm == pytest.approx(norm, rel=1e-12)
        assert part.dimension == sum(base[name].numel() for name in names)
    assert torch.equal(held.gram, found.gram), "the same blocks, so the same rounding, with any number of threads"
    assert torch.equal(held.signs.opposite, found.signs.opposite)


def test_angles_between_vectors_that_are_nearly_the_same():
    """Experts that differ in one coordinate of many, by little: 1 − cos is 5e-13, far below float32."""
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(100_000, generator=generator)
    move = torch.randn(100_000, generator=generator, dtype=torch.float64)
    other = move.clone()
    other[0] += 1e-6 * move.norm()
    found = geometry({"w": base}, {"a": {"w": base + move}, "b": {"w": base + other}}).cosine[0, 1]
    away = other - move
    across = away - (away @ move) / (move @ move) * move
    expected = float(across.norm() / other.norm()) ** 2 / 2
    assert expected > 4e-13 and abs((1 - float(found)) - expected) < 3e-15


def test_a_small_update_of_large_weights_keeps_its_digits():
    """‖τ‖ is a millionth of ‖θ0‖: products of the models themselves would lose all but four digits."""
    generator = torch.Generator().manual_seed(1)
    base = torch.randn(70_000, generator=generator, dtype=torch.float64)
    moves = 1e-6 * torch.randn(2, 70_000, generator=generator, dtype=torch.float64)
    found = geometry({"w": base}, {name: {"w": base + move} for name, move in zip("ab", moves, strict=True)})
    exact = (base + moves) - base
    expected = [[math.fsum((a * b).tolist()) for b in exact] for a in exact]
    np.testing.assert_allclose(found.gram, expected, rtol=1e-12, atol=1e-12 * expected[0][0])


@pytest.mark.parametrize(("block", "ends"), [(64, [64, 128, 192, 200]), (100, [64, 128, 192, 200]), (128, [128, 200])])
def test_a_file_is_read_once_in_parts_that_fit_a_block(tmp_path, monkeypatch, block, ends):
    """The largest of whole words of 64 signs."""
    monkeypatch.setattr(streaming, "_BLOCK", block)
    whole, seen = FileCheckpoint.parts, []

    @contextmanager
    def watched(self, name):
        with whole(self, name) as read:
            yield lambda start, stop, buffer: (seen.append((self.label, start, stop)), read(start, stop, buffer))[1]

    monkeypatch.setattr(FileCheckpoint, "parts", watched)
    monkeypatch.setattr(FileCheckpoint, "tensor", None)
    for name in ("base", "a"):
        save_file({"w": torch.ones(200)}, tmp_path / f"{name}.safetensors")
    geometry(tmp_path / "base.safetensors", {"a": tmp_path / "a.safetensors"})
    assert seen == [(label, *part) for part in pairwise([0, *ends]) for label in ("base", "a")]


@pytest.mark.parametrize("models", [1, 8, 71, 1000])
def test_memory_of_a_thread_does_not_grow_with_the_number_of_models(models):
    space = streaming._Workspace(models)
    assert space.numbers.nbytes <= 8 << 20 and space.flags.nbytes <= 2 << 20 and space.bytes.nbytes <= 1 << 19


@pytest.mark.skipif(not pathlib.Path("/proc/self/fd").is_dir(), reason="open files are counted as Linux lists them")
@pytest.mark.parametrize(("most", "allowed"), [(8, 8), (10, 8), (2, 4)])
def test_few_files_are_open_at_a_time(tmp_path, monkeypatch, most, allowed):
    """Small tensors end as soon as they are begun: there could be as many open as there are threads, twice."""
    paths = [tmp_path / f"{number}.safetensors" for number in range(4)]
    for number, path in enumerate(paths):
        save_file({f"t{place:02}": torch.full((3,), float(number)) for place in range(30)}, path)
    monkeypatch.setattr(streaming, "_FILES", most)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    opened = {name: open_checkpoint(path) for name, path in zip(("base", "a", "b", "c"), paths, strict=True)}
    alignment = align(opened["base"], {name: opened[name] for name in "abc"})
    whole, before, seen = FileCheckpoint.parts, len(list(OPEN.iterdir())), []

    @contextmanager
    def watched(self, name):
        with whole(self, name) as read:
            seen.append(len(list(OPEN.iterdir())) - before)
            yield read

    monkeypatch.setattr(FileCheckpoint, "parts", watched)
    assert len(list(streaming.stream_sums(opened, alignment, 3))) == 30
    assert len(seen) == 120 and max(seen) == allowed, f"{max(seen)} files of 4 models are open"


def test_no_more_threads_read_than_torch_has_and_each_has_a_slice_in_store(monkeypatch):
    values = {f"t{place}": torch.zeros(3) for place in range(30)}
    opened = {name: open_checkpoint(values) for name in ("base", "a")}
    begun, readers, parts = [], set(), MemoryCheckpoint.parts

    @contextmanager
    def slow(self, name):
        begun.append(name)
        with parts(self, name) as read:
            yield lambda *rest: (readers.add(threading.get_ident()), time.sleep(0.002), read(*rest))[-1]

    monkeypatch.setattr(MemoryCheckpoint, "parts", slow)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    sums = streaming.stream_sums(opened, align(opened["base"], {"a": opened["a"]}), 1)
    next(sums)
    assert len(set(begun)) == 1 + 2 * 3, "beside the one that is handed out"
    assert len(list(sums)) == 29 and 1 <= len(readers) <= 3


def test_slices_cover_a_tensor_and_an_empty_one_has_one(monkeypatch):
    monkeypatch.setattr(streaming, "_SLICE", 1)
    opened = {name: open_checkpoint({f"t{n}": torch.zeros(n) for n in range(4)}) for name in ("base", "a")}
    found = streaming.stream_sums(opened, align(opened["base"], {"a": opened["a"]}), 1)
    assert [name for name, _ in found] == ["t0", "t1", "t2", "t2", "t3", "t3", "t3"]


def test_a_later_slice_is_counted_as_cheaply_as_the_first(monkeypatch):
    """Where all move, fewer bits are counted; whether all do is a matter of the slice."""
    monkeypatch.setattr(streaming, "_SLICE", 128)
    counted, seen = np.bitwise_count, []
    monkeypatch.setattr(np, "bitwise_count", lambda words: (seen.append(words.size), counted(words))[1])
    experts = {name: {"w": torch.ones(512)} for name in "abc"}
    geometry({"w": torch.zeros(128)}, {name: {"w": value["w"][:128]} for name, value in experts.items()})
    first = sum(seen)
    geometry({"w": torch.zeros(512)}, experts)
    assert sum(seen) == 5 * first


@pytest.mark.parametrize("count", [2, 3, 6, 20])
def test_products_are_few_and_as_long_as_is_fast(monkeypatch, count):
    """Never of a matrix by its own transpose; groups of rows, and stretches of whole words, as large as may be."""
    monkeypatch.setattr(streaming, "_PRODUCT", 1 << 14)
    width, most, shapes = 10_000, streaming._ROWS, []

    class Watched(np.ndarray):
        def __matmul__(self, other):
            shapes.append((len(self), other.shape[1], self.shape[1]))
            return np.asarray(self) @ np.asarray(other)

    rows = np.random.default_rng(0).normal(size=(count, width))
    gram = np.zeros((count, count))
    streaming._add_products(gram, rows.view(Watched))
    np.testing.assert_allclose(np.triu(gram), np.triu(rows @ rows.T), atol=1e-9)
    assert sum(length for *_, length in shapes) == width * max(2, math.ceil(count / most))
    longest = {(height, across): length for height, across, length in sorted(shapes)}
    for (height, across), length in longest.items():
        assert height < across and length % 64 == 0
        assert height * across * length <= 1 << 14 < height * across * (length + 64)


def test_a_file_that_is_cut_while_it_is_read_is_named(tmp_path, monkeypatch):
    for name in ("base", "a"):
        save_file({"v": torch.ones(20), "w": torch.ones(200)}, tmp_path / f"{name}.safetensors")
    path, align = tmp_path / "a.safetensors", streaming.stream_sums
    monkeypatch.setattr(
        "diagnostics.measures.geometry.stream_sums",
        lambda *rest: (path.write_bytes(path.read_bytes()[:-8]), align(*rest))[1],
    )
    with pytest.raises(CheckpointError, match=r"a\.safetensors: expected a complete .*it ends within w"):
        geometry(tmp_path / "base.safetensors", {"a": path})


def test_values_that_are_not_finite_stay_in_their_own_rows_and_are_refused():
    bad, good = torch.tensor([math.nan, math.inf, 1.0]), torch.tensor([1.0, 2.0, 2.0])
    models = {"base": torch.zeros(3), "bad": bad, "good": good}
    opened = {name: open_checkpoint({"w": value}, label=name) for name, value in models.items()}
    experts = {name: opened[name] for name in ("bad", "good")}
    ((_, sums),) = streaming.stream_sums(opened, align(opened["base"], experts), 2)
    assert sums.gram[1, 1] == 9 and sums.gram[0].isnan().all()
    assert sums.signs.both.tolist() == [[2, 2], [2, 3]]
    with pytest.raises(InputError, match=r"bad: expected finite values; found w: 1 NaN, 1 infinite of 3"):
        geometry({"w": models["base"]}, {"bad": {"w": bad}, "good": {"w": good}})


def test_differences_without_a_value_are_refused_by_name():
    with pytest.raises(InputError, match=r"base: expected finite values; found w: 0 NaN, 1 infinite of 2"):
        geometry({"w": torch.tensor([math.inf, 0.0])}, {"a": {"w": torch.tensor([math.inf, 1.0])}})


@pytest.mark.parametrize(("base", "expert", "target"), [(-1e200, 1e200, 0), (1e200, 1e200, 0), (0, 1, 1e200)])
def test_squares_beyond_float64_are_refused_though_every_value_is_finite(base, expert, target):
    base, expert, target = ({"w": torch.tensor([value], dtype=torch.float64)} for value in (base, expert, target))
    with pytest.raises(InputError, match=r"squared norms of models and task vectors below 2e\+308; found larger ones"):
        geometry(base, {"a": expert}, target=target)


def test_a_target_that_is_not_finite_is_refused_by_name():
    base, expert = {"w": torch.zeros(2)}, {"w": torch.ones(2)}
    with pytest.raises(InputError, match=r"target: expected finite values; found w: 1 NaN, 0 infinite of 2"):
        geometry(base, {"a": expert}, target={"w": torch.tensor([math.nan, 1.0])})


def test_an_empty_tensor_has_a_geometry_and_no_weight_in_the_floor():
    base = {"none": torch.zeros(0), "w": torch.zeros(2)}
    found = geometry(base, {"a": {"none": torch.zeros(0), "w": torch.ones(2)}})
    assert found.layers["none"].gram.tolist() == [[0.0]] and found.layers["none"].dimension == 0
    assert found.to_dict()["layers"]["none"]["null_cosine"] is None
    assert found.null_cosine_layerwise.item() == pytest.approx(math.sqrt(2 / math.pi / 2))


@pytest.mark.parametrize("step", [1, 7])
def test_an_adapter_is_read_in_parts_as_it_is_whole(tmp_path, step):
    base = {name: value.detach() for name, value in model().named_parameters()}
    expert = open_expert(open_checkpoint(base), save_adapter(tmp_path, 1))
    buffer = torch.empty(8 * step, dtype=torch.uint8)
    assert expert.adapted and set(expert.adapted) != set(expert.names)
    for name in expert.names:
        whole = expert.tensor(name).reshape(-1)
        with expert.parts(name) as read:
            parts = [read(at, min(at + step, len(whole)), buffer).clone() for at in range(0, len(whole), step)]
        assert torch.equal(torch.cat(parts), whole), name


def test_an_adapter_beside_a_whole_model(tmp_path):
    base = {name: value.detach() for name, value in model().named_parameters()}
    folder = save_adapter(tmp_path, 1)
    whole = open_expert(open_checkpoint(base), folder)
    merged = {name: whole.tensor(name) for name in whole.names}
    found = geometry(base, {"a": folder, "b": merged})
    assert torch.equal(found.gram, found.gram[:1, :1].expand(2, 2)) and found.sign_conflict[0, 1] == 0
