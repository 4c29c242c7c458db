"""The architecture: who imports whom, what is public, and what an import costs."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

import sklprep

PACKAGE = Path(sklprep.__file__).parent
LEVELS = [
    {"notebook"},
    {"files"},
    {"formats"},
    {"activations"},
    {"transformers"},
    {"datasets", "sweeps"},
    {"probes"},
    {"inspection"},
    {"cli"},
]
"""The subpackages, lowest first: each imports only from levels below its own, and what is at the
top of the package is public. Nothing here names a module, so a new one needs no line."""
SUBPACKAGES = sorted(set().union(*LEVELS))
TOP = {"__init__", "__main__", "_version", "exceptions", "strategies"}
FOR_ALL = {"_version", "exceptions"}
PUBLIC = [
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
    "__version__",
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
]
HEAVY = {"numpy", "scipy", "sklearn", "skops", "joblib", "tqdm", "matplotlib", "pandas", "zlib_ng"}


def imported_modules(path: Path) -> set[str]:
    """Names, without the package's, of its modules that a file imports anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "sklprep":
            inside = node.module.split(".")[1:]
            modules = [".".join([*inside, alias.name]) for alias in node.names]
            names |= {module if is_module(module) else ".".join(inside) for module in modules}
        elif isinstance(node, ast.Import):
            names |= {a.name.partition(".")[2] for a in node.names if a.name.startswith("sklprep.")}
    return names - {""}


def is_module(name: str) -> bool:
    path = PACKAGE.joinpath(*name.split("."))
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


def modules_loaded_by(code: str) -> set[str]:
    script = f"import sys\n{code}\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_every_module_lies_in_a_subpackage_or_at_the_top():
    assert {path.parent.name for path in PACKAGE.glob("*/__init__.py")} == set(SUBPACKAGES)
    assert {path.stem for path in PACKAGE.glob("*.py")} == TOP


@pytest.mark.parametrize("subpackage", SUBPACKAGES)
def test_subpackage_imports_only_from_those_below_it(subpackage):
    level = next(number for number, subpackages in enumerate(LEVELS) if subpackage in subpackages)
    below = set().union(FOR_ALL, *LEVELS[:level])
    modules = sorted((PACKAGE / subpackage).rglob("*.py"))

    upward = {
        f"{path.relative_to(PACKAGE)} imports {module}"
        for path in modules
        for module in imported_modules(path)
        if module.split(".")[0] not in {*below, subpackage}
    }

    assert not upward


@pytest.mark.parametrize("subpackage", SUBPACKAGES)
def test_subpackage_has_no_circle_of_imports(subpackage):
    graph = {
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts): {
            module for module in imported_modules(path) if module.split(".")[0] == subpackage
        }
        for path in (PACKAGE / subpackage).rglob("*.py")
        if path.stem != "__init__"
    }

    assert list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError


@pytest.mark.parametrize("subpackage", SUBPACKAGES)
def test_subpackage_says_what_it_is_about_and_imports_nothing_by_itself(subpackage):
    tree = ast.parse((PACKAGE / subpackage / "__init__.py").read_text())

    assert ast.get_docstring(tree)
    assert len(tree.body) == 1


def test_modules_and_functions_are_short_enough_to_read_at_once():
    """A module has at most 700 lines, a function without its docstring at most 50."""
    too_long = {}
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text()
        if len(text.splitlines()) > 700:
            too_long[str(path.relative_to(PACKAGE))] = len(text.splitlines())
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                signature = node.body[0].lineno - node.lineno
                length = signature + (body[-1].end_lineno - body[0].lineno + 1 if body else 0)
                if length > 50:
                    too_long[f"{path.relative_to(PACKAGE)} {node.name}"] = length

    assert not too_long


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
    code = "from sklprep.cli.main import main\nimport contextlib, io\n"
    code += "with contextlib.redirect_stdout(io.StringIO()): main(['generate', '--help'])"

    assert not modules_loaded_by(code) & HEAVY


def test_opening_a_folder_does_not_import_scikit_learn():
    assert not modules_loaded_by("import sklprep.activations.loading") & {
        "sklearn",
        "skops",
        "scipy",
    }


def test_nothing_in_the_package_unpickles():
    sources = "".join(path.read_text() for path in PACKAGE.rglob("*.py"))

    for word in ("import pickle", "pickle.load", "joblib.load", "allow_pickle=True"):
        assert word not in sources
