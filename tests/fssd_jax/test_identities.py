import numpy as np
import pytest

from fssd_jax import InputError
from fssd_jax.data.identities import number


@pytest.mark.parametrize("as_name", [int, "{:03}".format])
def test_gaps_close_and_rare_ones_go(as_name):
    ids = np.array([as_name(i) for i in (7, 3, 7, 99, 3, 12, 7, 99)])
    found = number(ids, least=2)
    assert found.count == 3
    assert found.names.tolist() == [as_name(i) for i in (3, 7, 99)]
    assert found.kept.tolist() == [True] * 5 + [False, True, True]
    # Class and identity stand for one another.
    np.testing.assert_array_equal(found.names[found.y], ids[found.kept])
    assert found.y.dtype == np.int32
    everyone = number(ids)
    assert everyone.kept.all()
    assert everyone.count == 4


def test_too_few_are_refused():
    with pytest.raises(InputError, match="1 of 3 identities have 3 images"):
        number(np.array([5, 5, 5, 6, 7]), least=3)
    with pytest.raises(InputError, match="least"):
        number(np.array([5, 6]), least=0)
