"""The page about probes tells the truth: its commands and its Python run as they stand."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from sklprep.cli.main import main

PAGE = Path(__file__).parents[2] / "docs" / "probes.md"
BLOCKS = re.findall(r"^```([^\n]*)\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)


def test_blocks_run_one_after_the_other(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    namespace = {}
    for info, code in BLOCKS:
        if info == "bash":
            for line in code.splitlines():
                assert main([*shlex.split(line)[1:], "--jobs", "1"]) == 0, line
        elif info == "python":
            line = PAGE.read_text().count("\n", 0, PAGE.read_text().index(code))
            exec(compile("\n" * line + code, PAGE.name, "exec"), namespace)

    assert namespace["sweep"].summary() in capsys.readouterr().out
    assert (namespace["fires"] == namespace["probe"].predict(namespace["acts"])).all()
    assert (namespace["predicted"] == namespace["levels"].predict(namespace["acts"])).all()


def test_other_libraries_read_the_file_as_the_page_says(tmp_path, monkeypatch):
    pytest.importorskip("safetensors", reason="pip install safetensors")
    torch = pytest.importorskip("torch", reason="pip install torch")
    monkeypatch.chdir(tmp_path)
    blocks = [code for _, code in BLOCKS if "from safetensors" in code]
    namespace = {}
    setup = [code for info, code in BLOCKS if info == "python"]
    for code in (setup[0], *(code for code in setup if "save_probe(" in code)):
        exec(code, namespace)
    namespace["hidden"] = torch.tensor(namespace["acts"].layer(2).copy())
    expected = namespace["probe"].decision_function(namespace["acts"])

    for code in blocks:
        exec(code, namespace)
        decisions = namespace["decisions"][:, 0]
        np.testing.assert_allclose(expected, np.asarray(decisions), atol=1e-9)
