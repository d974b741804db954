"""How much memory is free, and what a graph holds."""

import gc
import weakref

import pytest
import torch

from diagnostics.measures import memory
from diagnostics.measures.memory import SavedBytes, available_bytes


def test_a_graph_holds_each_storage_once_and_not_what_was_there():
    weight = torch.ones(8, requires_grad=True)
    with SavedBytes([weight]) as saved:
        square = weight * weight  # saves the weight, twice
        root = square.exp()  # saves its output
        (root * root).sum()  # saves that output again, twice
    assert saved.total == 8 * 4


def test_counting_changes_no_derivative_and_keeps_no_graph_alive():
    weight = torch.linspace(0.1, 1, 5, dtype=torch.float64, requires_grad=True)
    with SavedBytes([weight]):
        (slope,) = torch.autograd.grad(weight.exp().prod(), weight, create_graph=True)
    (product,) = torch.autograd.grad(slope.sum(), weight)
    truth = weight.detach().sum().exp()
    assert product.tolist() == pytest.approx([5 * float(truth)] * 5)
    gone = weakref.ref(slope)
    del slope, product
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [("MemTotal: 9 kB\nMemAvailable:   2048 kB\n", 2 << 20), ("MemTotal: 9 kB\n", memory._UNKNOWN)],
)
def test_what_the_machine_says(tmp_path, text, expected):
    (tmp_path / "meminfo").write_text(text)
    assert memory._of_the_machine(tmp_path / "meminfo") == expected
    assert memory._of_the_machine(tmp_path / "absent") == memory._UNKNOWN


@pytest.mark.parametrize(
    ("limit", "used", "cached", "expected"),
    [("1000", "400", "0", 600), ("1000", "900", "300", 400), ("1000", "2000", "0", 0), ("max", "5", "0", 1 << 62)],
)
def test_what_a_container_leaves(tmp_path, limit, used, cached, expected):
    """Pages of files are used memory that can be had."""
    (tmp_path / "memory.max").write_text(f"{limit}\n")
    (tmp_path / "memory.current").write_text(f"{used}\n")
    (tmp_path / "memory.stat").write_text(f"anon 1\ninactive_file {cached}\n")
    assert memory._of_the_container(tmp_path) == expected
    assert memory._of_the_container(tmp_path / "absent") == 1 << 62


def test_the_smaller_of_the_two_counts(monkeypatch, tmp_path):
    (tmp_path / "meminfo").write_text("MemAvailable: 1 kB\n")
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "_CGROUP", tmp_path / "absent")
    assert available_bytes() == 1024
