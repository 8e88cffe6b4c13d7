"""Whatever a network returns, each tensor gets a name."""

import collections

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sam_deploy.errors import InputError
from sam_deploy.reference.outputs import named_outputs, output_names

T = torch.zeros(2)
Pair = collections.namedtuple("Pair", "logits box")


@pytest.mark.parametrize(
    ("outputs", "names"),
    [
        (T, ["output"]),
        ((T,), ["output_0"]),
        ([T, T], ["output_0", "output_1"]),
        ({"mask": T, "sure": T}, ["mask", "sure"]),
        ({"logits": T, "maps": (T, T)}, ["logits", "maps_0", "maps_1"]),
        ((T, {"aux": T, "more": [T]}), ["output_0", "output_1_aux", "output_1_more_0"]),
        (collections.OrderedDict(b=T, a=T), ["b", "a"]),
        ({"a": T, "none": None, "b": T}, ["a", "b"]),
        ({3: T}, ["output_3"]),
        (Pair(T, T), ["logits", "box"]),
    ],
)
def test_names_are_keys_and_positions(outputs, names):
    assert output_names(outputs) == names


@pytest.mark.parametrize(
    ("outputs", "said"),
    [
        (3, "returns a int at the top"),
        ({"mask": T, "size": 4}, r"returns a int at \['size'\]"),
        ((), "returns no tensor"),
        (None, "returns no tensor"),
        ({"a": {"b": T}, "a_b": T}, "called alike: a_b, a_b"),
    ],
)
def test_what_has_no_name_is_refused(outputs, said):
    with pytest.raises(InputError, match=said):
        output_names(outputs)


TREES = st.recursive(
    st.just(T),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3),
        st.tuples(inner, inner),
        st.dictionaries(st.sampled_from("abcd"), inner, min_size=1, max_size=3),
    ),
    max_leaves=8,
)


@given(TREES)
def test_names_go_with_the_tensors_in_order(tree):
    try:
        names = output_names(tree)
    except InputError as error:
        assert "called alike" in str(error)  # noqa: PT017
        return
    count = iter(range(100))
    numbered = torch.utils._pytree.tree_map(lambda _: torch.tensor(next(count)), tree)
    found = named_outputs(numbered, names)
    assert list(found) == names
    assert [int(array) for array in found.values()] == list(range(len(names)))


def test_too_few_names_are_refused():
    with pytest.raises(InputError, match=r"returns 2 tensors; got 1 output names \(mask\)"):
        named_outputs((T, T), ["mask"])
    assert named_outputs([T, None], ["mask"]).keys() == {"mask"}
    np.testing.assert_array_equal(named_outputs([T], ["mask"])["mask"], [0, 0])
