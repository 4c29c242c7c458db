"""Folders with faulty files: all of them are named in one run, or left out and recorded."""

import errno
import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from joblib import Parallel, delayed, parallel_config
from sentence_files import damage, rewrite, write_folder, write_sentence
from sklearn.linear_model import Ridge
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline

import sklprep.datasets.batch
import sklprep.datasets.generation
import sklprep.formats.pack_writer
import sklprep.formats.sentence_folder
import sklprep.formats.source
from sklprep import (
    ActivationNormalizer,
    ActivationSet,
    LayerSelector,
    generate_dataset,
    load_activations,
    load_dataset,
    make_strategy,
)
from sklprep.exceptions import (
    DataError,
    FaultyFilesError,
    FileFormatError,
    SklprepWarning,
    UsageError,
)
from sklprep.formats.pack_reader import Pack, is_pack
from sklprep.formats.pack_writer import build_pack
from sklprep.formats.sentence_folder import SentenceFolder

N = 16

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*(gaps in the numbering|Only [0-9]+ samples|is active in)"
)


def name(number):
    return f"sentence_{number:06d}.npz"


def names(*numbers):
    return [name(number) for number in numbers]


def spoil(path, member, place, value=np.nan):
    with np.load(path) as file:
        values = file[member].copy()
    values[place] = value
    rewrite(path, **{member: values})


@pytest.fixture
def dump(tmp_path):
    """A sound folder, stored, so that damage to a member is not noticed before it is read."""
    final = [False, False, True]
    write_folder(tmp_path / "dump", N, n_tokens=3, is_final_token=final, compress=False)
    return tmp_path / "dump"


@pytest.fixture
def faulty(dump):
    """The folder with a fault of each kind; which files are at fault for whom is in FAULTS."""
    (dump / name(1)).write_bytes(b"PK")
    rewrite(dump / name(3), hidden_states=np.zeros((3, 3, 6), np.float32))
    damage(dump / name(5), "hidden_states")
    damage(dump / name(6), "activations")
    damage(dump / name(7), "embeddings")
    spoil(dump / name(8), "hidden_states", (1, 2, 0))
    spoil(dump / name(9), "activations", (2, 2, 30))
    spoil(dump / name(10), "embeddings", (0, 0))
    rewrite(dump / name(11), concept_strength_label=9)
    return dump


EVERYWHERE = [1, 3]
FAULTS = {
    "embedding-to-concept": [*EVERYWHERE, 7, 11],
    "h0": [*EVERYWHERE, 5, 11],
    "h1": [*EVERYWHERE, 5, 8, 11],
    "f30": [*EVERYWHERE, 6, 7, 9],
    "f29": [*EVERYWHERE, 6, 7],
    "anything": [1, 3, 5, 6, 7, 8, 9, 11],
}


@pytest.fixture
def without(tmp_path):
    """Copy a folder without some of its files."""

    def copy(folder, numbers, to="sound"):
        target = tmp_path / to / folder.name
        shutil.copytree(folder, target, symlinks=True)
        for number in numbers:
            (target / name(number)).unlink()
        return target

    return copy


def assert_same_rows(expected, actual):
    assert len(expected) == len(actual)
    assert expected.fingerprint == actual.fingerprint
    for what in ("labels", "groups", "sentences", "sentence_indices", "embeddings"):
        np.testing.assert_array_equal(getattr(expected, what), getattr(actual, what))
    np.testing.assert_array_equal(expected.hidden_states, actual.hidden_states)
    for left, right in zip(expected.activations, actual.activations, strict=True):
        np.testing.assert_array_equal(left.toarray(), right.toarray())


# --- all are named ------------------------------------------------------------------------------


@pytest.mark.parametrize("n_jobs", [1, 2])
@pytest.mark.parametrize("skip_bad", [False, True])
def test_the_first_ten_faulty_files_have_a_line_each_and_the_others_are_counted(
    tmp_path, n_jobs, skip_bad
):
    write_folder(tmp_path, 13)
    for number in range(1, 13):
        (tmp_path / name(number)).write_bytes(b"")
    if skip_bad:
        (tmp_path / name(0)).write_bytes(b"")
    with pytest.raises(FaultyFilesError) as error:
        load_activations(tmp_path, n_jobs=n_jobs, skip_bad=skip_bad)
    first = 0 if skip_bad else 1
    assert list(error.value.faults) == names(*range(first, 13))
    head, *lines, count = str(error.value).splitlines()
    others = "" if skip_bad else ", or leave them out (skip_bad=True)"
    assert head == (
        f"{tmp_path}: {13 - first} of 13 files are at fault; expected none. Correct or remove"
        f" them{others}:"
    )
    assert len(lines) == 10
    for number, line in enumerate(lines, first):
        assert line.startswith(f"{tmp_path / name(number)}: cannot be read as a zip archive")
        assert line == str(error.value.faults[name(number)])
    assert count == f"and {3 - first} more."


def test_one_faulty_file_is_one_line(tmp_path):
    write_folder(tmp_path, 3)
    (tmp_path / name(1)).write_bytes(b"")
    with pytest.raises(FaultyFilesError) as error:
        load_activations(tmp_path)
    assert str(error.value).startswith(f"{tmp_path / name(1)}: cannot be read as a zip archive")
    assert len(str(error.value).splitlines()) == 1


def test_the_odd_file_is_the_one_that_disagrees_with_most_wherever_it_stands(tmp_path):
    write_folder(tmp_path, 5, changes={0: {"d_model": 6}, 3: {"layers": (0, 1, 5)}})
    with pytest.raises(FaultyFilesError) as error:
        load_activations(tmp_path)
    assert list(error.value.faults) == names(0, 3)
    _, first, second = str(error.value).splitlines()
    assert "differs from sentence_000001.npz: hidden_states width 6; expected 7 as" in first
    assert "differs from sentence_000001.npz: layers (0, 1, 5); expected (0, 1, 2)" in second


def test_the_index_of_a_faulty_file_is_free_for_another(tmp_path):
    write_folder(tmp_path, 3, changes={0: {"d_model": 6}, 2: {"sentence_index": 0}})
    write_folder(tmp_path, 1, first=3, sentence_index=1)
    with pytest.raises(FaultyFilesError) as error:
        load_activations(tmp_path)
    assert list(error.value.faults) == names(0, 3)


@pytest.mark.parametrize("n_jobs", [1, 2])
@pytest.mark.parametrize(
    ("read", "expected"),
    [
        (lambda acts: acts.layer(0), [5, 12]),
        (lambda acts: acts.embeddings, [7]),
        (lambda acts: acts.feature(0, 0), [6, 12]),
        (lambda acts: acts.prefetch(embeddings=True, layers=[2]), [5, 7, 12]),
        (lambda acts: list(acts.rows.stream()), [5, 6, 7, 12]),
        (lambda acts: list(acts.unread().rows.stream()), [5, 6, 7, 12]),
    ],
)
def test_all_files_damaged_in_what_is_read_are_named(dump, n_jobs, read, expected):
    damage(dump / name(5), "hidden_states")
    damage(dump / name(6), "activations")
    damage(dump / name(7), "embeddings")
    for member in ("hidden_states", "activations"):
        damage(dump / name(12), member)
    acts = load_activations(dump, n_jobs=n_jobs)
    with pytest.raises(FaultyFilesError) as error:
        read(acts)
    assert list(error.value.faults) == names(*expected)
    assert len(str(error.value).splitlines()) == (1 if len(expected) == 1 else 1 + len(expected))


def test_all_files_without_a_label_are_named(dump):
    rewrite(dump / name(2), concept_strength_label=4)
    rewrite(dump / name(5), omit=["concept_strength_label"])
    acts = load_activations(dump)
    with pytest.raises(FaultyFilesError) as error:
        acts.labels  # noqa: B018
    _, two, five = str(error.value).splitlines()
    assert two.startswith(f"{dump / name(2)}: member 'concept_strength_label' is 4; expected")
    assert five.startswith(f"{dump / name(5)}: member 'concept_strength_label' is missing; exp")


def test_all_files_with_values_that_are_not_finite_are_named_with_their_counts(dump):
    spoil(dump / name(2), "hidden_states", (1, slice(None), slice(0, 3)))
    spoil(dump / name(4), "hidden_states", (1, 2, 5), np.inf)
    for pooling in ("final", "none"):
        acts = load_activations(dump, pooling=pooling)
        with pytest.raises(FaultyFilesError) as error:
            acts.layer(1)
        head, two, four = str(error.value).splitlines()
        assert head.startswith(f"{dump}: 2 of {N} files are at fault")
        assert two.startswith(f"{dump / name(2)}: member 'hidden_states' layer 1 has 3 NaN or")
        assert four.startswith(f"{dump / name(4)}: member 'hidden_states' layer 1 has 1 NaN or")
        assert acts.layer(0).shape == acts.layer(2).shape


def test_generating_names_the_faulty_files_of_all_blocks_and_layers(dump, monkeypatch):
    monkeypatch.setattr(sklprep.formats.source, "_BLOCK_ROWS", 4)
    monkeypatch.setattr(sklprep.datasets.generation, "BLOCK_ROWS", 4)
    spoil(dump / name(1), "hidden_states", (0, 2, 0))
    spoil(dump / name(2), "hidden_states", (2, 2, 0))
    spoil(dump / name(9), "hidden_states", (1, 2, 0))
    spoil(dump / name(10), "activations", (1, 2, 3))
    spoil(dump / name(11), "activations", (1, 2, 4))
    spoil(dump / name(15), "hidden_states", (2, 2, 0))
    acts = load_activations(dump)
    for normalize in ("standardize", "none"):
        strategy = make_strategy("hidden-to-concept", layers="0-2", normalize=normalize)
        with pytest.raises(FaultyFilesError) as error:
            generate_dataset(acts, *strategy)
        assert list(error.value.faults) == names(1, 2, 9, 15)
    strategy = make_strategy("hidden-to-feature", target_layer=1, target_feature=3)
    with pytest.raises(FaultyFilesError) as error:
        generate_dataset(acts, *strategy)
    assert list(error.value.faults) == names(9, 10)
    train = np.delete(np.arange(N), [1, 2, 15])
    with pytest.raises(FaultyFilesError) as error:
        generate_dataset(acts, *make_strategy("hidden-to-concept", layers="0,2"), fit_rows=train)
    assert list(error.value.faults) == names(1, 2, 15)


def test_rows_of_arrays_have_no_files_to_be_named():
    states = np.ones((3, 2, 2), np.float32)
    states[1, 1] = np.nan
    acts = ActivationSet.from_arrays(hidden_states=states)
    with pytest.raises(DataError) as error:
        acts.layer(1)
    assert not isinstance(error.value, FileFormatError)
    assert str(error.value).startswith("Row 1 of the arrays: member 'hidden_states' layer 1 has 2")
    assert acts.left_out == {}
    with pytest.raises(UsageError, match="are not from files"):
        acts.without({"x": FileFormatError("")})


def test_what_the_system_runs_out_of_is_no_fault_of_a_file(dump, monkeypatch):
    reader = sklprep.formats.sentence_file.NpzReader

    def fail(path):
        if path.name == name(4):
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), str(path))
        return reader(path)

    monkeypatch.setattr(sklprep.formats.sentence_file, "NpzReader", fail)
    with pytest.raises(OSError, match="Too many open files"):
        load_activations(dump, skip_bad=True)


def test_an_error_travels_through_pickle_with_its_faults(dump):
    for number in (1, 2):
        damage(dump / name(number), "embeddings")
    with pytest.raises(FaultyFilesError) as error:
        load_activations(dump).embeddings  # noqa: B018
    copy = pickle.loads(pickle.dumps(error.value))
    assert str(copy) == str(error.value)
    assert [(key, fault.member) for key, fault in copy.faults.items()] == [
        (name(1), "embeddings"),
        (name(2), "embeddings"),
    ]


# --- load_activations(skip_bad=...) -------------------------------------------------------------


@pytest.mark.parametrize("n_jobs", [1, 2])
@pytest.mark.parametrize("pooling", ["final", "mean", "none"])
def test_without_the_faulty_files_there_are_the_rows_of_the_others(
    faulty, without, pooling, n_jobs
):
    bad = FAULTS["anything"] if pooling == "final" else [*FAULTS["anything"], 10]
    expected = load_activations(without(faulty, sorted(bad)), pooling=pooling)
    with pytest.warns(SklprepWarning, match=f"Leaving out {len(bad)} of the {N} files"):
        acts = load_activations(faulty, pooling=pooling, n_jobs=n_jobs, skip_bad=True)
    assert list(acts.left_out) == names(*sorted(bad))
    assert_same_rows(expected, acts)
    assert_same_rows(expected[::2], acts[::2])
    assert_same_rows(expected, acts.unread())


def test_a_warning_says_which_files_are_left_out_and_why(faulty):
    with pytest.warns(SklprepWarning) as caught:
        acts = load_activations(faulty, skip_bad=True)
    (warning,) = caught
    _, *lines = str(warning.message).splitlines()
    assert lines == [str(fault) for fault in acts.left_out.values()]
    for number, line in zip(FAULTS["anything"], lines, strict=True):
        assert line.startswith(f"{faulty / name(number)}: ")


def test_a_sound_folder_is_not_changed_by_skip_bad(dump):
    expected = load_activations(dump)
    acts = load_activations(dump, skip_bad=True)
    assert acts.left_out == {}
    assert_same_rows(expected, acts)
    strategy = make_strategy("hidden-to-concept", layers=1)
    one, other = (generate_dataset(each, *strategy) for each in (expected, acts))
    assert one.meta["meta_provenance"] == other.meta["meta_provenance"]


@pytest.mark.parametrize(
    ("used", "bad"),
    [
        ({}, EVERYWHERE),
        ({"labels": True}, [*EVERYWHERE, 11]),
        ({"embeddings": True}, [*EVERYWHERE, 7]),
        ({"layers": [0]}, [*EVERYWHERE, 5]),
        ({"layers": [0, 1], "labels": True}, [*EVERYWHERE, 5, 8, 11]),
        ({"configs": [0]}, [*EVERYWHERE, 6]),
        ({"configs": [2], "embeddings": True}, [*EVERYWHERE, 6, 7, 9]),
    ],
)
def test_a_mapping_says_where_faults_count(faulty, used, bad):
    with pytest.warns(SklprepWarning):
        acts = load_activations(faulty, skip_bad=used)
    assert list(acts.left_out) == names(*bad)
    assert acts.sentence_indices.tolist() == [n for n in range(N) if n not in bad]
    shutil.rmtree(faulty)  # what is used was read
    for layer in used.get("layers", ()):
        assert acts.layer(layer).shape == (N - len(bad), 7)
    for config in used.get("configs", ()):
        assert acts.rows.config(config).shape == (N - len(bad), 40)
    if used.get("embeddings"):
        assert acts.embeddings.shape == (N - len(bad), 5)
    if used.get("labels"):
        assert len(acts.labels) == N - len(bad)


def test_folders_without_labels_are_not_faulty_for_that(tmp_path):
    write_folder(tmp_path, 3, omit=["concept_strength_label"])
    assert load_activations(tmp_path, skip_bad=True).left_out == {}


def test_labels_and_groups_of_a_csv_stay_with_their_rows(dump, tmp_path):
    csv = tmp_path / "labels.csv"
    lines = [f"{i},{i * 10},{i // 2}" for i in reversed(range(N))]
    csv.write_text("\n".join(["sentence_index,label,group", *lines]))
    rewrite(dump / name(2), concept_strength_label=9)
    damage(dump / name(4), "embeddings")
    damage(dump / name(5), "embeddings")
    with pytest.warns(SklprepWarning, match="Leaving out 2 of the 16"):
        acts = load_activations(dump, labels=csv, groups=csv, skip_bad=True)
    rows = [n for n in range(N) if n not in (4, 5)]
    assert acts.labels.tolist() == [10 * n for n in rows]
    assert len(np.unique(acts.groups)) == 7
    for one, other in zip(acts.groups[::2], acts.groups[1::2], strict=True):
        assert one == other


def test_what_was_read_stays_read_when_files_are_left_out(dump, tmp_path):
    acts = load_activations(dump).prefetch(embeddings=True, layers=[1], configs=[2])
    shutil.rmtree(dump)
    rest = acts.without(dict.fromkeys(names(3, 4), FileFormatError("bad")))
    rows = np.delete(np.arange(N), [3, 4])
    np.testing.assert_array_equal(acts.layer(1)[rows], rest.layer(1))
    np.testing.assert_array_equal(acts.embeddings[rows], rest.embeddings)
    np.testing.assert_array_equal(
        acts.rows.config(2).toarray()[rows], rest.rows.config(2).toarray()
    )
    assert len(acts) == N
    assert acts.left_out == {}


def test_a_view_goes_without_files_like_the_whole(dump):
    acts = load_activations(dump)
    view = acts[[9, 3, 4, 9, 15]].without(dict.fromkeys(names(0, 3), FileFormatError("bad")))
    assert view.sentence_indices.tolist() == [9, 4, 9, 15]
    np.testing.assert_array_equal(acts[[9, 4, 9, 15]].layer(2), view.layer(2))


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_other_processes_read_the_same_rows(faulty, backend):
    with pytest.warns(SklprepWarning):
        acts = load_activations(faulty, skip_bad={"layers": [0], "labels": True}).unread()
    model = make_pipeline(LayerSelector(0), ActivationNormalizer(), Ridge())
    y = acts.labels.astype(float)
    expected = cross_val_score(model, acts, y, cv=3)
    with parallel_config(backend=backend, n_jobs=2):
        np.testing.assert_array_equal(expected, cross_val_score(model, acts, y, cv=3))
        (rows,) = Parallel()(delayed(len)(one) for one in [acts])
    assert rows == N - len(FAULTS["h0"])


# --- generate -----------------------------------------------------------------------------------


@pytest.fixture
def run(run_command):
    """Run a command; returns exit code, stdout and stderr without warnings of small folders."""

    def run(*arguments):
        code, out, err = run_command(*arguments)
        others = ("Only ", "is active in", "gaps in the numbering")
        return code, out, [x for x in err.splitlines() if not any(word in x for word in others)]

    return run


JOBS = {
    "embedding-to-concept": ["--strategy", "embedding-to-concept"],
    "h0": ["--strategy", "hidden-to-concept", "--layer", 0],
    "h1": ["--strategy", "hidden-to-concept", "--layer", 1],
    "f30": [
        *("--strategy", "embedding-to-feature"),
        *("--target-layer", 2, "--target-feature", 30),
    ],
    "f29": [
        *("--strategy", "embedding-to-feature"),
        *("--target-layer", 2, "--target-feature", 29),
    ],
}


def contents(path):
    with np.load(path) as file:
        entries = {key: file[key] for key in file.files}
    record = json.loads(str(entries.pop("meta_provenance")))
    left_out = record.pop("left_out", None)
    return entries, record, left_out


def assert_same_dataset(expected, actual):
    """All but the names of files that were left out."""
    (one, one_record, _), (other, other_record, _) = contents(expected), contents(actual)
    assert one_record == other_record
    assert one.keys() == other.keys()
    for key, values in one.items():
        assert values.tobytes() == other[key].tobytes(), key


@pytest.mark.parametrize("spool", [False, True], ids=["memory", "temporary pack"])
@pytest.mark.parametrize("job", JOBS)
def test_generate_leaves_out_the_files_that_are_faulty_in_what_it_uses(
    run, faulty, without, tmp_path, monkeypatch, job, spool
):
    if spool:
        monkeypatch.setattr(sklprep.datasets.batch, "SPOOL_BYTES", 0)
    sound = without(faulty, FAULTS[job])
    expected, actual = tmp_path / "e" / "x.npz", tmp_path / "a" / "x.npz"
    assert run("generate", *JOBS[job], "--input", sound, "--output", expected)[0] == 0
    command = ("generate", *JOBS[job], "--input", faulty, "--output", actual, "--skip-bad")
    code, _, err = run(*command)
    assert code == 0
    head, *lines = err[: 1 + len(FAULTS[job])]
    assert head == f"Warning: Leaving out {len(FAULTS[job])} of the {N} files of {faulty}:"
    for number, line in zip(FAULTS[job], lines, strict=True):
        assert line.startswith(f"Warning: {faulty / name(number)}: ")
    assert_same_dataset(expected, actual)
    assert contents(expected)[2] is None
    assert contents(actual)[2] == names(*FAULTS[job])
    assert os.listdir(actual.parent) == ["x.npz"]
    before = actual.read_bytes()
    assert "Unchanged" in run(*command)[1]
    assert run(*command, "--force", "--jobs", 1)[0] == 0
    assert actual.read_bytes() == before


@pytest.mark.parametrize("spool", [False, True], ids=["memory", "temporary pack"])
@pytest.mark.parametrize("job", JOBS)
def test_generate_names_in_one_run_all_files_that_are_faulty_in_what_it_uses(
    run, faulty, tmp_path, monkeypatch, job, spool
):
    if spool:
        monkeypatch.setattr(sklprep.datasets.batch, "SPOOL_BYTES", 0)
    code, out, err = run(
        "generate", *JOBS[job], "--input", faulty, "--output", tmp_path / "out" / "x.npz"
    )
    assert (code, out) == (1, "")
    head, *lines = err
    assert head.startswith(f"Error: {faulty}: {len(FAULTS[job])} of {N} files are at fault; exp")
    for number, line in zip(FAULTS[job], lines, strict=True):
        assert line.startswith(f"Error: {faulty / name(number)}: ")
    assert not (tmp_path / "out" / "x.npz").exists()


def test_the_dataset_of_a_sound_folder_has_the_same_bytes_with_skip_bad(run, dump, tmp_path):
    for flags in ([], ["--skip-bad"]):
        path = tmp_path / f"{len(flags)}.npz"
        assert run("generate", *JOBS["h1"], "--input", dump, "--output", path, *flags)[0] == 0
    assert (tmp_path / "0.npz").read_bytes() == (tmp_path / "1.npz").read_bytes()


def batch(source, out):
    return (
        *("generate", "--input", source, "--output", out / "{name}_{layers}_{feature}.npz"),
        *("--strategy", "embedding-to-concept", "--strategy", "hidden-to-concept"),
        *("--strategy", "embedding-to-feature", "--layer", 0, "--layer", 1),
        *("--target-layer", 2, "--target-feature", 29, "--target-feature", 30),
    )


FILE_OF = {
    "embedding-to-concept": "emb_to_concept_embeddings_.npz",
    "h0": "h0_to_concept_0_.npz",
    "h1": "h1_to_concept_1_.npz",
    "f30": "emb_to_f30_embeddings_30.npz",
    "f29": "emb_to_f29_embeddings_29.npz",
}


@pytest.mark.parametrize("spool", [False, True], ids=["memory", "temporary pack"])
def test_each_of_many_datasets_goes_without_no_more_than_its_own_faulty_files(
    run, faulty, tmp_path, monkeypatch, spool
):
    if spool:
        monkeypatch.setattr(sklprep.datasets.batch, "SPOOL_BYTES", 0)
    assert run(*batch(faulty, tmp_path / "out"), "--skip-bad")[0] == 0
    for job, file in FILE_OF.items():
        assert contents(tmp_path / "out" / file)[2] == names(*FAULTS[job])
        alone = tmp_path / "alone" / file
        run("generate", *JOBS[job], "--input", faulty, "--output", alone, "--skip-bad")
        assert alone.read_bytes() == (tmp_path / "out" / file).read_bytes()
    assert sorted(os.listdir(tmp_path / "out")) == sorted(FILE_OF.values())
    _, out, _ = run(*batch(faulty, tmp_path / "out"), "--skip-bad")
    assert "0 written, 5 unchanged" in out


def test_damage_stops_only_the_datasets_that_use_the_member(run, dump, tmp_path):
    damage(dump / name(5), "hidden_states")
    damage(dump / name(6), "activations")
    code, out, err = run(*batch(dump, tmp_path / "out"))
    assert code == 1
    assert os.listdir(tmp_path / "out") == [FILE_OF["embedding-to-concept"]]
    assert "1 written, 0 unchanged" in out
    wrong = {job: name(5) if job[0] == "h" else name(6) for job in ("h0", "h1", "f29", "f30")}
    assert len(err) == 4
    for job, file in wrong.items():
        (line,) = (one for one in err if FILE_OF[job] in one)
        start = f"Error: {tmp_path / 'out' / FILE_OF[job]} was not written: {dump / file}: member"
        assert line.startswith(start)


def test_many_datasets_list_a_faulty_file_once(run, faulty, tmp_path):
    code, _, err = run(*batch(faulty, tmp_path / "out"))
    assert code == 1
    heads = [line for line in err if "was not written" in line]
    assert sorted(line.split()[1] for line in heads) == sorted(
        str(tmp_path / "out" / file) for file in FILE_OF.values()
    )
    lines = [line for line in err if line not in heads]
    numbers = {number for job in JOBS for number in FAULTS[job]}
    assert sorted(line.split(": ")[1] for line in lines) == [
        str(faulty / file) for file in names(*sorted(numbers))
    ]


def test_a_folder_of_nothing_but_faulty_files_fails_with_skip_bad_too(run, dump, tmp_path):
    for number in range(N):
        damage(dump / name(number), "embeddings")
    output = tmp_path / "x.npz"
    command = ("generate", "--input", dump, "--output", output, "--skip-bad")
    code, _, err = run(*command, *JOBS["embedding-to-concept"])
    assert code == 1
    assert err[0] == (
        f"Error: {dump}: {N} of {N} files are at fault; expected none. Correct or remove them:"
    )
    assert err[-1] == f"Error: and {N - 10} more."
    assert len(err) == 12
    assert run(*command, *JOBS["h0"])[0] == 0


def test_a_dry_run_counts_the_rows_that_are_left(run, faulty, tmp_path):
    command = ("generate", *JOBS["h0"], "--input", faulty, "--output", tmp_path / "x.npz")
    code, out, err = run(*command, "--dry-run", "--skip-bad")
    assert code == 0
    assert "X (13, 7)" in out  # damage to activations is not seen in a dry run
    assert err[0] == f"Warning: Leaving out 2 of the {N} files of {faulty}:"
    code, _, err = run(*command, "--dry-run")
    assert code == 1
    assert err[0].startswith(f"Error: {faulty}: 2 of {N} files are at fault")


def test_the_split_is_drawn_among_the_rows_that_are_left(run, faulty, without, tmp_path):
    split = ("--test-size", 0.3, "--random-state", 1)
    sound = without(faulty, FAULTS["h1"])
    run("generate", *JOBS["h1"], *split, "--input", sound, "--output", tmp_path / "e" / "x.npz")
    actual = tmp_path / "a" / "x.npz"
    code, _, _ = run(
        "generate", *JOBS["h1"], *split, "--input", faulty, "--output", actual, "--skip-bad"
    )
    assert code == 0
    assert_same_dataset(tmp_path / "e" / "x.npz", actual)


def test_the_python_interface_records_what_was_left_out(faulty):
    with pytest.warns(SklprepWarning):
        acts = load_activations(faulty, skip_bad={"layers": [1], "labels": True})
    dataset = generate_dataset(acts, *make_strategy("hidden-to-concept", layers=1))
    record = json.loads(dataset.meta["meta_provenance"])
    assert record["left_out"] == names(*FAULTS["h1"])
    assert str(faulty) not in dataset.meta["meta_provenance"]


def test_a_job_that_runs_out_of_memory_does_not_stop_the_others(run, dump, tmp_path, monkeypatch):
    fit = sklprep.datasets.generation.fit_dataset

    def hungry(rows, recipe, **options):
        if recipe.selector.layers_.tolist() == [0]:
            raise MemoryError
        return fit(rows, recipe, **options)

    monkeypatch.setattr(sklprep.datasets.generation, "fit_dataset", hungry)
    code, out, err = run(*batch(dump, tmp_path / "out"))
    assert code == 1
    assert "4 written, 0 unchanged" in out
    (line,) = err
    assert line == (
        f"Error: {tmp_path / 'out' / FILE_OF['h0']} was not written: Out of memory; use a pack"
        " (sklprep pack), or fewer layers."
    )


# --- pack ---------------------------------------------------------------------------------------

UNPACKABLE = [1, 3, 5, 6, 7, 11]  # values that are not finite count where they are used


def test_pack_names_all_faulty_files_and_leaves_no_pack(run, dump, tmp_path):
    damage(dump / name(5), "hidden_states")
    damage(dump / name(6), "activations")
    code, _, err = run("pack", dump, tmp_path / "pack")
    assert code == 1
    head, five, six = err
    assert head.startswith(f"Error: {dump}: 2 of {N} files are at fault")
    assert five.startswith(f"Error: {dump / name(5)}: member 'hidden_states'")
    assert six.startswith(f"Error: {dump / name(6)}: member 'activations'")
    assert not (tmp_path / "pack").exists()


def test_pack_leaves_out_faulty_files_and_says_so_for_ever(run, faulty, without, tmp_path):
    code, out, err = run("pack", faulty, tmp_path / "pack", "--skip-bad", "--verify")
    assert code == 0
    assert f"{N - len(UNPACKABLE)} sentences" in out
    assert err[0] == f"Warning: Leaving out {len(UNPACKABLE)} of the {N} files of {faulty}:"
    acts = load_activations(tmp_path / "pack")
    assert list(acts.left_out) == names(*UNPACKABLE)
    expected = load_activations(without(faulty, UNPACKABLE))
    assert acts.fingerprint == expected.fingerprint
    np.testing.assert_array_equal(acts.layer(0), expected.layer(0))
    assert acts.labels.tolist() == expected.labels.tolist()
    assert os.listdir(tmp_path / "pack").count("manifest.json") == 1


@pytest.mark.parametrize("job", ["h0", "h1", "f30"])
def test_a_dataset_from_such_a_pack_has_the_bytes_of_one_from_the_files(
    run, faulty, without, tmp_path, job
):
    folder = without(faulty, [n for n in UNPACKABLE if n not in FAULTS[job]], "some")
    assert run("pack", folder, tmp_path / "pack", "--skip-bad")[0] == 0
    for source in (folder, tmp_path / "pack"):
        output = tmp_path / source.name / "x.npz"
        command = ("generate", *JOBS[job], "--input", source, "--output", output, "--skip-bad")
        assert run(*command)[0] == 0
    assert (tmp_path / "dump" / "x.npz").read_bytes() == (tmp_path / "pack/x.npz").read_bytes()


def test_rows_of_a_pack_that_are_not_finite_are_left_out(run, dump, tmp_path):
    spoil(dump / name(8), "hidden_states", (1, 2, 0))
    spoil(dump / name(9), "hidden_states", (1, 2, 0))
    for pooling in ("final", "none"):
        pack = tmp_path / pooling
        run("pack", dump, pack, "--pooling", pooling)
        command = ("generate", *JOBS["h1"], "--input", pack, "--pooling", pooling)
        code, _, err = run(*command, "--output", tmp_path / "x.npz")
        assert code == 1
        assert err[0].startswith(f"Error: {pack}: 2 of {N} files are at fault")
        assert "from sentence_000008.npz): member 'hidden_states' layer 1 has 1 NaN" in err[1]
        assert run(*command, "--output", tmp_path / f"{pooling}.npz", "--skip-bad")[0] == 0
        output = tmp_path / f"raw_{pooling}" / "x.npz"
        command = ("generate", *JOBS["h1"], "--input", dump, "--pooling", pooling, "--skip-bad")
        assert run(*command, "--output", output)[0] == 0
        assert output.read_bytes() == (tmp_path / f"{pooling}.npz").read_bytes()
        with pytest.warns(SklprepWarning):
            acts = load_activations(pack, pooling=pooling, skip_bad=True)
        assert list(acts.left_out) == names(8, 9)


def test_a_pack_with_files_left_out_grows(run, dump, tmp_path):
    pack = tmp_path / "pack"
    damage(dump / name(4), "hidden_states")
    for number in range(12, N):
        (dump / name(number)).rename(tmp_path / name(number))
    assert run("pack", dump, pack, "--skip-bad")[0] == 0
    for number in range(12, N):
        (tmp_path / name(number)).rename(dump / name(number))
    damage(dump / name(14), "activations")
    code, _, err = run("pack", dump, pack)
    assert code == 1
    assert len(err) == 1
    assert err[0].startswith(f"Error: {dump / name(4)}: member 'hidden_states'")
    assert Pack(pack, pooling=None).n_rows == 11
    code, _, err = run("pack", dump, pack, "--skip-bad", "--verify")
    assert code == 0
    assert err[0] == f"Warning: Leaving out 2 of the {N} files of {dump}:"
    assert list(Pack(pack, pooling=None).left_out) == names(4, 14)
    run("pack", dump, tmp_path / "fresh", "--skip-bad")
    one, other = (sorted(place.rglob("*.*")) for place in (pack, tmp_path / "fresh"))
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in other]
    write_sentence(dump / name(4), index=4, n_tokens=3, is_final_token=[False, False, True])
    code, _, err = run("pack", dump, pack, "--skip-bad")
    assert code == 2
    assert "1 sorted before packed ones (first: sentence_000004.npz)" in err[0]


def test_an_interrupted_pack_with_files_left_out_goes_on(dump, tmp_path, monkeypatch):
    damage(dump / name(4), "hidden_states")
    commit, done = sklprep.formats.pack_writer._commit, []

    def interrupt(work, manifest, *arguments, **options):
        done.append(manifest.n_sentences)
        written = commit(work, manifest, *arguments, **options)
        if done[-1] == 10:
            raise KeyboardInterrupt
        return written

    monkeypatch.setattr(sklprep.formats.pack_writer, "_commit", interrupt)
    with pytest.raises(KeyboardInterrupt):
        build_pack(SentenceFolder(dump), tmp_path / "pack", skip_bad=True, batch_bytes=1)
    assert not is_pack(tmp_path / "pack")
    done.append(None)
    with pytest.warns(SklprepWarning, match="Leaving out a file"):
        build_pack(SentenceFolder(dump), tmp_path / "pack", skip_bad=True, batch_bytes=1)
    assert done[done.index(None) + 1 :] == list(range(11, N))
    assert list(Pack(tmp_path / "pack", pooling=None).left_out) == [name(4)]


def test_a_pack_of_a_folder_without_faults_has_no_word_on_them(run, dump, tmp_path):
    run("pack", dump, tmp_path / "one")
    run("pack", dump, tmp_path / "other", "--skip-bad")
    one, other = (sorted((tmp_path / each).rglob("*.*")) for each in ("one", "other"))
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in other]
    assert "left_out" not in (tmp_path / "one" / "manifest.json").read_text()


# --- sweep and inspect --------------------------------------------------------------------------


def test_sweep_leaves_out_what_is_faulty_in_its_layers(run, faulty, without, tmp_path):
    write_folder(faulty, 40, first=N, n_tokens=3, is_final_token=[False, False, True])
    sound = without(faulty, FAULTS["h1"])
    arguments = ("--layers", 0, "--layers", 1, "--cv", 2, "--jobs", 1)
    code, _, err = run("sweep", faulty, *arguments)
    assert code == 1
    assert err[0].startswith(f"Error: {faulty}: 2 of {N + 40} files are at fault")
    code, expected, _ = run("sweep", sound, *arguments)
    assert code == 0
    code, actual, err = run("sweep", faulty, *arguments, "--skip-bad")
    assert code == 0
    assert actual == expected
    warned = [line.split(": ")[1] for line in err if ".npz: " in line]
    assert sorted(warned) == [str(faulty / file) for file in names(*FAULTS["h1"])]


def test_inspect_leaves_out_what_cannot_be_read(run, faulty):
    code, _, err = run("inspect", faulty)
    assert code == 1
    assert err[0].startswith(f"Error: {faulty}: 2 of {N} files are at fault")
    code, out, err = run("inspect", faulty, "--skip-bad", "--json")
    assert code == 0
    bad = [1, 3, 5, 6, 7]
    assert [line.split(": ")[1] for line in err[1:]] == [str(faulty / n) for n in names(*bad)]
    facts = json.loads(out)
    assert facts["left_out"] == names(*bad)
    assert facts["n_rows"] == N - len(bad)
    assert facts["values"]["hidden_states"][1]["n_rows_not_finite"] == 1
    code, out, _ = run("inspect", faulty, "--skip-bad", "--quick")
    assert code == 0
    assert "left out      2 files, sentence_000001.npz first" in out


def test_a_notebook_card_says_what_was_left_out(faulty):
    with pytest.warns(SklprepWarning):
        acts = load_activations(faulty, skip_bad=True)
    assert "8 files (first: sentence_000001.npz)" in acts._repr_html_()


def test_skip_bad_does_not_go_with_a_dataset(run, dump, tmp_path):
    run("generate", *JOBS["h0"], "--input", dump, "--output", tmp_path / "x.npz")
    code, _, err = run("inspect", tmp_path / "x.npz", "--skip-bad")
    assert code == 2
    assert err[0].startswith("Error: --skip-bad does not apply to a dataset")
    assert load_dataset(tmp_path / "x.npz").meta["meta_n_samples"] == N
    assert Path(tmp_path / "x.npz").exists()
