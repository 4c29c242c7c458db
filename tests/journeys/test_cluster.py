"""A real `dask.distributed` cluster of two processes gives what one process gives."""

import os
import pickle
import warnings
from dataclasses import replace

import joblib
import numpy as np
import pytest
from sentence_files import write_folder
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

import sklprep
from sklprep.activations.activation_set import ActivationSet
from sklprep.activations.loading import load_activations
from sklprep.exceptions import FileFormatError
from sklprep.formats.members import Members
from sklprep.formats.pack_reader import Pack
from sklprep.formats.pack_writer import build_pack
from sklprep.formats.rows import Rows
from sklprep.formats.sentence_file import read_rows
from sklprep.formats.sentence_folder import SentenceFolder
from sklprep.sweeps.inputs import InputSpec
from sklprep.sweeps.workers import RemoteRows

dask = pytest.importorskip("dask", reason="no cluster to test on: pip install sklprep[dask]")
distributed = pytest.importorskip(
    "distributed", reason="no cluster to test on: pip install sklprep[dask]"
)

N = 24


@pytest.fixture(scope="module")
def dumps(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cluster") / "dumps"
    write_folder(folder, N, layers=(0, 2, 2), d_model=400, d_embed=300, n_features=500)
    return folder


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    patience = {
        "distributed.comm.timeouts.connect": "120s",
        "distributed.comm.timeouts.tcp": "120s",
    }
    with (
        warnings.catch_warnings(),
        dask.config.set(patience),
        distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=True,
            dashboard_address=None,
            local_directory=str(tmp_path_factory.mktemp("workers")),
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


@pytest.fixture
def on_cluster(client):
    """Send all that joblib does to the cluster."""
    with joblib.parallel_config(backend="dask", wait_for_workers_timeout=120):
        yield client


def read_all(folder, **options):
    """Every array of a folder."""
    acts = load_activations(folder, **options)
    return {
        "embeddings": acts.embeddings,
        "hidden_states": acts.hidden_states,
        "labels": acts.labels,
        **{
            f"{part} of config {number}": getattr(config, part)
            for number, config in enumerate(acts.activations)
            for part in ("data", "indices", "indptr")
        },
    }


def content_of(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_joblib_works_in_the_processes_of_the_cluster(on_cluster):
    workers = set(on_cluster.run(os.getpid).values())
    tasks = (joblib.delayed(os.getpid)() for _ in range(20))
    used = set(joblib.Parallel(prefer="threads")(tasks))
    assert len(workers) == 2
    assert used <= workers


@pytest.mark.parametrize("pooling", ["final", "none"])
def test_reading_on_a_cluster_gives_the_local_arrays(dumps, request, pooling):
    local = read_all(dumps, pooling=pooling)
    request.getfixturevalue("on_cluster")
    there = read_all(dumps, pooling=pooling)
    assert local.keys() == there.keys()
    for name, values in local.items():
        np.testing.assert_array_equal(there[name], values, strict=True, err_msg=name)


@pytest.mark.parametrize("pooling", ["final", "mean"])
def test_a_pack_made_on_a_cluster_has_the_bytes_of_a_local_one(dumps, tmp_path, request, pooling):
    build_pack(SentenceFolder(dumps, pooling=pooling), tmp_path / "local")
    request.getfixturevalue("on_cluster")
    made = build_pack(SentenceFolder(dumps, pooling=pooling), tmp_path / "there")
    assert content_of(tmp_path / "there") == content_of(tmp_path / "local")
    assert made.verify() == []


def test_a_sweep_on_a_cluster_gives_the_local_scores(dumps, request):
    def sweep(n_jobs):
        return sklprep.layer_sweep(
            make_pipeline(sklprep.ActivationNormalizer(), LogisticRegression(max_iter=50)),
            load_activations(dumps),
            np.arange(N) % 2,
            layers=[0, 2],
            cv=2,
            inner_cv=None,
            n_jobs=n_jobs,
        )

    local = sweep(1)
    request.getfixturevalue("on_cluster")
    there = sweep(-1)
    np.testing.assert_array_equal(there.mean_scores, local.mean_scores)
    assert there.n_folds == local.n_folds == 2


def test_a_fault_in_a_file_comes_back_from_the_cluster_as_it_is(tmp_path, on_cluster):
    write_folder(tmp_path / "dumps", 3)
    (tmp_path / "dumps" / "sentence_000001.npz").write_bytes(b"no zip at all")
    with pytest.raises(FileFormatError, match=r"sentence_000001.npz"):
        load_activations(tmp_path / "dumps")


def test_parameters_of_the_estimator_are_checked_on_a_cluster_too(dumps, on_cluster):
    model = LogisticRegression(C=-1)
    with pytest.raises(ValueError, match="The 'C' parameter of LogisticRegression must be"):
        sklprep.layer_sweep(model, load_activations(dumps), np.arange(N) % 2, cv=2, inner_cv=2)


class TestWhatTravels:
    """Paths and rows, never arrays."""

    def test_a_folder_that_was_not_read_is_its_path_and_a_few_bytes_a_file(self, dumps):
        acts = load_activations(dumps)
        size = len(pickle.dumps(acts))
        assert size < 2_000 + 300 * N
        again = pickle.loads(pickle.dumps(acts))
        np.testing.assert_array_equal(again.layer(2), acts.layer(2))
        assert len(pickle.dumps(acts)) > size + 4 * N * 400  # now it is in memory and travels so

    def test_a_view_of_a_pack_is_its_manifest_and_its_rows_read_or_not(self, dumps, tmp_path):
        pack = build_pack(SentenceFolder(dumps), tmp_path / "pack")
        view = ActivationSet(Rows(pack))[::2]
        before = len(pickle.dumps(view))
        _ = view.hidden_states, view.embeddings, view.activations, view.labels, view.sentences
        assert len(pickle.dumps(view)) == before < 6_000
        assert pickle.loads(pickle.dumps(view)).labels.tolist() == view.labels.tolist()

    def test_the_size_of_a_pack_that_travels_does_not_depend_on_its_rows(self, dumps, tmp_path):
        """The manifest lists a digest for every 4 MiB; a worker has no use for them."""
        build_pack(SentenceFolder(dumps), tmp_path / "pack")
        pack = Pack(tmp_path / "pack", pooling=None)
        before = len(pickle.dumps(pack))
        long = {
            name: replace(entry, segments=("0" * 64,) * 10_000)
            for name, entry in pack.manifest.arrays.items()
        }
        pack.manifest = replace(pack.manifest, arrays=long)
        assert len(pickle.dumps(pack)) == before
        assert len(pack.manifest.arrays["embeddings"].segments) == 10_000

    def test_a_task_that_reads_a_file_is_a_path_and_what_is_known_of_the_file(self, dumps):
        folder = SentenceFolder(dumps)
        for info in folder.files:
            task = (read_rows, dumps / info.name, info, "final", Members(True, (0, 1), (0, 1, 2)))
            assert len(pickle.dumps(task)) < 1_000

    def test_the_rows_that_come_back_are_the_pooled_ones(self, dumps):
        info = SentenceFolder(dumps).files[3]
        members = Members(True, info.layers[:2], (0,))
        rows = read_rows(dumps / info.name, info, "final", members)
        n_active = len(rows.activations[0][2])
        assert len(pickle.dumps(rows)) < 4 * (300 + 2 * 400 + 3 * n_active) + 1_500

    def test_an_input_of_a_sweep_is_path_and_rows_even_after_reading(self, dumps):
        acts = load_activations(dumps)[::2]
        unread = len(pickle.dumps(acts))
        acts.prefetch(layers=[0, 2])
        both, wanted = InputSpec((0, 2)), Members(layers=(0, 2))
        sent = RemoteRows(acts.unread(), both, token="one", wanted=wanted)
        assert len(pickle.dumps(sent)) < unread + 500
        np.testing.assert_array_equal(
            pickle.loads(pickle.dumps(sent)).read(), np.hstack([acts.layer(0), acts.layer(2)])
        )


@pytest.mark.parametrize("kind", ["folder", "pack"])
def test_a_sweep_on_a_cluster_reads_there_and_not_here(dumps, tmp_path, kind, request):
    path = dumps if kind == "folder" else build_pack(SentenceFolder(dumps), tmp_path / "p").path
    y = np.arange(N) % 2
    options = {"layers": ["embeddings", 0, "0,2"], "cv": 2, "inner_cv": 2, "n_permutations": 3}
    local = sklprep.layer_sweep(None, load_activations(path), y, **options)
    request.getfixturevalue("on_cluster")
    acts = load_activations(path)
    unread = len(pickle.dumps(acts))
    there = sklprep.layer_sweep(None, acts, y, **options, n_jobs=-1)
    np.testing.assert_array_equal(there.scores, local.scores)
    np.testing.assert_array_equal(there.permutation_scores, local.permutation_scores)
    assert there.summary() == local.summary()
    assert len(pickle.dumps(acts)) == unread
