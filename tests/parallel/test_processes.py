"""Two and three processes against one; one that refuses its input, and one that dies."""

import json
import os
import socket
import subprocess
import sys

import pytest
import torch

from diagnostics import InputError, data_parallel
from diagnostics.measures.hessian import HessianOperator
from diagnostics.processes import Team, team
from tests.parallel.parts import language, quantities_in_parts
from tests.parallel.quantities import quantities


def launch(folder, count, *arguments, module="quantities"):
    """Run the quantities in several processes and return the exit status and the messages of each.

    Not under torchrun, which would end the others before they could say what they noticed.
    """
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    shared = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port), "WORLD_SIZE": str(count), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", f"tests.parallel.{module}", str(folder), *arguments]
    running = [
        subprocess.Popen(command, env=os.environ | shared | {"RANK": str(rank)}, stderr=subprocess.PIPE, text=True)
        for rank in range(count)
    ]
    messages = [each.communicate(timeout=500)[1] for each in running]
    return [each.returncode for each in running], "\n".join(messages)


@pytest.fixture(scope="module")
def alone():
    return quantities()


@pytest.mark.parametrize("count", [2, 3])
def test_several_processes_give_what_one_gives(tmp_path, alone, count):
    statuses, messages = launch(tmp_path, count)
    assert statuses == [0] * count, messages[-3000:]
    found = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(count)]
    assert list(found[0]) == list(alone) and len(alone) > 40
    for name, expected in alone.items():
        scale = float(expected.abs().max())
        apart = float((found[0][name] - expected).abs().max()) if expected.numel() else 0.0
        # Llama-like rounding does not enter: everything but the model of the audit is float64.
        allowed = 1e-5 if name.startswith("audit") else 1e-8
        assert apart <= allowed * max(scale, 1e-3), f"{name}: {count} processes are {apart:.3g} off, of {scale:.3g}"
        for rank, other in enumerate(found):
            assert torch.equal(other[name], found[0][name]), f"{name}: process {rank} has another result than 0"


@pytest.fixture(scope="module")
def in_parts(tmp_path_factory):
    """What two processes found that hold parts of models."""
    folder = tmp_path_factory.mktemp("parts")
    statuses, messages = launch(folder, 2, module="parts")
    assert statuses == [0, 0], messages[-3000:]
    return folder


def test_models_held_in_parts_give_what_whole_ones_give(in_parts):
    whole = quantities_in_parts()
    found = [torch.load(in_parts / f"{rank}.pt", weights_only=True) for rank in range(2)]
    assert list(found[0]) == list(whole) and len(whole) > 15
    for name, expected in whole.items():
        apart = float((found[0][name] - expected).abs().max())
        assert apart <= 1e-10 * max(float(expected.abs().max()), 1e-3), f"{name}: {apart:.3g} off"
        assert torch.equal(found[0][name], found[1][name]), f"{name}: the two processes have other results"


def test_a_process_holds_its_rows_and_no_graph_holds_weights(in_parts):
    """Seven rows are four and three; a graph that kept the weights it was made with would be as large as without."""
    both = [json.loads((in_parts / f"{rank}.json").read_text()) for rank in range(2)]
    shares = [each["shares"] for each in both]
    assert sum(each["held"] for each in shares) == shares[0]["whole"]
    assert max(each["held"] for each in shares) < 0.6 * shares[0]["whole"], "rows are not dealt out evenly"
    task, params = language()
    graphs = HessianOperator(task, params).kept_bytes
    assert shares[0]["graphs"] == shares[1]["graphs"] <= graphs
    assert [each["from a file"] for each in both] == [0, 0]


REFUSED = {
    "a team of the same processes": "InputError: data_parallel: expected processes that share batches, not weights",
    "fully_shard": "InputError: model: expected a module whose parameters alone are sharded; found one that fully_sh",
    "some parameters whole": "InputError: parameters: expected all of them in parts, or none; found ['2.bias'] whole",
    "a merge problem": "CheckpointError: base: 0.weight: expected a tensor that this process holds whole; found one",
    "geometry": "CheckpointError: base: 0.weight: expected a tensor that this process holds whole; found one held",
    "a cache": "InputError: cache: expected a model that every process holds whole; found one held in parts",
    "other weights": "InputError: weights: expected the module's parameters, in their shapes; found none of that kind",
    "no values": "InputError: shard_parameters: expected tensors with values; found meta tensors: ",
    "numbers": "InputError: shard_parameters: expected parameters with rows; found numbers: ['0']",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_done_in_parts_is_refused_by_all(in_parts, name):
    for rank in range(2):
        found = json.loads((in_parts / f"{rank}.json").read_text())["refusals"]
        assert found.get(name, "nothing was refused").startswith(REFUSED[name]), found.get(name)


def told(folder):
    assert not list(folder.glob("*.pt")), "a result was stored although a process failed"
    return {path.stem: path.read_text() for path in folder.glob("*.error")}


def test_one_that_refuses_its_input_ends_all_with_its_reason(tmp_path):
    _, messages = launch(tmp_path, 3, "refusal")
    reason = (
        "ProcessError: process 1 of 3 failed (InputError: this batch is bad). Nothing was written; see that process's "
        "own message"
    )
    assert told(tmp_path) == {"0": reason, "1": "InputError: this batch is bad", "2": reason}, messages[-2000:]


def test_one_that_dies_ends_the_others(tmp_path):
    statuses, messages = launch(tmp_path, 2, "death")
    assert statuses[1] == 7, messages[-2000:]
    assert list(found := told(tmp_path)) == ["0"], messages[-2000:]
    assert found["0"].startswith("ProcessError: another process did not answer: it has ended, or"), found


def test_one_process_alone_shares_with_nobody():
    crew = team()
    assert (crew.rank, crew.size) == (0, 1)
    assert list(crew.mine("abc")) == ["a", "b", "c"]
    assert crew.collect("abc", str.upper) == crew.each("abc", str.upper) == ["A", "B", "C"]


def test_items_are_handed_out_in_turn_and_each_once():
    for size in (1, 2, 3, 7):
        parts = [list(Team(rank, size).mine(range(5))) for rank in range(size)]
        assert sorted(item for part in parts for item in part) == list(range(5)), size
        assert max(map(len, parts)) - min(map(len, parts)) <= 1, f"{size} processes get {parts}"


def test_without_a_process_group_the_way_to_one_is_told():
    with pytest.raises(InputError, match="Start the script with torchrun"), data_parallel():
        pass
