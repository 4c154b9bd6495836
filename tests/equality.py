"""Equal to the last bit, for outputs of envs."""

import numpy as np


def assert_same(ours, theirs):
    """Equal in type, dtype, shape and every bit, through dicts, tuples, lists and object arrays."""
    assert type(ours) is type(theirs)
    if isinstance(ours, dict):
        assert list(ours) == list(theirs)
        for key in ours:
            assert_same(ours[key], theirs[key])
    elif isinstance(ours, (tuple, list)):
        assert len(ours) == len(theirs)
        for a, b in zip(ours, theirs, strict=True):
            assert_same(a, b)
    elif isinstance(ours, np.ndarray):
        assert ours.dtype == theirs.dtype
        assert ours.shape == theirs.shape
        if ours.dtype == object:
            for a, b in zip(ours, theirs, strict=True):
                assert_same(a, b)
        else:
            assert np.array_equal(ours, theirs)
            assert ours.tobytes() == theirs.tobytes()  # tells -0.0 from 0.0
    else:
        assert ours == theirs
