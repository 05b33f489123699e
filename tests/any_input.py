"""What somebody may hand over, for Hypothesis: numbers, arrays, and what is none.

FSSD_JAX_EXAMPLES=1000 tries more than the few of every day.
"""

import math
import os

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fssd_jax import InputError

EXAMPLES = int(os.environ.get("FSSD_JAX_EXAMPLES", 0))


def examples(count: int):
    return settings(
        max_examples=EXAMPLES or count,
        deadline=None,
        derandomize=not EXAMPLES,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


SPECIAL = [0.0, -0.0, 1.0, 0.5, -1.0, 255.0, 1e-320, 1e-38, 1e38, -1e308, 1e308]
BAD = [math.nan, math.inf, -math.inf]
numbers = st.sampled_from(SPECIAL + BAD) | st.floats()
finite = st.sampled_from(SPECIAL) | st.floats(-1e6, 1e6)
DTYPES = [*"?bBhHiIqQefdFD", "S1", "U1", "O", "M8[s]"]
# What somebody may hand over in place of an array.
oddities = st.sampled_from(
    [
        None,
        3,
        2.5,
        "text",
        b"",
        [],
        [[]],
        {},
        {"a": 1},
        {1},
        [[1], [1, 2]],
        ["a"],
        len,
        [None],
        [1j],
        object(),
        np.float64(1),
        np.array("a"),
        range(3),
    ]
)


@st.composite
def arrays(draw, shapes, dtypes=DTYPES):
    """Of any dtype, with special values and duplicates."""
    shape, dtype = draw(shapes), np.dtype(draw(st.sampled_from(dtypes)))
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            values = draw(hnp.arrays(np.float64, shape, elements=numbers))
            return values.astype(dtype)
    if dtype.kind == "O":
        return np.full(shape, None)
    return draw(hnp.arrays(dtype, shape))


vectors = arrays(st.tuples(st.integers(0, 6))) | arrays(
    hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3)
)
real = st.lists(finite, min_size=1, max_size=12).map(np.array)


def refused(f, *args, **kwargs) -> bool:
    try:
        f(*args, **kwargs)
    except InputError:
        return True
    return False
