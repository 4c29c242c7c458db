"""`LayerSweepDisplay`: what is drawn, where it stands, and that it can be read."""

from __future__ import annotations

import sys
from itertools import pairwise

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib import pyplot as plt

from sklprep import LayerSweepDisplay, layer_sweep, make_activations
from sklprep.sweeps.sweep_result import LayerSweep
from sklprep.sweeps.sweep_scores import Baseline

mpl.use("agg")


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def make_sweep(
    layers,
    *,
    n_folds=5,
    nested=True,
    interval=True,
    permuted=True,
    baselines=True,
    scoring="accuracy",
):
    """A sweep with made-up numbers."""
    rng = np.random.default_rng(0)
    n = len(layers)
    return LayerSweep(
        layers=list(layers),
        scores=0.4 + 0.1 * rng.random((n, n_folds)),
        fit_times=np.ones((n, n_folds)),
        scoring=scoring,
        n_samples=100,
        n_groups=100,
        size_ratio=0.25 if interval else None,
        best_layers=[layers[-1]] * 3 + [layers[n // 2]] * (n_folds - 3) if nested else None,
        permutation_scores=0.2 + 0.1 * rng.random((20, n)) if permuted else None,
        baselines={
            name: Baseline(np.full(n_folds, score))
            for name, score in [("majority", 0.3), ("sentence length", 0.31), ("TF-IDF", 0.35)]
        }
        if baselines
        else {},
    )


EACH_OF_6 = ["embeddings", *range(6)]
EACH_OF_26 = ["embeddings", *range(26)]
SPECS = ["embeddings", 0, "0-5", "0,12,25", 12, 13, "20-25"]
MANY_SPECS = [f"{i}-{i + 5},{i + 10}" for i in range(12)]


def tick_labels(display):
    return [label.get_text() for label in display.ax_.get_xticklabels()]


def test_embeddings_are_leftmost_then_the_layers_then_the_choice():
    display = LayerSweepDisplay.from_sweep(make_sweep(EACH_OF_6))
    assert ["emb", "0", "1", "2", "3", "4", "5", "chosen"] == tick_labels(display)
    ticks = display.ax_.get_xticks()
    assert (np.diff(ticks) > 0).all()
    low, high = display.ax_.get_xlim()
    assert low < ticks[0] < ticks[-1] < high


@pytest.mark.parametrize("interval", [True, False])
def test_points_are_means_and_bars_the_band_or_standard_deviations_over_folds(interval):
    sweep = make_sweep(EACH_OF_6, interval=interval)
    line, _, (bars,) = LayerSweepDisplay.from_sweep(sweep).errorbar_
    np.testing.assert_allclose(sweep.scores.mean(axis=1), line.get_ydata())
    spans = [segment[1, 1] - segment[0, 1] for segment in bars.get_segments()]
    expected = sweep.band[1] - sweep.band[0] if interval else 2 * sweep.scores.std(axis=1)
    np.testing.assert_allclose(expected, spans)


def test_choice_without_an_interval_is_a_point():
    sweep = make_sweep(EACH_OF_6, interval=False)
    display = LayerSweepDisplay.from_sweep(sweep)
    assert [sweep.nested_score] == display.nested_[0].get_ydata().tolist()
    assert () == display.nested_[2]
    assert f"inside the folds:\n{sweep.nested_score:.2f}" in display.nested_.get_label()


def test_line_joins_single_layers_only():
    line = LayerSweepDisplay.from_sweep(make_sweep(SPECS)).line_
    y = line.get_ydata()
    runs = "".join("." if np.isnan(value) else "x" for value in y).split(".")
    assert ["x", "x", "x", "x", "xx", "x"] == runs


def test_band_baselines_and_nested_score_are_drawn_at_their_values():
    sweep = make_sweep(EACH_OF_6)
    display = LayerSweepDisplay.from_sweep(sweep)
    low, high = sweep.permutation_band
    np.testing.assert_allclose(low, [bar.get_y() for bar in display.band_])
    np.testing.assert_allclose(high, [bar.get_y() + bar.get_height() for bar in display.band_])
    assert {"majority": 0.3, "sentence length": 0.31, "TF-IDF": 0.35} == {
        name: pytest.approx(line.get_ydata()[0]) for name, line in display.baseline_lines_.items()
    }
    styles = {line.get_linestyle() for line in display.baseline_lines_.values()}
    assert 3 == len(styles), "lines differ without colour too"
    marker, _, (interval,) = display.nested_
    assert [sweep.nested_score] == marker.get_ydata().tolist()
    np.testing.assert_allclose(sweep.nested_interval, interval.get_segments()[0][:, 1])
    assert marker.get_xdata()[0] > display.errorbar_[0].get_xdata().max() + 1


def test_triangles_count_the_folds_that_chose_a_layer():
    display = LayerSweepDisplay.from_sweep(make_sweep(EACH_OF_6))
    positions = display.errorbar_[0].get_xdata()
    assert [positions[6], positions[3]] == display.picked_.get_xdata().tolist()
    counts = {text.get_position()[0]: text.get_text() for text in display.ax_.texts}
    assert {positions[6]: "3", positions[3]: "2"} == counts


def test_what_the_sweep_lacks_is_not_drawn():
    sweep = make_sweep([0, 1, 2], nested=False, permuted=False, baselines=False)
    display = LayerSweepDisplay.from_sweep(sweep)
    assert (None, None, None) == (display.band_, display.nested_, display.picked_)
    assert {} == display.baseline_lines_
    assert ["0", "1", "2"] == tick_labels(display)


@pytest.mark.parametrize("layers", [[3], EACH_OF_6, EACH_OF_26, range(64), SPECS, MANY_SPECS])
@pytest.mark.parametrize("options", [{}, {"nested": False, "permuted": False}])
def test_tick_labels_do_not_overlap_and_the_legend_is_outside(layers, options):
    display = LayerSweepDisplay.from_sweep(make_sweep(list(layers), **options))
    display.figure_.canvas.draw()
    renderer = display.figure_.canvas.get_renderer()
    labels = display.ax_.get_xticklabels()
    rotated = any(label.get_rotation() for label in labels)
    boxes = [label.get_window_extent(renderer) for label in labels]
    for left, right in pairwise(boxes):
        if rotated:  # slanted lines of text stay apart by their height
            assert right.x1 - left.x1 > 10
        else:
            assert left.x1 < right.x0
    legend = display.legend_.get_window_extent(renderer)
    assert legend.x0 >= display.ax_.get_window_extent(renderer).x1
    figure = display.figure_.bbox
    assert legend.x1 <= figure.x1
    assert legend.y0 >= figure.y0


def test_legend_says_the_numbers_and_can_be_left_out():
    sweep = make_sweep(EACH_OF_6)
    display = LayerSweepDisplay.from_sweep(sweep)
    texts = [text.get_text() for text in display.legend_.get_texts()]
    assert "mean and 95 % band of the curve" == texts[0]
    assert f"naive best {sweep.naive_best_score:.2f}" == texts[1]
    low, high = sweep.nested_interval
    assert f"{sweep.nested_score:.2f} [{low:.2f}, {high:.2f}]" in texts[2]
    assert "permutation control" in texts[4]
    assert "baseline: TF-IDF 0.35" == texts[-1]
    assert display.plot(legend=False).legend_ is None


def test_plot_draws_into_given_axes_and_returns_itself():
    _, (left, right) = plt.subplots(1, 2)
    display = LayerSweepDisplay(sweep=make_sweep(EACH_OF_6))
    assert display is display.plot(right)
    assert right is display.ax_
    assert right.figure is display.figure_
    assert not left.has_data()
    assert display is display.plot()
    assert display.ax_ is not right


@pytest.mark.parametrize(
    ("scoring", "label"), [("accuracy", "Accuracy"), ("r2", "$R^2$"), ("f1_macro", "F1 macro")]
)
def test_axes_are_labelled_with_the_score(scoring, label):
    display = LayerSweepDisplay.from_sweep(make_sweep(EACH_OF_6, scoring=scoring))
    assert f"{label} (5-fold)" == display.ax_.get_ylabel()
    assert "Layer" == display.ax_.get_xlabel()


def test_from_estimator_plots_what_layer_sweep_finds(tmp_path):
    acts = make_activations(60, n_layers=3, d_model=8, n_features=32, random_state=0)
    options = {"layers": ["embeddings", 0, "1-2"], "cv": 3, "inner_cv": 2, "n_permutations": 2}
    _, ax = plt.subplots()
    display = LayerSweepDisplay.from_estimator(None, acts, acts.labels, **options, ax=ax)
    expected = layer_sweep(None, acts, acts.labels, **options)
    np.testing.assert_array_equal(expected.scores, display.sweep.scores)
    assert ax is display.ax_
    display.figure_.savefig(tmp_path / "sweep.png", bbox_inches="tight")
    assert (tmp_path / "sweep.png").read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_the_error_names_the_extra_before_anything_is_fitted(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"sklprep\[plot\]"):
        LayerSweepDisplay.from_sweep(make_sweep(EACH_OF_6))
    with pytest.raises(ImportError, match=r"sklprep\[plot\]"):
        LayerSweepDisplay.from_estimator(None, None, None)
