"""The pages on transfer, tokens and features: their code and commands run as they stand."""

import re
import shlex
from pathlib import Path

import matplotlib as mpl
import pytest

from sklprep import make_activations
from sklprep.cli.main import main

DOCS = Path(__file__).parents[2] / "docs"


def blocks(page, kind):
    return re.findall(rf"^```{kind}\n(.*?)^```$", (DOCS / page).read_text(), re.DOTALL | re.M)


@pytest.mark.parametrize("page", ["transfer.md", "tokens.md", "features.md"])
def test_page_runs_from_a_clean_interpreter(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    mpl.use("agg")
    mine = {}
    for code in blocks(page, "python"):
        exec(code, mine)
    mpl.pyplot.close("all")

    if page == "transfer.md":
        matrix = mine["found"].matrix  # what the directions were planted for
        assert matrix[0, :2].min() > matrix[0, 2]

    for name, (acts, _) in mine.get("sets", {}).items():
        acts.to_pack(name)
    make_activations(
        40, n_layers=2, d_model=4, n_features=8, n_tokens=(2, 3), random_state=0,
        output="dishonesty_100_features",
    )  # fmt: skip
    Path("ranked_features.csv").write_text("layer,feature_id\n1,2\n0,3\n")
    for line in "".join(blocks(page, "bash")).splitlines():
        _, *arguments = shlex.split(line)
        assert main([*arguments, "--repeats", "1", "--jobs", "1"]) == 0, capsys.readouterr().err
        if "--plot" in arguments:
            assert Path("transfer.png").read_bytes().startswith(b"\x89PNG")
