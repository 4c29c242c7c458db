"""What notebooks show: well-formed, escaped, without reading activations."""

import re
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from sentence_files import write_folder
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline

from sklprep import (
    ActivationNormalizer,
    ActivationSet,
    ConceptTargetExtractor,
    LayerSelector,
    generate_dataset,
    layer_sweep,
    load_activations,
    load_dataset,
    make_activations,
    make_strategy,
)
from sklprep.datasets.probe_dataset import ProbeDataset
from sklprep.exceptions import SklprepWarning
from sklprep.notebook.curve import _spread, _ticks, draw_curve
from sklprep.sweeps.sweep_result import LayerSweep

EVIL = '<script>alert("x")</script> & <b>'
ACTS = make_activations(100, n_layers=3, d_model=4, n_features=24, random_state=0)


class Tags(HTMLParser):
    """Checks that every element is closed in order, and collects names and text."""

    def __init__(self, html):
        super().__init__()
        self.open, self.names, self.text = [], set(), ""
        self.feed(html)
        self.close()
        assert [] == self.open

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        self.names.add(tag)

    def handle_startendtag(self, tag, attrs):
        self.names.add(tag)

    def handle_endtag(self, tag):
        assert tag == self.open.pop()

    def handle_data(self, data):
        self.text += data


def show(thing):
    tags = Tags(thing._repr_html_())
    assert "script" not in tags.names
    return tags


def test_set_says_shapes_labels_and_first_sentences():
    text = show(ACTS).text

    for part in ("100, pooling final", "layers 0-2, 4 wide", "3 SAEs of 24", ACTS.sentences[4]):
        assert part in text
    assert ACTS.sentences[5] not in text
    assert f"0: {(ACTS.labels == 0).sum()} (" in text


def test_view_counts_its_own_rows():
    text = show(ACTS[ACTS.labels == 1]).text

    assert f"{(ACTS.labels == 1).sum()}, pooling final" in text
    assert "(100.0%)" in text


def test_everything_that_comes_from_data_is_escaped(tmp_path):
    write_folder(tmp_path / "<b>data", 2, sentence=EVIL)
    folder = load_activations(tmp_path / "<b>data")
    arrays = ActivationSet.from_arrays(
        hidden_states=np.zeros((2, 1, 2)), sentences=[EVIL, "x"], labels=[EVIL, "y"]
    )
    dataset = ProbeDataset(
        np.zeros((1, 2)), np.array([EVIL]), {"meta_strategy": EVIL, "meta_provenance": EVIL}, {}
    )
    scores = np.full((2, 3), 0.5)
    sweep = LayerSweep([EVIL, 1], scores, scores, EVIL, 3, 3)
    for thing in folder, arrays, dataset, sweep:
        html = thing._repr_html_()
        assert EVIL in re.sub(r"\s+", " ", Tags(html).text)
        assert "<script" not in html
        assert "<b>data" not in html


def test_dataset_with_half_a_target_is_shown():
    for entry in ("meta_target_feature", "meta_target_layer"):
        dataset = ProbeDataset(np.eye(2), np.ones(2), {entry: 3}, {})

        assert "target" not in show(dataset).text


def test_showing_a_set_reads_no_activations(tmp_path):
    write_folder(tmp_path / "data", 3)
    acts = load_activations(tmp_path / "data")
    for path in (tmp_path / "data").iterdir():
        path.unlink()

    assert "3, pooling final" in show(acts).text


def test_set_without_labels_says_so(tmp_path):
    write_folder(tmp_path / "data", 2, omit=("concept_strength_label", "sentence"))

    assert "concept_strength_label" in show(load_activations(tmp_path / "data")).text


def test_labels_of_mixed_types_are_shown():
    acts = ActivationSet.from_arrays(
        hidden_states=np.zeros((2, 1, 2)), labels=np.array([None, "a"], object)
    )

    assert "None: 1 (50.0%)" in show(acts).text


def test_dataset_says_target_normalization_and_steps(tmp_path):
    ds = generate_dataset(ACTS, *make_strategy("hidden-to-concept", layers="0,2"))
    text = show(ds).text

    for part in ("(100, 8) float32", "standardize", "LayerSelector(layers='0,2')", "hidden states"):
        assert part in text


def test_dataset_says_where_it_comes_from():
    ds = generate_dataset(ACTS, *make_strategy("hidden-to-concept", layers="0,2"))
    html = ds._repr_html_()
    rows = dict(re.findall(r'<th scope="row">(.*?)</th><td>(.*?)</td>', html))

    assert "<td>hidden states of layers 0,2</td>" in html
    assert "groups" not in rows
    assert ("arrays", ACTS.fingerprint) == (rows["input"], rows["fingerprint"])
    assert ("custom", "final", "0,2") == (rows["strategy"], rows["pooling"], rows["layers"])
    assert np.__version__ == rows["numpy"]


def test_tokens_show_each_sentence_once_and_what_holds_them_together(tmp_path):
    write_folder(tmp_path / "data", 8, n_tokens=4)
    acts = load_activations(tmp_path / "data", pooling="none")
    text = show(acts).text
    with pytest.warns(SklprepWarning):
        dataset = generate_dataset(acts, *make_strategy("hidden-to-concept", layers=0))

    assert "8, to be kept whole in splits: acts.groups" in text
    assert "8, to be kept whole in splits: ds.groups" in show(dataset).text
    assert [1] * 5 + [0] * 3 == [text.count(f"This is sentence {i}.") for i in range(8)]


@pytest.mark.parametrize(
    "meta",
    [
        {"meta_input_layers": 3},
        {"meta_input_layers": np.array([["a", "b"]])},
        {"meta_input_layers": np.zeros((2, 2))},
        {"meta_provenance": "[1, 2]"},
        {"meta_provenance": 7},
        {"meta_provenance": "[" * 100_000},
        {"meta_provenance": '{"a": {"b": []}}'},
    ],
)
def test_entries_of_another_kind_are_shown(meta):
    meta = {"meta_input_source": "hidden_states"} | meta
    assert "hidden states" in show(ProbeDataset(np.zeros((3, 2)), np.arange(3.0), meta, {})).text


def test_foreign_dataset_is_shown():
    assert (
        "(3,) float64: 0 to 2, not zero in 2 of 3 rows"
        in show(ProbeDataset(np.zeros((3, 2)), np.arange(3.0), {}, {})).text
    )


def svg_of(thing):
    return ET.fromstring(re.search(r"<svg.*</svg>", thing._repr_html_(), re.DOTALL)[0])


@pytest.fixture(scope="module")
def sweep():
    return layer_sweep(None, ACTS, ACTS.labels, cv=3, inner_cv=3, n_permutations=2)


def test_sweep_shows_the_honest_sentence_and_every_score(sweep):
    text = show(sweep).text

    assert sweep.summary() in text
    assert sweep.methods_text() in text
    for mean in sweep.mean_scores:
        assert f"{mean:.3f}" in text


def test_curve_has_a_dot_where_each_score_is(sweep):
    svg = svg_of(sweep)
    dots = [(float(c.get("cx")), float(c.get("cy"))) for c in svg.iter("circle")]
    x, y = map(np.array, zip(*dots, strict=True))
    slope = np.polyfit(sweep.mean_scores, y, 1)

    np.testing.assert_allclose(y, np.polyval(slope, sweep.mean_scores), atol=0.06)
    assert slope[0] < 0
    np.testing.assert_allclose(np.diff(x), np.diff(x)[0], atol=0.11)
    assert len(sweep.layers) == len(list(svg.iter("rect")))
    assert 1 == len(list(svg.iter("path")))


def test_sweep_without_nesting_and_controls_has_dots_alone():
    svg = svg_of(layer_sweep(None, ACTS, ACTS.labels, cv=3, inner_cv=None, baselines=False))

    assert 4 == len(list(svg.iter("circle")))
    assert not list(svg.iter("rect")) + list(svg.iter("path"))


@pytest.mark.parametrize("value", [np.nan, 0.5, -1e6])
def test_curve_of_undefined_equal_or_wild_scores_is_drawn(value):
    scores = np.full((2, 3), value)
    ET.fromstring(
        draw_curve(["0", "1"], scores.mean(1), scores.std(1), joined=[True], ylabel="r2", lines={})
    )


@pytest.mark.parametrize(("low", "high"), [(0.2, 0.9), (-3.1, 0.4), (0.5, 0.5), (0, 1), (-90, 1e4)])
def test_ticks_are_few_and_span_the_values(low, high):
    ticks = _ticks(np.array([low, high]))

    assert 3 <= len(ticks) <= 8
    assert ticks[0] <= low + 1e-9
    assert ticks[-1] >= high - 1e-9


def test_labels_are_moved_apart_and_stay_inside():
    heights = _spread([(220.0, "a"), (221.0, "b"), (219.0, "c"), (20.0, "d")])

    assert (np.diff(heights) >= 13 - 1e-9).all()
    assert 20.0 == heights[0]
    assert heights[-1] <= 224


def test_frame_has_named_columns_target_and_sentence_index(tmp_path):
    ds = generate_dataset(
        ACTS, *make_strategy("hidden-to-concept", layers="0,2"), output=tmp_path / "d.npz"
    )
    frame = load_dataset(tmp_path / "d.npz").to_frame()

    names = [f"L{layer}_h{i:04d}" for layer in (0, 2) for i in range(4)]
    assert [*names, "label"] == frame.columns.tolist()
    assert "sentence_index" == frame.index.name
    assert ACTS.sentence_indices.tolist() == frame.index.tolist()
    np.testing.assert_array_equal(ds.X, frame[names].to_numpy())
    np.testing.assert_array_equal(ds.y, frame["label"])
    assert {"float32", "int64"} == {str(dtype) for dtype in frame.dtypes}


def test_frame_names_a_feature_as_target():
    strategy = make_strategy("embedding-to-feature", target_layer=1, target_feature=3)
    frame = generate_dataset(ACTS, *strategy).to_frame()

    assert ["emb_0000", "L1_f00003"] == frame.columns[[0, -1]].tolist()


def test_frame_names_sae_features_and_what_a_pca_makes():
    features = make_strategy("feature-to-concept", layers="1-2")
    components = make_pipeline(LayerSelector(1), ActivationNormalizer(), PCA(2))
    saes = generate_dataset(ACTS, *features).to_frame()
    pca = generate_dataset(ACTS, components, ConceptTargetExtractor()).to_frame()

    names = [f"L{layer}_f{i:05d}" for layer in (1, 2) for i in range(24)]
    assert [*names, "label"] == saes.columns.tolist()
    assert ["pca0", "pca1", "label"] == pca.columns.tolist()


def test_frame_of_tokens_repeats_the_index_of_their_sentence(tmp_path):
    write_folder(tmp_path / "data", 3, n_tokens=2)
    acts = load_activations(tmp_path / "data", pooling="none")
    with pytest.warns(SklprepWarning):
        frame = generate_dataset(acts, *make_strategy("hidden-to-concept", layers=0)).to_frame()

    assert [0, 0, 1, 1, 2, 2] == frame.index.tolist()


def test_frame_of_a_foreign_dataset_is_numbered():
    frame = ProbeDataset(np.eye(2), np.eye(2), {}, {}).to_frame()

    assert ["x0", "x1", "y0", "y1"] == frame.columns.tolist()
    assert [0, 1] == frame.index.tolist()


def test_frame_without_pandas_says_what_to_install(run_python):
    code = (
        "import sys; sys.modules['pandas'] = None\n"
        "import numpy as np; from sklprep import ProbeDataset\n"
        "try: ProbeDataset(np.eye(2), np.ones(2), {}, {}).to_frame()\n"
        "except ImportError as error: print(error)"
    )

    assert "pip install pandas" in run_python(code)
