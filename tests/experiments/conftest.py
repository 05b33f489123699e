"""One tiny setting for the tests of methods, and runs that draw nothing."""

import pytest

from analysis import style
from experiments.comparison import pictures, singular
from experiments.comparison.protocols import PROTOCOLS
from experiments.comparison.setting import Options, make_setting, prepare
from fssd_jax.data import benchmarks


def near_only(name, data_dir=None):
    benchmark = benchmarks.load_benchmark(name, data_dir)
    return benchmark._replace(ood={"digits_near": benchmark.ood["digits_near"]})


@pytest.fixture(autouse=True, scope="session")
def few_photographs_and_simple_fonts():
    """One patch in eleven, 60, and PDFs whose fonts take a third of the time less."""
    with pytest.MonkeyPatch.context() as patch:
        every = singular.photo_patches
        patch.setattr(singular, "photo_patches", lambda shape: every(shape)[::11])
        patch.setitem(style.RC, "pdf.fonttype", 3)
        yield


@pytest.fixture(scope="session")
def setting(tmp_path_factory):
    options = Options(tiny=True, out=tmp_path_factory.mktemp("setting"))
    prepared = prepare(near_only("digits"), 0, options)
    return make_setting(prepared, "digits_near", PROTOCOLS["paper"], tiny=True)


@pytest.fixture
def undrawn(monkeypatch):
    """Results without the pictures of scores, which take seconds to draw."""
    monkeypatch.setattr(pictures, "figures", lambda *_: {})
