"""scikit-learn's own estimator checks, those outside its suite among them."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from sklearn.utils import estimator_checks

from sklprep import (
    ActivationNormalizer,
    ConceptTargetExtractor,
    FeatureTargetExtractor,
    LayerSelector,
    SAEFeatureSelector,
)

NAMED_TRANSFORMERS = [
    LayerSelector(),
    LayerSelector([0]),
    ActivationNormalizer("standardize"),
    ActivationNormalizer("minmax"),
    ActivationNormalizer("maxabs"),
    ActivationNormalizer("none"),
]
SAE_SELECTORS = [SAEFeatureSelector(), SAEFeatureSelector([0], features=[0])]

OUTSIDE_THE_SUITE = [
    estimator_checks.check_transformer_get_feature_names_out,
    estimator_checks.check_transformer_get_feature_names_out_pandas,
    estimator_checks.check_set_output_transform,
    estimator_checks.check_set_output_transform_pandas,
    estimator_checks.check_global_output_transform_pandas,
    estimator_checks.check_set_output_transform_polars,
    estimator_checks.check_global_set_output_transform_polars,
]

ARRAY_API_SCRIPT = """
import warnings
warnings.simplefilter("error")
from sklearn.utils.estimator_checks import check_estimator
from sklprep import ActivationNormalizer, FeatureTargetExtractor, LayerSelector, SAEFeatureSelector
for estimator in (
    LayerSelector(), SAEFeatureSelector(), ActivationNormalizer(), FeatureTargetExtractor(0, 0)
):
    results = check_estimator(estimator, on_skip=None, on_fail=None)
    print(*{f"{r['check_name']} {r['status']}" for r in results}, sep="\\n")
"""


@estimator_checks.parametrize_with_checks(
    [*NAMED_TRANSFORMERS, *SAE_SELECTORS, FeatureTargetExtractor(0, 0)]
)
def test_estimator_passes_every_scikit_learn_check(estimator, check):
    check(estimator)


# The checks fit on a data frame and transform an array, and the other way round.
@pytest.mark.filterwarnings("ignore:X does not have valid feature names:UserWarning")
@pytest.mark.filterwarnings("ignore:X has feature names, but:UserWarning")
@pytest.mark.parametrize("check", OUTSIDE_THE_SUITE, ids=lambda check: check.__name__)
@pytest.mark.parametrize("transformer", NAMED_TRANSFORMERS, ids=repr)
def test_transformer_passes_the_checks_of_names_and_output(transformer, check):
    check(type(transformer).__name__, transformer)


# scikit-learn refuses data frames for sparse output, so only the check of names applies.
@pytest.mark.parametrize("transformer", SAE_SELECTORS, ids=repr)
def test_selector_of_sparse_features_passes_the_check_of_names(transformer):
    check = estimator_checks.check_transformer_get_feature_names_out
    check(type(transformer).__name__, transformer)


@pytest.mark.parametrize("target", [FeatureTargetExtractor(0, 0), ConceptTargetExtractor()])
def test_target_extractors_have_neither_column_names_nor_set_output(target):
    assert not hasattr(target, "get_feature_names_out")
    assert not hasattr(target, "set_output")


def test_estimators_pass_every_check_with_the_array_api_switched_on():
    result = subprocess.run(
        [sys.executable, "-c", ARRAY_API_SCRIPT],
        env={**os.environ, "SCIPY_ARRAY_API": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
    statuses = result.stdout.splitlines()
    assert "check_array_api_input passed" in statuses
    assert [line for line in statuses if not line.endswith(" passed")] == []
