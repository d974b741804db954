"""What the strategies draw is what they say, and shrinks to what can be checked by hand."""

import numpy as np
import pytest
from hypothesis import find, given, settings
from hypothesis import strategies as st

from diagnostics.testing import (
    arrays,
    coefficients,
    merges,
    negations,
    numbers,
    smooth_tasks,
    symmetric,
    targets,
    task_vectors,
    vectors_with_gram,
)

quick = settings(database=None, derandomize=True, max_examples=2000)


@given(numbers(-3, 2))
def test_numbers_stay_in_their_range_and_away_from_underflow(x):
    assert -3 <= x <= 2 and (x == 0 or abs(x) > 1e-9)


def test_numbers_shrink_to_whole_ones():
    assert find(numbers(), lambda x: abs(x) > 1.2, settings=quick) == 2.0
    assert find(numbers(), lambda x: x != 0, settings=quick) == 1.0


@given(st.integers(1, 4).flatmap(lambda d: st.tuples(symmetric(d), symmetric(d, positive=True))))
def test_symmetric_matrices(pair):
    anything, positive = pair
    np.testing.assert_array_equal(anything, anything.T)
    assert np.linalg.eigvalsh(positive)[0] >= -1e-12 * max(1, np.abs(positive).max())


@pytest.mark.parametrize(
    "wanted",
    [
        lambda rows: (rows[0] == rows[1]).all() and (rows[0] != 0).any(),
        lambda rows: (rows[0] == -rows[1]).all() and (rows[0] != 0).any(),
        lambda rows: rows[0] @ rows[1] == 0 and (rows != 0).any(1).all(),
        lambda rows: (rows[1] == 0).all() and (rows[0] != 0).any(),
    ],
    ids=["equal", "opposite", "orthogonal", "zero"],
)
def test_task_vectors_include_the_controls(wanted):
    assert find(task_vectors(2, 2), wanted, settings=quick).shape == (2, 2)


@given(data=st.data(), count=st.integers(1, 4))
def test_vectors_have_the_gram_matrix_asked_for(data, count):
    root = data.draw(arrays(count, count))
    gram = root @ root.T
    rows = data.draw(vectors_with_gram(gram, count + 1))
    np.testing.assert_allclose(rows @ rows.T, gram, atol=1e-9 * max(1.0, np.abs(gram).max()))


def test_a_gram_matrix_that_is_none_is_refused():
    with pytest.raises(ValueError, match="positive semidefinite"):
        find(vectors_with_gram(np.array([[1.0, 2.0], [2.0, 1.0]])), lambda rows: True, settings=quick)
    with pytest.raises(ValueError, match="expected at least 2"):
        find(vectors_with_gram(np.eye(2), 1), lambda rows: True, settings=quick)


@given(st.integers(1, 5).flatmap(lambda t: st.tuples(coefficients(t, "simplex"), coefficients(t, "box"))))
def test_coefficients_on_the_simplex_add_up_to_one_exactly(pair):
    simplex, box = pair
    assert sum(simplex) == 1.0 and (simplex >= 0).all()
    assert ((box >= 0) & (box <= 1)).all()


@given(st.integers(1, 3).flatmap(merges))
def test_a_merge_is_seen_by_the_task_of_its_first_vector(merge):
    np.testing.assert_array_equal(merge.task.anchor, merge.vectors[0])
    # Where nothing is left of the way, rounding is.
    np.testing.assert_allclose(merge.way, merge.coefficients @ merge.vectors - merge.vectors[0], rtol=1e-7, atol=1e-12)
    assert 0 <= merge.epsilon <= 1 and max(row @ row for row in merge.vectors) == merge.C


@given(st.integers(1, 3).flatmap(negations))
def test_a_negation_moves_along_the_other_vector_only(merge):
    assert merge.coefficients[0] == 0 and -1 <= merge.coefficients[1] <= 0


@given(st.integers(1, 3).flatmap(targets))
def test_a_target_is_served_by_the_vector_that_points_its_way(merge):
    chosen = int(np.argmax(merge.coefficients))
    assert merge.coefficients.sum() == 1 and merge.toward[chosen] == merge.toward.max()


@given(smooth_tasks(2, curving="constant", stationary=False), st.floats(-3, 3))
def test_constant_curvature_is_the_same_everywhere(task, x):
    np.testing.assert_array_equal(task.hessian_at(np.full(2, x)), task.hessian)


@given(smooth_tasks(2, curving="shrinking"), st.floats(0, 1))
def test_shrinking_curvature_never_grows_away_from_the_anchor(task, s):
    point = task.anchor + s
    change = task.hessian_at(point) - task.hessian
    assert np.linalg.eigvalsh(change)[-1] <= 1e-12 * (1 + np.abs(change).max())


def test_merges_shrink_to_small_whole_numbers():
    found = find(merges(2), lambda merge: (merge.way**2).sum() > 0.5, settings=quick)
    assert set(np.abs(found.vectors).ravel()) <= {0.0, 1.0, 2.0}
