"""The same numbers from every batch size, thread count and process; no call touches random numbers of others."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import diagnostics as dx
from tests.inputs.tiny_models import load, write_folders
from tests.robustness.quantities import PARTS, draw, parameters, problem, quantities, task

# Largest difference, as a share of the largest number of a result; docs/explanation/robustness.md says why.
TOLERANCES = {torch.float64: 1e-13, torch.float32: 2e-5}


@pytest.fixture(scope="module", params=list(TOLERANCES), ids=str)
def reference(request: pytest.FixtureRequest) -> tuple[torch.dtype, dict[str, Tensor]]:
    """What is found in batches of 64 by one thread."""
    return request.param, quantities(request.param, 64)


def differences(found: dict[str, Tensor], expected: dict[str, Tensor]) -> dict[str, float]:
    """Largest difference of each quantity, as a share of its largest number."""
    assert found.keys() == expected.keys()
    return {
        name: float((found[name] - value).abs().max() / value.abs().max().clamp_min(1e-30))
        for name, value in expected.items()
    }


@pytest.mark.parametrize("batch_size", [1, 7])
def test_batches(reference: tuple[torch.dtype, dict[str, Tensor]], batch_size: int) -> None:
    dtype, expected = reference
    apart = differences(quantities(dtype, batch_size), expected)
    assert {name: share for name, share in apart.items() if not share <= TOLERANCES[dtype]} == {}


def test_threads(reference: tuple[torch.dtype, dict[str, Tensor]]) -> None:
    dtype, expected = reference
    torch.set_num_threads(2)
    try:
        found = quantities(dtype, 64)
    finally:
        torch.set_num_threads(1)
    apart = differences(found, expected)
    assert {name: share for name, share in apart.items() if not share <= TOLERANCES[dtype]} == {}


def test_the_page_says_what_is_tested() -> None:
    page = (Path(__file__).parents[2] / "docs" / "explanation" / "robustness.md").read_text()
    units = {dtype: allowed / (torch.finfo(dtype).eps / 2) for dtype, allowed in TOLERANCES.items()}
    rows = [
        f"| {str(dtype)[6:]} | {allowed:.0e} | {round(units[dtype], -1):.0f} |" for dtype, allowed in TOLERANCES.items()
    ]
    assert [row for row in rows if row not in page] == []


def test_the_comparison_notices_another_number(reference: tuple[torch.dtype, dict[str, Tensor]]) -> None:
    dtype, expected = reference
    moved = {name: value * (1 + 3 * TOLERANCES[dtype]) for name, value in expected.items()}
    assert min(differences(moved, expected).values()) > TOLERANCES[dtype]


def test_a_fresh_process_finds_the_same_to_the_bit(tmp_path: Path) -> None:
    """One with another seed of Python's hashes, so that the order of no set is relied upon."""
    runs = []
    for seed in ("1", "2"):
        settings = {"PYTHONHASHSEED": seed, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, "-m", "tests.robustness.quantities", str(tmp_path / seed)]
        runs.append(subprocess.Popen(command, env={**os.environ, **settings}))
    assert [run.wait() for run in runs] == [0, 0]
    first, second = (load_file(tmp_path / seed) for seed in ("1", "2"))
    assert first.keys() == second.keys() and len(first) == 2 * len(quantities(torch.float32, 64))
    assert [name for name, value in first.items() if not torch.equal(value, second[name])] == []


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models and data in files."""
    home = write_folders(tmp_path_factory.mktemp("models"))
    base = parameters(torch.float32)
    save_file(base, home / "base.safetensors")
    for seed in (1, 2, 3):
        moved = {name: value + 0.01 * draw(seed, *value.shape, dtype=value.dtype) for name, value in base.items()}
        save_file(moved, home / f"expert-{seed}.safetensors")
    return home


def calls(folders: Path) -> Iterator[tuple[str, Callable[[], object]]]:
    """What else is measured, by name."""
    base, *experts = (folders / f"{name}.safetensors" for name in ("base", "expert-1", "expert-2", "expert-3"))
    given, one, params = problem(torch.float32, 7), task("a", 100, torch.float32, 7, 10), parameters(torch.float32)
    updates = {name: {key: 0.1 * value for key, value in params.items()} for name in "ab"}
    for part in PARTS:
        yield part.__name__, lambda part=part: part(torch.float32, 7)
    yield "folders", lambda: load(folders).base
    yield "check", lambda: [str(each) for each in dx.check_compatibility(base, experts)]
    yield "bases", lambda: dx.task_vector_bases(base, experts, resamples=5).to_dict()
    yield "orthogonality", lambda: dx.orthogonality(base, experts, max_columns=64).to_dict()
    yield "structure", lambda: dx.update_structure(base, experts[0]).to_dict()
    yield "power iteration", lambda: dx.spectral_norm(one, params, method="power", max_products=30).to_dict()
    yield "dare", lambda: dx.merged_update(updates, {"a": 0.5, "b": 0.5}, method="dare_linear", density=0.5)
    yield "disentanglement", lambda: dx.disentanglement_error(given, "a", "b", [0.0, 1.0]).to_dict()
    yield "relation", lambda: dx.output_relation(given, "a", "b").to_dict()
    yield "features", lambda: dx.task_feature_specialisation(given).to_dict()
    yield "negation", lambda: {name: str(each) for name, each in dx.negation_bounds(given, "a", 0.2).items()}
    yield "target", lambda: str(dx.out_of_distribution_bound(given, "a"))
    yield "derivation", lambda: dx.derivations.get("2.2").check(8).to_dict()


def text_of(value: object) -> str:
    """A result to the last bit."""
    if isinstance(value, dict):
        return str({key: text_of(each) for key, each in value.items()})
    return str(value.detach().cpu().double().numpy().tobytes()) if isinstance(value, Tensor) else repr(value)


def states() -> tuple[object, ...]:
    """Of the generators that every module of a program shares."""
    return random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()  # noqa: NPY002


NAMES = (
    *("of_task", "of_problem", "of_composition", "folders", "check", "bases", "orthogonality", "structure"),
    *("power iteration", "dare", "disentanglement", "relation", "features", "negation", "target", "derivation"),
)


@pytest.mark.parametrize("name", NAMES)
def test_random_numbers_of_others_are_neither_used_nor_moved(name: str, folders: Path) -> None:
    found = []
    for seed in (1, 2):
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        torch.manual_seed(seed)
        call = dict(calls(folders))[name]
        before = states()
        found.append(text_of(call()))
        assert states() == before, "a generator of the whole program has moved"
    assert found[0] == found[1], "the result depends on a seed of the whole program"
