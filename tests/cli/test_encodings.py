"""Every command prints on streams of any encoding, its progress bar included."""

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading

import numpy as np
import pytest
from sentence_files import write_folder

GENERATE = ["generate", "--strategy", "embedding-to-concept", "--input", "жизнь", "--output"]
SWEEP = ["sweep", "--cv", "2", "--inner-cv", "2", "--repeats", "1", "жизнь"]
COMMANDS = (  # and whether the names it prints lie outside each encoding
    (["inspect", "жизнь"], True),
    (["inspect", "жизнь", "--audit"], True),
    (["inspect", "жизнь", "--json"], True),
    ([*GENERATE, "выход.npz"], True),
    ([*GENERATE, "{input}.npz", "--dry-run"], True),
    (["inspect", "выход.npz"], True),
    ([*SWEEP, "--estimator", "svm", "--permutations", "20", "--output", "кривая.csv"], False),
    ([*SWEEP, "--labels", "метки.csv"], False),
    ([*SWEEP, "смерть"], False),
    (["pack", "жизнь", "упаковка"], True),
    (["pack", "упаковка", "--verify"], True),
    (["inspect", "нет"], True),
)
RUN_ALL = """
import json, sys
from sklprep.__main__ import main
for command in json.loads(sys.argv[1]):
    print(f"\\n$$ {main([*command, '--jobs', '1'])}", flush=True)
    print("\\n$$ ", file=sys.stderr, flush=True)
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    path = tmp_path_factory.mktemp("data")
    for name in ("жизнь", "смерть"):
        changes = {i: {"sentence": np.array(f"Ω ½ 生命 {i}")} for i in range(16)}
        write_folder(path / name, 16, changes=changes, layers=(0, 1), n_features=6)
    rows = "".join(f"{index},{'да' if index % 2 else 'нет'}\n" for index in range(16))
    (path / "метки.csv").write_text(f"sentence_index,label\n{rows}", encoding="utf-8")
    return path


def run_on_a_terminal(place, commands, encoding):
    """Run commands in one process; its stderr is a terminal. Give what each printed on both."""
    terminal, stderr = pty.openpty()
    fcntl.ioctl(stderr, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    drawn = []

    def read():
        try:
            while chunk := os.read(terminal, 4096):
                drawn.append(chunk)
        except OSError:  # the other end is closed
            pass

    reader = threading.Thread(target=read)
    reader.start()
    done = subprocess.run(
        [sys.executable, "-c", RUN_ALL, json.dumps(commands)],
        cwd=place,
        env={**os.environ, "PYTHONIOENCODING": encoding},
        stdout=subprocess.PIPE,
        stderr=stderr,
        check=False,
    )
    os.close(stderr)
    reader.join(timeout=10)
    os.close(terminal)
    shown = b"".join(drawn)
    assert done.returncode == 0, shown.decode(encoding)
    return done.stdout.decode(encoding).split("\n$$ "), shown.decode(encoding).split("\n$$ ")


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_every_command_prints_on_streams_of_any_encoding(place, encoding):
    for made in ("выход.npz", "кривая.csv"):
        (place / made).unlink(missing_ok=True)

    out, err = run_on_a_terminal(place, [command for command, _ in COMMANDS], encoding)

    for number, (command, is_escaped) in enumerate(COMMANDS):
        printed, said = out[number] + err[number], err[number]
        assert out[number + 1].startswith(str(int(command == ["inspect", "нет"]))), (command, said)
        assert "Traceback" not in said
        assert "UnicodeEncodeError" not in said
        assert ("\\u" in printed) == is_escaped, (command, printed)
        if "--permutations" in command:
            assert re.search(r"Fitting: +\d+%\|#+", said)
