"""A tree comes back from disk as it was, and a file that is not one is refused by name."""

import dataclasses
import json
import os
import pickle
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prefsearch.storage.errors import StorageError
from search import BeamPlanner, BestOfNPlanner, GumbelMuZeroPlanner, MuZeroPlanner, Tree
from search.viewer import file as tree_file
from search.viewer.file import load_tree, save_tree
from search.viewer.source import open_trees
from tests.search_cases import assert_equal_trees
from tests.search_reference import random_tables

KINDS = {
    "muzero": MuZeroPlanner,
    "gumbel": GumbelMuZeroPlanner,
    "best_of_n": BestOfNPlanner,
    "beam": BeamPlanner,
}
ANY_TEXT = st.text(st.characters(), max_size=12)  # lone surrogates and controls, too
CHECKS = settings(max_examples=25, deadline=None, derandomize=True, database=None)


def searched(kind: str = "muzero", *, simulations: int = 9, seed: int = 0, **world) -> Tree:
    model = random_tables(seed, num_tables=3, **world)
    generator = torch.Generator().manual_seed(seed)
    return KINDS[kind](simulations).plan(model, torch.arange(3), generator=generator).tree


def used(tree: Tree) -> torch.Tensor:
    mask = tree.parents >= 0
    mask[:, 0] = True
    return mask


@CHECKS
@given(
    kind=st.sampled_from(list(KINDS)),
    seed=st.integers(0, 1000),
    simulations=st.integers(1, 20),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    dead=st.sampled_from([0.0, 0.3]),
    labels=st.none()
    | st.lists(st.dictionaries(st.integers(0, 1), ANY_TEXT), min_size=3, max_size=3),
    title=st.none() | ANY_TEXT,
)
def test_a_tree_with_its_labels_comes_back_as_it_was(
    tmp_path_factory, kind, seed, simulations, dtype, dead, labels, title
):
    tree = searched(kind, simulations=simulations, seed=seed, dtype=dtype, dead=dead, invalid=0.3)
    path = tmp_path_factory.mktemp("trees") / "tree.safetensors"
    assert save_tree(tree, path, labels=labels, title=title) == path
    saved = load_tree(path)
    assert_equal_trees(saved.tree, tree)
    assert (saved.labels, saved.title) == (labels, title)
    for row in range(3):
        assert saved.tree.to_dict(row) == tree.to_dict(row)
        assert saved.tree.principal_variation(row) == tree.principal_variation(row)
    saved.tree.node_values.zero_()  # the memory of the reader alone
    assert_equal_trees(load_tree(path).tree, tree)


def test_views_transposed_and_shared_leaves_are_written_as_what_they_show(tmp_path):
    tree = searched()
    nodes = tuple(tree.node_visits.shape)
    base = torch.arange(float(nodes[0] * nodes[1] * 4)).view(4, nodes[1], nodes[0])
    leaves = {
        "turned": base.permute(2, 1, 0),
        "same": base.permute(2, 1, 0),
        "wide": torch.ones(1, 1, 2, dtype=torch.bfloat16).expand(*nodes, 2),
        "a.b": torch.zeros(nodes, dtype=torch.uint8),
        "": torch.zeros(*nodes, 0),
    }
    tree = dataclasses.replace(tree, embeddings=leaves)
    found = load_tree(save_tree(tree, tmp_path / "tree.safetensors")).tree
    assert_equal_trees(found, tree)
    assert list(leaves["turned"].stride()) == [1, nodes[0], nodes[0] * nodes[1]], "left as it was"


def test_embeddings_can_be_left_out(tmp_path):
    tree = searched()
    path = save_tree(tree, tmp_path / "tree.safetensors", embeddings=False)
    found = load_tree(path).tree
    assert dict(found.embeddings) == {}
    assert_equal_trees(found, dataclasses.replace(tree, embeddings={}))


def test_memory_of_unused_columns_is_not_written(tmp_path):
    tree = searched(simulations=40, terminal=1.0)
    assert not bool(used(tree).all())
    with torch.inference_mode():
        tree.embeddings["state"][~used(tree)] = 12345
    found = load_tree(save_tree(tree, tmp_path / "tree.safetensors")).tree
    assert bool((found.embeddings["state"][~used(tree)] == 0).all())
    assert bool((tree.embeddings["state"][~used(tree)] == 12345).all()), (
        "the tree itself is not touched"
    )


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        ([{}, {}], "labels of 2 rows; required labels of 3"),
        ([{}, {}, {10: "x"}], r"labels\[2\] of column 10; required columns 0 to 9"),
        ([{}, {-1: "x"}, {}], r"labels\[1\] of column -1"),
        ([{}, {}, {"0": "x"}], r"labels\[2\] with the key '0'"),
        ([{}, {}, {True: "x"}], r"labels\[2\] with the key True"),
        ([{0: None}, {}, {}], r"labels\[0\]\[0\] = None; required text"),
    ],
)
def test_labels_that_do_not_fit_are_refused_and_the_old_file_stays(tmp_path, labels, found):
    path = tmp_path / "tree.safetensors"
    path.write_bytes(b"old")
    with pytest.raises(ValueError, match=rf"tree.safetensors: found {found}"):
        save_tree(searched(), path, labels=labels)
    assert [p.name for p in tmp_path.iterdir()] == ["tree.safetensors"]
    assert path.read_bytes() == b"old"


def test_what_safetensors_cannot_hold_is_named(tmp_path, monkeypatch):
    tree = searched()
    odd = torch.zeros(tree.node_visits.shape, dtype=torch.complex128)
    with pytest.raises(ValueError, match=r"found embeddings.odd of torch.complex128.*embeddings=F"):
        save_tree(dataclasses.replace(tree, embeddings={"odd": odd}), tmp_path / "a.safetensors")
    monkeypatch.setattr(tree_file, "_MOST_HEADER_BYTES", 5000)
    labels = [{0: "x" * 9000}, {}, {}]
    with pytest.raises(ValueError, match=r"found labels of \d+ bytes; required at most 5000"):
        save_tree(tree, tmp_path / "a.safetensors", labels=labels)
    assert not list(tmp_path.iterdir())


def test_a_field_added_later_is_saved_and_its_default_stands_in_for_older_files(
    tmp_path, monkeypatch
):
    @dataclasses.dataclass(frozen=True)
    class Newer(Tree):
        extra: torch.Tensor | None = None
        notes: dict[str, torch.Tensor] = dataclasses.field(default_factory=dict)

    tree = searched()
    fields = {field.name: getattr(tree, field.name) for field in dataclasses.fields(Tree)}
    old = save_tree(tree, tmp_path / "old.safetensors")
    newer = Newer(**fields, extra=torch.ones(3), notes={"a": torch.ones(3, 10)})
    new = save_tree(newer, tmp_path / "new.safetensors")
    with pytest.raises(
        ValueError, match=r"found a tensor '(extra|notes.a)'; required fields of a tree"
    ):
        load_tree(new)
    monkeypatch.setattr(tree_file, "Tree", Newer)
    assert load_tree(old).tree.extra is None
    assert load_tree(new).tree.extra.tolist() == [1, 1, 1]
    assert load_tree(new).tree.notes["a"].shape == (3, 10)


# ------------------------------------------------------------------------------------ bad files


def parts(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    data = path.read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return safetensors.torch.load(data), header["__metadata__"]


@pytest.fixture
def saved(tmp_path) -> Path:
    tree = searched(simulations=6)
    return save_tree(tree, tmp_path / "tree.safetensors", labels=[{0: "a"}, {}, {}], title="t")


def set_item(name, where, value):
    def change(tensors, _):
        tensors[name][where] = value

    return change


def put(name, make):
    def change(tensors, _):
        tensors[name] = make(tensors[name])

    return change


def tell(key, value):
    def change(_, metadata):
        metadata[key] = value

    return change


def detach(tensors, _):
    """Cuts off an inner node with its edge, so that its children hang in the air."""
    row, node = (tensors["parents"] > 0).nonzero()[0].tolist()
    inner = int(tensors["parents"][row, node])
    parent, action = (int(tensors[n][row, inner]) for n in ("parents", "action_from_parent"))
    tensors["children_index"][row, parent, action] = -1
    tensors["parents"][row, inner] = tensors["action_from_parent"][row, inner] = -1


def swap(tensors, _):
    """Lets two edges of one node lead to each other's child."""
    index = tensors["children_index"]
    row, node = ((index >= 0).sum(-1) >= 2).nonzero()[0].tolist()
    one, other = (index[row, node] >= 0).nonzero()[:2, 0].tolist()
    index[row, node, [one, other]] = index[row, node, [other, one]]


def add_edge(tensors, _):
    index = tensors["children_index"]
    row, action = (index[:, 0] < 0).nonzero()[0].tolist()
    index[row, 0, action] = 6


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda tensors, _: tensors.pop("parents"), "no parents; required every field"),
        (lambda tensors, _: tensors.update(odd=torch.ones(1)), "a tensor 'odd'"),
        (lambda tensors, _: tensors.update(embeddings=torch.ones(3, 7)), "a tensor 'embeddings'"),
        (lambda tensors, _: tensors.update({"parents.x": torch.ones(3)}), "a tensor 'parents.x'"),
        (put("raw_values", lambda x: x[:, :-1]), r"raw_values of shape \[3, 6\]; required \[3, 7"),
        (put("terminal", lambda x: x[0]), r"terminal of shape \[7\]"),
        (put("children_index", lambda x: x[0]), r"children_index of shape \[7, 5\]; required \[B"),
        (put("children_index", lambda x: x[:, :, :0]), r"children_index of shape \[3, 7, 0\]"),
        (put("embeddings.state", lambda x: x[:, 1:]), r"embeddings.state of shape \[3, 6\]"),
        (put("parents", lambda x: x.double()), "parents of torch.float64; .* kind integer"),
        (put("parents", lambda x: x.to(torch.uint8)), "parents of torch.uint8"),
        (put("node_values", lambda x: x.long()), "node_values of torch.int64; .* kind float"),
        (put("valid_actions", lambda x: x.long()), "valid_actions of torch.int64; .* kind bool"),
        (set_item("parents", (1, 3), 7), r"parents\[1, 3\] = 7; required at least -1 and below 3"),
        (set_item("parents", (1, 3), 3), r"parents\[1, 3\] = 3"),
        (set_item("parents", (0, 0), 0), r"parents\[0, 0\] = 0"),
        (set_item("parents", (2, 1), -2), r"parents\[2, 1\] = -2"),
        (set_item("action_from_parent", (0, 1), 5), r"action_from_parent\[0, 1\] = 5; .* below 5"),
        (set_item("action_from_parent", (0, 1), -1), ".* do not belong together"),
        (set_item("action_from_parent", (0, 0), 1), ".* do not belong together"),
        (set_item("children_index", (0, 0, 0), 7), r"children_index\[0, 0, 0\] = 7; .* below 7"),
        (set_item("children_index", (0, 0, 0), 2**40), r"children_index\[0, 0, 0\] = 10995116"),
        (set_item("children_index", (0, 0, 0), -2), r"children_index\[0, 0, 0\] = -2"),
        (set_item("node_visits", (0, 0), -1), r"node_visits\[0, 0\] = -1; required at least 0"),
        (detach, ".* do not belong together"),
        (swap, ".* do not belong together"),
        (add_edge, ".* do not belong together"),
        (tell("prefsearch_tree", "2"), "version '2' of the tree format"),
        (lambda _, metadata: metadata.pop("prefsearch_tree"), "safetensors without a search tree"),
        (tell("labels", "[{"), "a labels that is no JSON"),
        (tell("labels", "[" * 100_000), "a labels that is no JSON"),
        (tell("labels", "7"), "labels that are not read"),
        (tell("labels", '[{"x": "y"}, {}, {}]'), "labels that are not read"),
        (tell("labels", '[{"7": "y"}, {}, {}]'), r"labels\[0\] of column 7"),
        (tell("labels", '[{"0": 1}, {}, {}]'), r"labels\[0\]\[0\] = 1"),
        (tell("labels", "[{}]"), "labels of 1 rows"),
        (tell("title", "[]"), "a title of kind list"),
    ],
)  # fmt: skip
def test_a_damaged_file_is_refused_by_name(saved, change, found):
    tensors, metadata = parts(saved)
    assert tensors["children_index"].shape == (3, 7, 5)
    change(tensors, metadata)
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    saved.write_bytes(safetensors.torch.save(tensors, metadata))
    with pytest.raises(ValueError, match=rf"tree.safetensors: found {found}"):
        load_tree(saved)


def test_what_an_unused_column_holds_does_not_matter(tmp_path):
    tree = searched(simulations=30, terminal=1.0)
    row, node = (~used(tree)).nonzero()[0].tolist()
    with torch.inference_mode():
        tree.children_index[row, node, 0] = 10**9
    assert load_tree(save_tree(tree, tmp_path / "t")).tree.to_dict(row) == tree.to_dict(row)


class _Bomb:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was run",))


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\x00" * 40, b"\xff" * 40, b"hello", pickle.dumps(_Bomb())]
)
def test_a_foreign_file_is_refused_by_name(tmp_path, content):
    path = tmp_path / "foreign"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"foreign: found no readable safetensors"):
        load_tree(path)


def test_a_truncated_file_is_refused_at_every_length(saved):
    data = saved.read_bytes()
    for length in range(0, len(data), 37):
        saved.write_bytes(data[:length])
        with pytest.raises(ValueError, match=r"tree.safetensors: found"):
            load_tree(saved)
    saved.write_bytes(data + b"x")
    with pytest.raises(ValueError, match=r"tree.safetensors: found no readable safetensors"):
        load_tree(saved)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> bytes:
    return save_tree(searched(simulations=4), tmp_path_factory.mktemp("w") / "t").read_bytes()


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(data=st.data())
def test_whatever_one_byte_says_the_tree_is_sound_or_refused(tmp_path_factory, whole, data):
    path = tmp_path_factory.getbasetemp() / "flipped.safetensors"
    content = bytearray(whole)
    header = 8 + int.from_bytes(content[:8], "little")
    inside = st.integers(0, header - 1) | st.integers(header, len(content) - 1)
    content[data.draw(inside)] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        tree = load_tree(path).tree
    except ValueError as error:
        if str(path) not in str(error):
            raise
        return
    for row in range(tree.batch_size):
        tree.to_dict(row)
        tree.principal_variation(row)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(OSError, match=r"could not read it.*none.safetensors"):
        load_tree(tmp_path / "none.safetensors")


@pytest.mark.parametrize("read", [load_tree, open_trees])
def test_pipe_or_device_is_refused_at_once(read, tmp_path):
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(ValueError, match=r"pipe\.json: found a pipe"):
        read(tmp_path / "pipe.json")
    with pytest.raises(ValueError, match="/dev/zero: found a device"):
        read("/dev/zero")
    with pytest.raises(StorageError):
        read(tmp_path)


@pytest.mark.parametrize(
    ("field", "number"),
    [("value", 10**400), ("visits", 10**400), ("visits", 2**63), ("action", 2**70)],
)
def test_number_beyond_its_kind_names_the_node(field, number, tmp_path):
    path = tmp_path / "tree.json"
    path.write_text(json.dumps({"text": "a", "visits": 1, "value": 0.5, field: number}))
    with pytest.raises(ValueError, match=rf"tree\.json: tree\.{field}: found"):
        open_trees(path)
