"""Files that other versions wrote: of sklprep's formats, of sklprep, of scikit-learn.

The files in ``data/format_v1`` were written once and stay as they are (its README says how); what
they must hold is worked out here from the formulas that their sentence files were filled with.
"""

import json
import math
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import sklearn
from forged_pipelines import attributes, edited, plain, set_attribute
from sentence_files import damage, rewrite, write_folder

import sklprep
from sklprep import generate_dataset, load_activations, load_dataset, make_strategy
from sklprep.cli.main import main
from sklprep.exceptions import FileFormatError, PipelineError, SklprepWarning
from sklprep.formats.pack_reader import Pack

V1 = Path(__file__).parents[1] / "data" / "format_v1"
SENTENCES = range(8)
SAES = [(0, 70), (2, 71), (2, 82)]


def hidden(sentence, layer, column):
    return (5 * sentence + 3 * layer + 7 * column + sentence * column) % 9 - 4


def embedding(sentence, column):
    return (3 * sentence + column) % 8 - 3


def activation(sentence, average_l0, feature):
    return 0 if (sentence + feature) % 4 else average_l0 / 2 + sentence + feature


def table(value, columns):
    """One row a sentence, one column for each tuple of further arguments."""
    return np.array([[value(sentence, *column) for column in columns] for sentence in SENTENCES])


HIDDEN = {layer: table(hidden, [(layer, c) for c in range(3)]) for layer in (0, 2)}
EMBEDDINGS = table(embedding, [(c,) for c in range(2)])
ACTIVATIONS = {l0: table(activation, [(l0, f) for f in range(5)]) for _, l0 in SAES}


def standardized(columns):
    mean = [math.fsum(column) / 8 for column in columns.T]
    std = [
        math.sqrt(math.fsum((value - m) ** 2 for value in column) / 8)
        for column, m in zip(columns.T, mean, strict=True)
    ]
    return mean, std, (columns - mean) / std


# What was written once


@pytest.fixture
def v1_acts():
    return load_activations(V1 / "pack")


def load_v1(name):
    """Load a committed dataset; that another scikit-learn wrote it is known."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".* was fitted with scikit-learn", SklprepWarning)
        return load_dataset(V1 / f"{name}.npz")


def test_a_dataset_of_format_1_gives_what_was_written(v1_acts):
    mean, std, X = standardized(np.hstack([HIDDEN[0], HIDDEN[2]]))

    dataset = load_v1("dataset")

    assert (dataset.X.dtype, dataset.y.dtype) == (np.float32, np.int64)
    np.testing.assert_allclose(dataset.X, X, rtol=1e-6)
    assert dataset.y.tolist() == [s % 4 for s in SENTENCES]
    np.testing.assert_allclose(dataset.norm["norm_mean"], mean, rtol=1e-15)
    np.testing.assert_allclose(dataset.norm["norm_std"], std, rtol=1e-15)
    assert dataset.meta["meta_input_layers"].tolist() == [0, 2]
    assert dataset.meta["meta_sentence_indices"].tolist() == list(SENTENCES)
    expected = {
        "meta_strategy": "hidden-to-concept",
        "meta_input_source": "hidden_states",
        "meta_input_dims": 6,
        "meta_n_samples": 8,
        "meta_pooling": "final",
        "meta_output_type": "concept_label",
        "meta_n_classes": 4,
        "meta_format_version": 1,
    }
    assert (
        expected.items()
        <= {key: value for key, value in dataset.meta.items() if np.ndim(value) == 0}.items()
    )
    assert json.loads(dataset.meta["meta_provenance"])["input"] == "eight_sentences"
    assert dataset.pipeline.transform(v1_acts).tobytes() == dataset.X.tobytes()


def test_a_feature_dataset_of_format_1_gives_what_was_written(v1_acts):
    low, high = HIDDEN[2].min(axis=0), HIDDEN[2].max(axis=0)

    dataset = load_v1("feature")

    np.testing.assert_allclose(dataset.X, (HIDDEN[2] - low) / (high - low), rtol=1e-6, atol=1e-7)
    np.testing.assert_array_equal(dataset.y, ACTIVATIONS[82][:, 1].astype(np.float32), strict=True)
    assert dataset.norm["norm_method"] == "minmax"
    assert dataset.norm["norm_min"].tolist() == low.tolist()
    assert dataset.norm["norm_max"].tolist() == high.tolist()
    assert dataset.meta["meta_target_layer"] == 2
    assert dataset.meta["meta_target_feature"] == 1
    assert dataset.meta["meta_average_l0"] == 82
    assert dataset.pipeline.transform(v1_acts).tobytes() == dataset.X.tobytes()


def test_a_dataset_of_sae_features_of_format_1_gives_what_was_written(v1_acts):
    largest = ACTIVATIONS[82].max(axis=0)

    dataset = load_v1("sparse")

    np.testing.assert_allclose(dataset.X, ACTIVATIONS[82] / largest, rtol=1e-6)
    assert dataset.norm["norm_max_abs"].tolist() == largest.tolist()
    assert dataset.meta["meta_input_source"] == "activations"
    assert dataset.pipeline.transform(v1_acts).toarray().tobytes() == dataset.X.tobytes()


def test_a_pack_of_format_1_gives_what_was_written(v1_acts):
    np.testing.assert_array_equal(v1_acts.embeddings, EMBEDDINGS.astype(np.float32), strict=True)
    assert v1_acts.layers.tolist() == [0, 2]
    for layer, values in HIDDEN.items():
        np.testing.assert_array_equal(v1_acts.layer(layer), values.astype(np.float32), strict=True)
    assert [*zip(v1_acts.sae_layers, v1_acts.average_l0s, strict=True)] == SAES
    for layer, l0 in SAES:
        found = v1_acts.sae_activations(layer, l0).toarray()
        np.testing.assert_array_equal(found, ACTIVATIONS[l0].astype(np.float32), strict=True)
    assert v1_acts.labels.tolist() == [s % 4 for s in SENTENCES]
    assert v1_acts.groups.tolist() == list(SENTENCES)
    assert v1_acts.sentences.tolist() == [f"This is sentence {s}." for s in SENTENCES]
    assert (v1_acts.name, v1_acts.pooling) == ("eight_sentences", "final")
    assert Pack(V1 / "pack", pooling=None).verify() == []


@pytest.mark.filterwarnings("ignore:Only 8 samples", "ignore:Feature 1 of layer 2 is active in 2")
@pytest.mark.parametrize(
    ("name", "strategy", "options"),
    [
        ("dataset", "hidden-to-concept", {"layers": "0,2"}),
        (
            "feature",
            "hidden-to-feature",
            {"target_layer": 2, "target_feature": 1, "average_l0": 82, "normalize": "minmax"},
        ),
        ("sparse", "feature-to-concept", {"layers": 2, "average_l0": 82, "normalize": "maxabs"}),
    ],
)
def test_a_pack_of_format_1_gives_the_datasets_of_format_1_again(v1_acts, name, strategy, options):
    old = load_v1(name)

    new = generate_dataset(v1_acts, *make_strategy(strategy, **options), strategy=strategy)

    assert new.X.tobytes() == old.X.tobytes()
    assert new.y.tobytes() == old.y.tobytes()
    assert new.meta.keys() == old.meta.keys()
    old_source, new_source = (json.loads(each.meta["meta_provenance"]) for each in (old, new))
    assert old_source | {"versions": new_source["versions"]} == new_source


# What another version writes


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A folder of sentence files, a pack and a dataset of it."""
    root = tmp_path_factory.mktemp("written")
    write_folder(root / "files", 100, d_model=4, n_features=6)
    acts = load_activations(root / "files")
    acts.to_pack(root / "pack")
    generate_dataset(acts, *make_strategy("hidden-to-concept", layers=1), output=root / "d.npz")
    return root


@pytest.fixture
def path(written, tmp_path):
    return Path(shutil.copy(written / "d.npz", tmp_path / "d.npz"))


def set_provenance(path, **versions):
    """Let other versions have written a dataset."""
    with np.load(path) as old:
        record = json.loads(str(old["meta_provenance"]))
    record["versions"] |= {name.replace("_", "-"): value for name, value in versions.items()}
    rewrite(path, meta_provenance=json.dumps(record))


def edit_pipeline(path, edit):
    with np.load(path) as old:
        data = edited(old["pipeline"].tobytes(), edit)
    rewrite(path, pipeline=np.frombuffer(data, np.uint8))


def set_scikit_learn(version):
    """Let another scikit-learn have fitted every step."""

    def edit(value):
        if isinstance(value, dict):
            if "_sklearn_version" in value:
                value["_sklearn_version"] = plain(version)
            value = list(value.values())
        for child in value if isinstance(value, list) else ():
            edit(child)

    return edit


def spoil(path):
    """Let the pipeline be one that does not transform here."""
    edit_pipeline(path, set_attribute("n_features_in_", plain(7), 1))


def refusal(path, kind=PipelineError, **options):
    with pytest.raises(kind) as caught:
        load_dataset(path, **options)
    assert str(caught.value).isprintable()
    return str(caught.value)


def test_a_newer_dataset_format_is_refused_before_anything_in_it_looks_broken(path):
    rewrite(
        path,
        X=np.zeros((2, 2, 2)),
        meta_format_version=2,
        meta_strategy=[1],
        omit=("y", "norm_std"),
    )
    expected = (
        f"{path}: dataset format version 2; this sklprep {sklprep.__version__} reads versions up to"
        " 1. Upgrade sklprep."
    )

    assert expected == refusal(path, FileFormatError)
    assert expected == refusal(path, FileFormatError, pipeline=False)


def test_a_newer_dataset_format_is_one_line_on_the_command_line(path, capsys):
    rewrite(path, meta_format_version=2)

    assert main(["inspect", str(path)]) == 1
    assert capsys.readouterr().err.startswith(f"Error: {path}: dataset format version 2; ")


@pytest.mark.parametrize("version", [[1], 1.0, "1", True])
def test_a_format_version_that_is_no_number_is_refused(path, version):
    rewrite(path, meta_format_version=version)

    assert "member 'meta_format_version'" in refusal(path, FileFormatError)


@pytest.mark.parametrize("version", ["0.0.1", "99.0.dev1"])
def test_a_dataset_of_another_sklprep_but_of_this_format_loads_as_if_it_were_ours(
    written, path, version
):
    set_provenance(path, sklprep=version)

    dataset = load_dataset(path)

    X = dataset.pipeline.transform(load_activations(written / "files"))
    assert X.tobytes() == dataset.X.tobytes()


@pytest.mark.parametrize("version", ["1.6.1", "99.0"])
def test_another_scikit_learn_is_one_warning_that_says_what_to_do(written, path, version):
    edit_pipeline(path, set_scikit_learn(version))

    with pytest.warns(SklprepWarning) as caught:
        dataset = load_dataset(path)

    assert [str(warning.message) for warning in caught] == [
        f"{path}: member 'pipeline': was fitted with scikit-learn '{version}', and this is"
        f" '{sklearn.__version__}'. It can be used, but results may differ; to be sure, generate"
        " the dataset again."
    ]
    X = dataset.pipeline.transform(load_activations(written / "files"))
    assert X.tobytes() == dataset.X.tobytes()
    assert load_dataset(path, pipeline=False).X.tobytes() == dataset.X.tobytes()


def test_another_scikit_learn_is_one_line_on_the_command_line(path, capsys):
    edit_pipeline(path, set_scikit_learn("1.6.1"))

    assert main(["inspect", "--quick", str(path)]) == 0
    err = capsys.readouterr().err
    assert err.startswith(f"Warning: {path}: member 'pipeline': was fitted with scikit-learn '1.6")
    assert err.count("\n") == 1


def test_a_pipeline_from_before_a_parameter_was_introduced_has_its_default(written, path):
    """MaxAbsScaler of scikit-learn 1.7 has no `clip`, without which that of 1.8 fails."""

    def remove(schema):
        scaler = attributes(schema, 1)["scaler_"]["content"]
        del scaler["content"]["copy"]
        scaler["key_types"]["content"].pop()

    edit_pipeline(path, remove)

    dataset = load_dataset(path)

    assert dataset.pipeline[1].scaler_.copy is True
    X = dataset.pipeline.transform(load_activations(written / "files"))
    assert X.tobytes() == dataset.X.tobytes()


def test_a_pipeline_that_does_not_load_here_is_refused_with_the_versions_that_wrote_it(path):
    spoil(path)
    set_provenance(path, sklprep="9.0", scikit_learn="1.20.0rc1")

    here = f"(here {sklprep.__version__}, {sklearn.__version__})"
    assert refusal(path).endswith(
        f"; expected fitted steps that fit together. It was written with sklprep 9.0, scikit-learn"
        f" 1.20.0rc1 {here}: install these versions, generate the dataset again, or load it with"
        " pipeline=False."
    )
    assert load_dataset(path, pipeline=False).X.shape == (100, 4)


def test_a_pipeline_that_these_versions_wrote_is_not_blamed_on_versions(path):
    spoil(path)

    assert refusal(path).endswith(
        "; expected fitted steps that fit together. Generate the dataset again, or load it with"
        " pipeline=False."
    )


@pytest.mark.parametrize("version", ["1\x1b[31m", "9" * 1000, "", "; rm -rf /", None, ["1.9"]])
def test_a_version_that_is_none_is_not_repeated(path, version):
    spoil(path)
    set_provenance(path, skops=version)

    assert refusal(path).endswith(". Generate the dataset again, or load it with pipeline=False.")


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"versions": 3}', "[" * 10_000])
def test_a_provenance_that_is_none_is_no_fault(path, text):
    rewrite(path, meta_provenance=text)

    assert load_dataset(path).meta["meta_provenance"] == text
    spoil(path)
    assert refusal(path).endswith(". Generate the dataset again, or load it with pipeline=False.")


def test_a_newer_skops_is_named_with_what_wrote_the_dataset(path):
    edit_pipeline(path, lambda schema: schema.update(protocol=99))
    set_provenance(path, skops="7.1")

    message = refusal(path)
    assert "protocol 99" in message
    assert "It was written with skops 7.1 (here " in message


@pytest.mark.parametrize(
    "break_pipeline",
    [
        spoil,
        lambda path: damage(path, "pipeline"),
        lambda path: rewrite(path, pipeline=np.frombuffer(b"no zip at all", np.uint8)),
        lambda path: rewrite(path, pipeline=np.zeros((3, 3))),
        lambda path: rewrite(path, pipeline="text"),
        lambda path: rewrite(path, norm_mean=np.zeros(4)),
    ],
    ids=["spoilt", "damaged", "junk", "matrix", "text", "contradicted"],
)
def test_without_the_pipeline_the_arrays_always_load(written, path, break_pipeline):
    break_pipeline(path)

    refusal(path, FileFormatError)
    whole, arrays = load_dataset(written / "d.npz"), load_dataset(path, pipeline=False)
    assert arrays.pipeline is None
    assert (arrays.X.tobytes(), arrays.y.tobytes()) == (whole.X.tobytes(), whole.y.tobytes())


# Packs


@pytest.fixture
def newer_pack(written, tmp_path):
    """A pack of a format to come, which says everything in another way."""
    shutil.copytree(written / "pack", tmp_path / "pack")
    manifest = tmp_path / "pack" / "manifest.json"
    manifest.write_text('{"format": "sklprep pack", "format_version": 2, "tables": []}')
    return tmp_path / "pack"


def test_a_newer_pack_is_refused(newer_pack):
    with pytest.raises(FileFormatError) as caught:
        load_activations(newer_pack)

    assert str(caught.value) == (
        f"{newer_pack / 'manifest.json'}: pack format version 2; this sklprep reads versions up to"
        " 1. Upgrade sklprep."
    )


def test_a_newer_pack_is_not_written_to(written, newer_pack, capsys):
    before = {file: file.read_bytes() for file in newer_pack.rglob("*") if file.is_file()}

    assert main(["pack", str(written / "files"), str(newer_pack)]) == 1
    assert "pack format version 2" in capsys.readouterr().err
    assert before == {file: file.read_bytes() for file in newer_pack.rglob("*") if file.is_file()}


def test_what_a_newer_sklprep_adds_to_a_pack_of_this_format_is_left_alone(written, tmp_path):
    pack = Path(shutil.copytree(written / "pack", tmp_path / "pack"))
    manifest = json.loads((pack / "manifest.json").read_text())
    (pack / "manifest.json").write_text(json.dumps(manifest | {"later": {"what": [1, None]}}))

    acts = load_activations(pack)

    np.testing.assert_array_equal(acts.layer(1), load_activations(written / "files").layer(1))
