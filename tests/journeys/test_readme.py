"""The README is short, and sets everything up; that its blocks run, `test_documents.py` tests."""

from documents import ROOT, blocks_of

README = ROOT / "README.md"
LINES = README.read_text().splitlines()


def test_readme_stays_short():
    assert len(LINES) <= 120


def test_opening_commands_are_the_first_two_lines_of_their_kind():
    lines = [line for line in LINES if line.startswith("python3 -m venv")]
    commands = [
        line for block in blocks_of(README) if block.language == "bash" for line in block.commands()
    ]

    assert 2 == len(lines)
    assert lines == commands[:2]
    demo, tests = lines
    assert demo.endswith("sklprep demo")
    assert "-m pytest" in tests
    assert '"' in tests
    assert ".[test]" in tests


def test_python_of_the_readme_needs_no_option():
    blocks = [block for block in blocks_of(README) if block.language == "python"]

    assert blocks
    assert all(block.options == () for block in blocks)
