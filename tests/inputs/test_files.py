"""Files are written whole or not at all."""

import pytest
import torch
from safetensors.torch import load_file

from diagnostics.errors import InputError
from diagnostics.inputs.files import replaced_together, write_atomic, write_tensors


def files(folder):
    return [path.name for path in folder.iterdir()]


def broken(*args, **kwargs):
    raise OSError(28, "No space left on device")


def test_text_is_replaced(tmp_path):
    path = tmp_path / "page.html"
    write_atomic(path, "old")
    write_atomic(path, "new 要約\n")
    assert path.read_bytes().decode() == "new 要約\n"
    assert files(tmp_path) == ["page.html"]


@pytest.mark.parametrize("step", ["os.fsync", "pathlib.Path.replace"])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, step):
    path = tmp_path / "page.html"
    path.write_text("old")
    monkeypatch.setattr(step, broken)
    with pytest.raises(InputError, match=r"page\.html: expected to write it; found: No space left"):
        write_atomic(path, "new")
    assert path.read_text() == "old"
    assert files(tmp_path) == ["page.html"], "a draft was left behind"


def test_text_that_cannot_be_encoded_leaves_the_old_file(tmp_path):
    path = tmp_path / "page.html"
    path.write_text("old")
    with pytest.raises(UnicodeEncodeError):
        write_atomic(path, "\ud800")
    assert path.read_text() == "old" and files(tmp_path) == ["page.html"]


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(InputError, match=r"found no .*nowhere\. Create it first"):
        write_atomic(tmp_path / "nowhere" / "page.html", "text")


def test_what_is_no_file_is_not_replaced(tmp_path):
    with pytest.raises(InputError, match="something else there"):
        write_atomic(tmp_path, "text")


def test_a_link_is_written_through(tmp_path):
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    write_atomic(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real").read_text() == "new"


def test_tensors_are_written_whole_and_come_back(tmp_path):
    path = tmp_path / "vector.safetensors"
    weight = torch.arange(6.0).view(2, 3)
    write_tensors(path, {"a": weight.T, "b": weight[0]}, {"basis": "1"})
    read = load_file(path)
    assert torch.equal(read["a"], weight.T) and torch.equal(read["b"], weight[0])
    assert files(tmp_path) == ["vector.safetensors"]


def test_tensors_that_cannot_be_written_leave_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "vector.safetensors"
    write_tensors(path, {"a": torch.ones(2)})
    monkeypatch.setattr("diagnostics.inputs.files.save_file", broken)
    with pytest.raises(InputError, match=r"vector\.safetensors.*No space left"):
        write_tensors(path, {"a": torch.zeros(2)})
    assert torch.equal(load_file(path)["a"], torch.ones(2)) and files(tmp_path) == ["vector.safetensors"]


def folder_of(path, **contents):
    path.mkdir(exist_ok=True)
    for name, text in contents.items():
        (path / name).write_text(text)
    return path


def contents(path):
    return {each.name: each.read_text() for each in path.iterdir()}


def test_files_of_a_folder_are_replaced_together(tmp_path):
    home = folder_of(tmp_path / "home", a="old", index="a", other="kept")
    with replaced_together(home, last="index") as drafts:
        folder_of(drafts, a="new", index="b")
        assert ((home / "a").read_text(), (home / "index").read_text()) == ("old", "a")
    assert contents(home) == {"a": "new", "index": "b", "other": "kept"}


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failure_before_all_are_written_leaves_the_old_ones(tmp_path, failure):
    home = folder_of(tmp_path / "home", a="old", index="a")
    with pytest.raises((InputError, KeyboardInterrupt)) as caught, replaced_together(home, last="index") as drafts:
        folder_of(drafts, a="new")
        raise failure
    assert isinstance(failure, KeyboardInterrupt) or "home: expected to write it; found: No space" in str(caught.value)
    assert contents(home) == {"a": "old", "index": "a"}


def test_a_failure_while_files_take_their_places_leaves_no_index(tmp_path, monkeypatch):
    home = folder_of(tmp_path / "home", a="old", b="old", index="ab")
    monkeypatch.setattr("pathlib.Path.replace", broken)
    with pytest.raises(InputError, match="No space left"), replaced_together(home, last="index") as drafts:
        folder_of(drafts, a="new", b="new", index="ab")
    assert contents(home) == {"a": "old", "b": "old"}, "a folder without its index says that it is not whole"


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    refused = pytest.raises(InputError, match=r"file/home: expected to write it; found: Not a directory")
    with refused, replaced_together(tmp_path / "file" / "home", last="index"):
        pass
