import matplotlib.image
import numpy as np

from analysis import feature_plots, plots

RNG = np.random.default_rng(0)
SETS = {name: RNG.normal(size=(40, 3)) for name in plots.COLORS}


def test_a_panel_for_each_layer():
    figure = plots.layer_histograms(SETS, ["a", "b", "c"], ["1", "2", "3"])
    assert [ax.get_title() for ax in figure.axes] == ["a\n1", "b\n2", "c\n3"]
    # A density's area is one.
    for patches in figure.axes[0].containers:
        area = sum(p.get_height() * p.get_width() for p in patches)
        np.testing.assert_allclose(area, 1)


def test_roc_reaches_from_corner_to_corner():
    figure = plots.roc(
        {"x": (RNG.normal(1, 1, 50), RNG.normal(0, 1, 50))}, title="title"
    )
    points = figure.axes[0].lines[0].get_xydata()
    np.testing.assert_array_equal(points[[0, -1]], [[0, 0], [1, 1]])


def test_files_are_pictures_and_the_same_every_time(tmp_path):
    files = []
    for name in ("one", "two"):
        figure = feature_plots.feature_scatter(
            {k: v[:, :2] for k, v in SETS.items()},
            np.zeros(2),
            np.array([0.7, 0.2]),
            "t",
        )
        plots.save(figure, tmp_path / name)
        files.append(
            [(tmp_path / f"{name}.{end}").read_bytes() for end in ("png", "pdf")]
        )
    assert files[0] == files[1]
    assert matplotlib.image.imread(tmp_path / "one.png").std() > 0.01
    assert files[0][1].startswith(b"%PDF")


def test_the_chosen_epsilon_is_marked():
    figure = plots.epsilon_choice(np.array([0, 0.1]), np.array([0.6, 0.7]), 0.1)
    assert figure.axes[0].get_legend_handles_labels()[1] == ["chosen: ε = 0.1"]
