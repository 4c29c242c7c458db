"""The architecture: who imports whom, what is public, and what an import costs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import sklprep

PACKAGE = Path(sklprep.__file__).parent
ORDER = [
    "_version",
    "exceptions",
    "notebook",
    "files",
    "formats",
    "activations",
    "transformers",
    "datasets",
    "sweeps",
    "inspection",
    "strategies",
    "demo",
    "interrupts",
    "cli",
    "__main__",
]
PUBLIC = [
    "ActivationNormalizer",
    "ActivationSet",
    "ConceptTargetExtractor",
    "FeatureTargetExtractor",
    "LayerSelector",
    "LayerSweep",
    "LayerSweepDisplay",
    "ProbeDataset",
    "RowSpaceProjector",
    "SAEFeatureSelector",
    "STRATEGIES",
    "__version__",
    "from_hidden_states",
    "audit_activations",
    "generate_dataset",
    "get_final_token_data",
    "layer_sweep",
    "load_activations",
    "load_all_sentences",
    "load_dataset",
    "make_activations",
    "make_strategy",
    "normalize_features",
    "parse_layers_arg",
    "probe_directions",
    "save_dataset",
]
HEAVY = {"numpy", "scipy", "sklearn", "skops", "joblib", "tqdm", "matplotlib", "pandas", "zlib_ng"}


def imported_modules(module: str) -> set[str]:
    path = PACKAGE / f"{module}.py"
    sources = [path] if path.exists() else sorted((PACKAGE / module).glob("*.py"))
    names = set()
    for node in (node for source in sources for node in ast.walk(ast.parse(source.read_text()))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sklprep."):
            names.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            names |= {a.name.split(".")[1] for a in node.names if a.name.startswith("sklprep.")}
    return names - {module}


def modules_loaded_by(code: str) -> set[str]:
    script = f"import sys\n{code}\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_every_module_has_a_place_in_the_order():
    files = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"}
    files |= {path.parent.name for path in PACKAGE.glob("*/__init__.py")}

    assert files == set(ORDER)


@pytest.mark.parametrize("module", ORDER)
def test_module_imports_only_modules_above_it(module):
    above = set(ORDER[: ORDER.index(module)])

    assert imported_modules(module) <= above


def test_public_names_are_pinned():
    assert sorted(sklprep.__all__) == sorted(PUBLIC)


@pytest.mark.parametrize("name", [n for n in PUBLIC if n not in ("STRATEGIES", "__version__")])
def test_public_name_is_documented_and_listed(name):
    assert getattr(sklprep, name).__doc__
    assert name in dir(sklprep)


@pytest.mark.parametrize("name", [n for n in PUBLIC if n[0].isupper() and n != "STRATEGIES"])
def test_public_class_presents_itself_under_the_package_name(name):
    assert getattr(sklprep, name).__module__ == "sklprep"


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        sklprep.nonsense  # noqa: B018


def test_importing_the_package_imports_nothing_heavy():
    assert not modules_loaded_by("import sklprep") & HEAVY


def test_help_imports_nothing_heavy():
    code = "from sklprep.cli import main\nimport contextlib, io\n"
    code += "with contextlib.redirect_stdout(io.StringIO()): main(['generate', '--help'])"

    assert not modules_loaded_by(code) & HEAVY


def test_opening_a_folder_does_not_import_scikit_learn():
    assert not modules_loaded_by("import sklprep.activations") & {"sklearn", "skops", "scipy"}


def test_nothing_in_the_package_unpickles():
    sources = "".join(path.read_text() for path in PACKAGE.rglob("*.py"))

    for word in ("import pickle", "pickle.load", "joblib.load", "allow_pickle=True"):
        assert word not in sources
