"""Systems that lack what Linux has: the package imports there, and reads and writes the same."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import sklprep
from sklprep.cli.main import main

THIRD_PARTIES = """
import joblib, numpy, scipy.sparse, skops.io, sklearn.linear_model, sklearn.pipeline, tqdm
import sklearn.model_selection, threadpoolctl, zipfile, multiprocessing
"""
"""Know such systems, and have imported what they want of this one before it loses that."""

ELSEWHERE = """
import os, pathlib, shutil, signal, sys
import numpy

for name in ("fcntl", "resource", "termios", "pwd", "grp"):
    sys.modules[name] = None
for name in ("NONBLOCK", "CLOEXEC", "DIRECTORY", "NOFOLLOW", "NOCTTY", "SYNC"):
    delattr(os, f"O_{name}")
for name in ("pread", "preadv", "pwrite", "fork", "geteuid", "getuid", "killpg", "sysconf"):
    delattr(os, name)
for name in ("SIGHUP", "SIGALRM", "SIGPIPE", "SIGKILL", "setitimer", "alarm", "pthread_sigmask"):
    delattr(signal, name)

def refuse(name, is_refused):
    function = getattr(os, name)
    def careful(path, *arguments, **options):
        if is_refused(os.fspath(path)):
            raise PermissionError(13, "Permission denied", path)
        return function(path, *arguments, **options)
    setattr(os, name, careful)

def is_open(path):
    there = [f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd")]
    place = os.path.realpath(path)
    return any(os.path.realpath(x).startswith((place + "/", place + "\\0")) or
               os.path.realpath(x) == place for x in there)

refuse("open", os.path.isdir)
for name in ("replace", "rename", "unlink"):
    refuse(name, is_open)
shutil._use_fd_functions = False
"""


def elsewhere(code, *arguments, cwd, third_parties=""):
    """Run code where no folder can be opened, and no open file be renamed or removed."""
    return subprocess.run(
        [
            sys.executable,
            "-W",
            "error",
            "-c",
            third_parties + ELSEWHERE + code,
            *map(str, arguments),
        ],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "demo_features"
    sklprep.make_activations(
        100, n_layers=2, d_model=6, n_features=20, n_tokens=(2, 4), random_state=0, output=path
    )
    return path


def content_of(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in Path(folder).rglob("*")
        if path.is_file()
    }


COMMANDS = """
generate --strategy hidden-to-concept --input {folder} --layers 0-1 --output {out}/concept.npz
generate --strategy hidden-to-concept --input {folder} --layers 0-1 --output {out}/concept.npz --force
generate --strategy hidden-to-feature --input {folder} --target-layer 1 --target-feature 2 --output {out}/y.npz
pack {folder} {out}/pack --verify
generate --strategy embedding-to-concept --input {out}/pack --output {out}/from_pack.npz
"""  # noqa: E501


def test_commands_write_the_same_bytes_and_nothing_else(folder, tmp_path):
    commands = [line.format(folder=folder, out="{out}") for line in COMMANDS.split("\n") if line]
    here, there = tmp_path / "here", tmp_path / "there"
    for command in commands:
        assert main([*command.format(out=here).split(), "--quiet"]) == 0
    code = (
        "from sklprep.__main__ import main\nfor line in sys.argv[1:]: assert not main(line.split())"
    )

    done = elsewhere(
        code, *(line.format(out=there) + " --quiet" for line in commands), cwd=tmp_path
    )

    warning = f"Warning: {there} does not support file locks (Operation not supported): let only"
    assert done.stderr.splitlines() == [f"{warning} one process at a time write {there / 'pack'}."]
    assert (done.returncode, content_of(there)) == (0, content_of(here))


def test_every_public_name_is_there_and_sets_are_read_and_written(folder, tmp_path):
    code = """
import sklprep
for name in sklprep.__all__:
    getattr(sklprep, name)
acts = sklprep.load_activations(sys.argv[1])
acts[[5, 1]].to_pack("pack")
acts[:3].to_sentence_files("files")
numpy.save("hidden.npy", sklprep.load_activations("pack").hidden_states)
sklprep.load_activations("files")
sweep = sklprep.layer_sweep(None, acts, acts.labels, cv=3, inner_cv=None, n_jobs=1)
sweep.to_csv("sweep.csv")
"""
    done = elsewhere(code, folder, cwd=tmp_path, third_parties=THIRD_PARTIES)

    assert (done.returncode, done.stderr) == (0, "")
    assert len(list((tmp_path / "files").iterdir())) == 3
    expected = sklprep.load_activations(folder).hidden_states[[5, 1]]
    np.testing.assert_array_equal(expected, np.load(tmp_path / "hidden.npy"))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "files", "hidden.npy", "pack", "sweep.csv",
    ]  # fmt: skip


def test_a_failed_write_leaves_nothing_and_what_was_there_as_it_was(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"old")
    code = """
from sklprep.files.atomic import atomic_folder, atomic_write
for write in (atomic_write("a.npz"), atomic_folder("new")):
    try:
        with write:
            raise KeyError
    except KeyError:
        pass
"""
    done = elsewhere(code, cwd=tmp_path)

    assert (done.returncode, done.stderr) == (0, "")
    assert content_of(tmp_path) == {"a.npz": b"old"}
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]


def test_a_process_that_cannot_tell_a_leftover_leaves_it(tmp_path):
    (tmp_path / ".a.npz.0.sklprep.tmp").write_bytes(b"perhaps in use")
    code = "from sklprep.files.npz_writer import write_npz\nwrite_npz('a.npz', {'a': [1]})"

    done = elsewhere(code, cwd=tmp_path)

    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(content_of(tmp_path)) == [".a.npz.0.sklprep.tmp", "a.npz"]


def test_an_interrupt_ends_a_command_in_one_line(tmp_path):
    code = """
import time
from sklprep.cli.interrupts import exit_on_signals
def run():
    try:
        signal.raise_signal(signal.SIGINT)
    finally:
        time.sleep(10)
exit_on_signals(run)
"""
    done = elsewhere(code, cwd=tmp_path)

    assert (done.returncode, done.stderr) == (130, "Interrupted; nothing was left half-written.\n")


def test_an_interrupt_that_python_gave_a_text_is_told_in_the_same_line(tmp_path):
    code = """
from sklprep.cli.interrupts import exit_on_signals
def run():
    try:
        signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("decoding with 'cp437' codec failed")
exit_on_signals(run)
"""
    done = elsewhere(code, cwd=tmp_path)

    assert (done.returncode, done.stderr) == (130, "Interrupted; nothing was left half-written.\n")
