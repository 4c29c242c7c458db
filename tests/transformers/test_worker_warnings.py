"""The warning about torn groups reaches the process that a user looks at."""

import warnings

import numpy as np
import pytest
from joblib import Parallel, delayed, parallel_config
from sklearn.dummy import DummyClassifier
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    KFold,
    cross_val_predict,
    cross_val_score,
)
from sklearn.pipeline import make_pipeline

from sklprep import ActivationSet, LayerSelector
from sklprep.exceptions import SklprepWarning
from sklprep.transformers.worker_warnings import OnceWarnings

PIPE = make_pipeline(LayerSelector(0), DummyClassifier())
CV = KFold(3, shuffle=True, random_state=0)


@pytest.fixture
def tokens():
    """Rows of sentences; each test has its own, which nobody has warned of."""
    states = np.random.default_rng().normal(size=(60, 2, 3))
    return ActivationSet.from_arrays(
        hidden_states=states, labels=np.arange(60) % 2, groups=np.arange(60) // 5
    )


def score(acts, **options):
    return cross_val_score(PIPE, acts, acts.labels, n_jobs=2, **options)


@pytest.mark.parametrize("backend", ["loky", "threading", "multiprocessing"])
@pytest.mark.parametrize(
    "run",
    [
        lambda acts: score(acts, cv=CV),
        lambda acts: cross_val_predict(PIPE, acts, acts.labels, cv=CV, n_jobs=2),
        lambda acts: GridSearchCV(PIPE, {"layerselector__layers": [0, 1]}, cv=CV, n_jobs=2).fit(
            acts, acts.labels
        ),
    ],
)
def test_torn_groups_are_warned_of_once_where_the_work_was_started(tokens, backend, run):
    with parallel_config(backend), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run(tokens)

    torn = [str(warning.message) for warning in caught if warning.category is SklprepWarning]
    assert 1 == len(torn)
    assert "scored as test rows, they have siblings in training" in torn[0]


def test_whole_groups_are_not_warned_of(tokens):
    score(tokens, groups=tokens.groups, cv=GroupKFold(3))


def test_where_warnings_are_errors_the_work_fails(tokens):
    with pytest.raises(SklprepWarning, match="siblings in training"):
        score(tokens, cv=CV, error_score="raise")


def test_what_is_ignored_stays_ignored(tokens):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        score(tokens, cv=CV)

    assert [] == caught


def tell(warner, key):
    warner.warn(key, f"{key} happened", stacklevel=1)
    return warner.has_shown(key)


@pytest.mark.filterwarnings("ignore")
def test_worker_whose_parent_does_not_listen_warns_for_itself():
    deaf = OnceWarnings()
    with parallel_config("multiprocessing"):
        assert [True, True] == Parallel(2)(delayed(tell)(deaf, key) for key in ("one", "two"))
