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


def test_machines_are_described_in_lines_of_any_kind(tmp_path):
    (tmp_path / "meminfo").write_text("\nNode 0: MemAvailable: 1 kB\nMemAvailable:\t3 kB\nActive(file): 4 kB\n")
    assert memory._of_the_machine(tmp_path / "meminfo") == 3 << 10


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


def test_a_container_that_keeps_no_files_in_memory(tmp_path):
    for name, text in {"memory.max": "1000\n", "memory.current": "400\n", "memory.stat": "anon 400\n"}.items():
        (tmp_path / name).write_text(text)
    assert memory._of_the_container(tmp_path) == 600


@pytest.mark.parametrize("name", ["memory.max", "memory.current"])
def test_half_of_what_a_container_could_say_is_no_limit(tmp_path, name):
    (tmp_path / name).write_text("5\n")
    assert memory._of_the_container(tmp_path) == 1 << 62


def test_what_a_card_has_free_and_what_is_held_in_reserve_count(monkeypatch):
    """Two cards: 500 and 50 bytes free; PyTorch holds 300 and 30 more, and uses 100 and 10 of these."""
    cards = torch.device("cuda:0"), torch.device("cuda:1")
    told = {"mem_get_info": ((500, 900), (50, 90)), "memory_reserved": (300, 30), "memory_allocated": (100, 10)}
    for name, answers in told.items():
        monkeypatch.setattr(torch.cuda, name, dict(zip(cards, answers, strict=True)).__getitem__)
    assert [available_bytes(card) for card in cards] == [700, 70]
    assert available_bytes("cuda:1") == 70


def test_the_smaller_of_the_two_counts(monkeypatch, tmp_path):
    (tmp_path / "meminfo").write_text("MemAvailable: 1 kB\n")
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "_CGROUP", tmp_path / "absent")
    assert available_bytes() == 1024
