"""From activations of language models to datasets, pipelines and cross-validation without leakage.

Importing this package is fast: each public name is imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from sklprep._version import __version__

_HOME = {
    "ActivationNormalizer": "transformers.normalizers",
    "ActivationSet": "activations.activation_set",
    "ConceptTargetExtractor": "transformers.targets",
    "FeatureSweep": "sweeps.feature_result",
    "FeatureTargetExtractor": "transformers.targets",
    "LayerSelector": "transformers.layer_selector",
    "LayerSweep": "sweeps.sweep_result",
    "LayerSweepDisplay": "sweeps.plotting",
    "Probe": "probes.probe",
    "ProbeDataset": "datasets.probe_dataset",
    "RowSpaceProjector": "transformers.row_space",
    "SAEFeatureSelector": "transformers.sae_selector",
    "STRATEGIES": "datasets.strategies",
    "TransferMatrix": "sweeps.transfer_result",
    "TransferMatrixDisplay": "sweeps.transfer_plotting",
    "feature_sweep": "sweeps.features",
    "direction_stability": "probes.fitting",
    "from_hidden_states": "activations.collectors",
    "audit_activations": "inspection.audit",
    "generate_dataset": "datasets.generation",
    "get_final_token_data": "datasets.guide",
    "layer_sweep": "sweeps.sweep",
    "load_activations": "activations.loading",
    "load_all_sentences": "datasets.guide",
    "load_dataset": "datasets.dataset_file",
    "load_probe": "probes.probe_file",
    "make_activations": "activations.synthetic",
    "make_strategy": "datasets.strategies",
    "normalize_features": "datasets.guide",
    "parse_layers_arg": "datasets.guide",
    "probe_directions": "transformers.directions",
    "recall_at_fpr": "sweeps.operating_point",
    "save_dataset": "datasets.guide",
    "transfer_matrix": "sweeps.transfer",
    "save_probe": "probes.probe_file",
}

__all__ = [
    "ActivationNormalizer",
    "ActivationSet",
    "ConceptTargetExtractor",
    "FeatureSweep",
    "FeatureTargetExtractor",
    "LayerSelector",
    "LayerSweep",
    "LayerSweepDisplay",
    "Probe",
    "ProbeDataset",
    "RowSpaceProjector",
    "SAEFeatureSelector",
    "STRATEGIES",
    "TransferMatrix",
    "TransferMatrixDisplay",
    "feature_sweep",
    "direction_stability",
    "from_hidden_states",
    "audit_activations",
    "generate_dataset",
    "get_final_token_data",
    "layer_sweep",
    "load_activations",
    "load_all_sentences",
    "load_dataset",
    "load_probe",
    "make_activations",
    "make_strategy",
    "normalize_features",
    "parse_layers_arg",
    "probe_directions",
    "recall_at_fpr",
    "save_dataset",
    "transfer_matrix",
    "save_probe",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})


if TYPE_CHECKING:
    from sklprep.activations.activation_set import ActivationSet
    from sklprep.activations.collectors import from_hidden_states
    from sklprep.activations.loading import load_activations
    from sklprep.activations.synthetic import make_activations
    from sklprep.datasets.dataset_file import load_dataset
    from sklprep.datasets.generation import generate_dataset
    from sklprep.datasets.guide import (
        get_final_token_data,
        load_all_sentences,
        normalize_features,
        parse_layers_arg,
        save_dataset,
    )
    from sklprep.datasets.probe_dataset import ProbeDataset
    from sklprep.datasets.strategies import STRATEGIES, make_strategy
    from sklprep.inspection.audit import audit_activations
    from sklprep.probes.fitting import direction_stability
    from sklprep.probes.probe import Probe
    from sklprep.probes.probe_file import load_probe, save_probe
    from sklprep.sweeps.feature_result import FeatureSweep
    from sklprep.sweeps.features import feature_sweep
    from sklprep.sweeps.operating_point import recall_at_fpr
    from sklprep.sweeps.plotting import LayerSweepDisplay
    from sklprep.sweeps.sweep import layer_sweep
    from sklprep.sweeps.sweep_result import LayerSweep
    from sklprep.sweeps.transfer import transfer_matrix
    from sklprep.sweeps.transfer_plotting import TransferMatrixDisplay
    from sklprep.sweeps.transfer_result import TransferMatrix
    from sklprep.transformers.directions import probe_directions
    from sklprep.transformers.layer_selector import LayerSelector
    from sklprep.transformers.normalizers import ActivationNormalizer
    from sklprep.transformers.row_space import RowSpaceProjector
    from sklprep.transformers.sae_selector import SAEFeatureSelector
    from sklprep.transformers.targets import ConceptTargetExtractor, FeatureTargetExtractor
