"""Folds of examples: disjoint in their texts, none empty, and as even as the texts allow."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from diagnostics.measures.contexts import assign_folds

KEYS = st.lists(st.integers(0, 12).map(str), min_size=1, max_size=20)


@settings(max_examples=150)
@given(keys=st.lists(KEYS, min_size=1, max_size=4), folds=st.integers(1, 8), seed=st.integers(0, 5))
def test_a_text_is_in_one_fold_of_all_data_and_no_fold_is_empty(keys, folds, seed):
    dealt = assign_folds(keys, folds, seed=seed)
    assert [len(each) for each in dealt] == [len(each) for each in keys]
    where = {}
    for names, own in zip(keys, dealt, strict=True):
        for name, fold in zip(names, own, strict=True):
            assert where.setdefault(name, fold) == fold, f"{name} is in two folds"
    count = 1 + max(max(each) for each in dealt)
    assert all(set(each) == set(range(count)) for each in dealt)
    assert count <= min([folds, *(len(set(each)) for each in keys)])


@settings(max_examples=50)
@given(count=st.integers(8, 60), folds=st.integers(2, 8), seed=st.integers(0, 5))
def test_one_data_set_of_distinct_texts_is_dealt_evenly(count, folds, seed):
    (dealt,) = assign_folds([[str(i) for i in range(count)]], folds, seed=seed)
    sizes = Counter(dealt)
    assert len(sizes) == folds and max(sizes.values()) - min(sizes.values()) <= 1


def test_the_deal_is_random_and_repeatable():
    """By the seed, and not in the order in which the examples stand."""
    keys = [[str(i) for i in range(24)]]
    first, again, other = (assign_folds(keys, 4, seed=seed) for seed in (0, 0, 1))
    assert first == again != other
    assert first[0] != [i % 4 for i in range(24)] and first[0] != sorted(first[0])


def test_the_same_data_in_another_order_are_dealt_the_same():
    keys = [str(i) for i in range(24)]
    forward, back = assign_folds([keys, keys[::-1]], 4)
    assert forward == back[::-1]
