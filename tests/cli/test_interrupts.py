"""Ctrl-C and SIGTERM, sent to real processes at known moments.

What a process does is read from outside: its signal handlers, open files and children in /proc,
the files beside its output, the lines it prints.
"""

import contextlib
import io
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from sentence_files import write_folder

from sklprep.cli.main import main

LINE = "Interrupted; nothing was left half-written.\n"
OUTPUTS = ("d.npz", "scores.csv", "groups.csv")
GENERATE = "generate --strategy hidden-to-concept --input {slow} --layers 0-7 --output d.npz"
SEVERAL = (
    "generate --strategy hidden-to-concept --input {slow} --output {{layers}}_{{norm}}.npz"
    " --layers 0 --layers 1 --layers 2 --layers 3 --layers 4 --layers 5 --layers 6 --layers 7"
    " --normalize none --normalize minmax --normalize standardize"
)
PACK = "pack {slow} pack --quiet"
INSPECT = "inspect {slow} --audit --groups-out groups.csv"
SWEEP = "sweep {small} --permutations 5000 --jobs 2 --output scores.csv"
IN_THREADS, IN_PROCESSES = (
    "import sys, sklprep.sweeps.running as running, sklprep.__main__\n"
    f"running.PROCESSES_PAY_SOLVER = running.PROCESSES_PAY_SECONDS = {seconds}\n"
    "sys.exit(sklprep.__main__.main(sys.argv[1:]))"
    for seconds in ("1e9", "0")
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A folder that takes seconds to read, and one whose sweep takes minutes; a few MB each."""
    root = tmp_path_factory.mktemp("inputs")
    write_slow_folder(root / "slow", 400)
    write_folder(root / "small", 120, n_tokens=1, d_model=128)
    return {"slow": root / "slow", "small": root / "small"}


def write_slow_folder(folder, n):
    """Sentence files that hold little and inflate to much."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    hidden = np.zeros((8, 60, 2304), np.float32)
    hidden[..., :9] = rng.normal(size=(8, 60, 9))
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        embeddings=rng.normal(size=(60, 4)).astype(np.float32),
        hidden_states=hidden,
        activations=np.zeros((8, 60, 4096), np.float32),
        is_final_token=np.arange(60) == 59,
        layers=np.arange(8),
        average_l0s=np.full(8, 70),
    )
    for index in range(n):
        path = folder / f"sentence_{index:06d}.npz"
        path.write_bytes(buffer.getvalue())
        own = {
            "sentence_index": index,
            "concept_strength_label": index % 4,
            "sentence": f"This is sentence {index}.",
        }
        with zipfile.ZipFile(path, "a") as archive:
            for name, value in own.items():
                with archive.open(f"{name}.npy", "w") as member:
                    np.lib.format.write_array(member, np.array(value))


def reset_signals():
    """The tests may run in the background of a shell, or under nohup, which ignore them."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


class Command:
    """A command line in a process and a process group of its own."""

    def __init__(self, arguments, cwd, *, code=None):
        self.cwd = cwd
        self.process = subprocess.Popen(
            [sys.executable, *(["-m", "sklprep"] if code is None else ["-c", code]), *arguments],
            cwd=cwd,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=reset_signals,
        )
        self.pid = self.process.pid

    def wait_for(self, moment):
        """Poll until the moment has come; the process must still be running then."""
        while not moment(self):
            assert self.process.poll() is None, self.process.communicate()
            time.sleep(0.02)

    def end(self):
        """Wait for the end; return exit code, stderr, and the processes left over."""
        self.process.wait()
        survivors = []
        for _ in range(100):  # joblib's tracker sees the others end before it ends itself
            survivors = [show(process) for process in running_processes(self.pid)]
            if not survivors:
                break
            time.sleep(0.05)
        else:
            os.killpg(self.pid, signal.SIGKILL)
        return self.process.returncode, self.process.communicate()[1], survivors


def running_processes(group):
    """Folders in /proc of the processes of a group that have not ended."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            state, _, number = (process / "stat").read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(number) == group and state not in "ZX":
            yield process


def show(process):
    try:
        return (process / "cmdline").read_bytes().decode().replace("\0", " ")
    except OSError:
        return ""


# Moments


def importing(command):
    """The handlers are in place; the first second goes to imports."""
    status = Path(f"/proc/{command.pid}/status").read_text()
    caught = int(status.partition("SigCgt:")[2].split()[0], 16)
    return caught >> (signal.SIGTERM - 1) & 1


def reading(command):
    for fd in Path(f"/proc/{command.pid}/fd").iterdir():
        try:
            if "sentence_0001" in os.readlink(fd):
                return True
        except OSError:  # it was closed meanwhile
            continue
    return False


def writing(command):
    return any(command.cwd.glob(".*.tmp"))


def one_of_many_written(command):
    return (command.cwd / "0_none.npz").exists()


def packing(command):
    return any(command.cwd.glob(".pack.partial/hidden_states/L7.npy"))


def writing_sentences(command):
    return any(command.cwd.rglob("sentence_000020.npz"))


def generating(command):
    return "$ sklprep generate" in command.process.stdout.readline()


def fitting(command):
    """Of a second of computing, reading and the first fit take half."""
    if "fits on" not in command.process.stdout.readline():
        return False
    before = cpu_ticks(command)
    command.wait_for(lambda command: cpu_ticks(command) > before + os.sysconf("SC_CLK_TCK"))
    return True


def cpu_ticks(command):
    return int(Path(f"/proc/{command.pid}/stat").read_text().rpartition(")")[2].split()[11])


def workers_start(command):
    return workers_with("numpy", command)


def workers_work(command):
    """They have imported what a job needs, with a Ctrl-C in between, which they do not get."""
    command.wait_for(workers_start)
    for pid in workers_with("numpy", command):
        os.kill(pid, signal.SIGINT)
    command.wait_for(lambda command: workers_with("sklearn/linear_model", command))
    return True


def workers_restart(command):
    """Those that were killed while they started were replaced, without a word."""
    command.wait_for(workers_start)
    killed = workers_with("", command)
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    command.wait_for(lambda command: {*workers_with("numpy", command)} - {*killed})
    return True


def workers_with(library, command):
    """Numbers of the worker processes that have loaded a library."""
    pids = []
    for process in running_processes(command.pid):
        with contextlib.suppress(OSError):
            if "LokyProcess" in show(process) and library in (process / "maps").read_text():
                pids.append(int(process.name))
    return pids


@pytest.mark.parametrize(
    ("line", "code", "moment", "number", "to_group"),
    [
        (GENERATE, None, importing, signal.SIGINT, False),
        (GENERATE, None, reading, signal.SIGTERM, False),
        (f"{GENERATE} --compress", None, writing, signal.SIGINT, True),
        (INSPECT, None, importing, signal.SIGTERM, False),
        (INSPECT, None, reading, signal.SIGINT, False),
        (SWEEP, IN_THREADS, fitting, signal.SIGINT, False),
        (SWEEP, IN_PROCESSES, workers_start, signal.SIGINT, True),
        (SWEEP, IN_PROCESSES, workers_work, signal.SIGTERM, False),
        (SWEEP, IN_PROCESSES, workers_restart, signal.SIGTERM, False),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_signal_ends_a_command_in_one_line_and_leaves_all_as_it_was(
    folders, tmp_path, line, code, moment, number, to_group
):
    for name in OUTPUTS:
        (tmp_path / name).write_text("old")
    command = Command(line.format(**folders).split(), tmp_path, code=code)
    command.wait_for(moment)
    (os.killpg if to_group else os.kill)(command.pid, number)

    assert (128 + number, LINE, []) == command.end()
    assert dict.fromkeys(OUTPUTS, b"old") == content_of(tmp_path)


def content_of(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def test_what_was_written_before_the_signal_is_whole_and_skipped_by_the_same_command(
    folders, tmp_path, capsys, monkeypatch
):
    line = SEVERAL.format(**folders)
    command = Command(line.split(), tmp_path)
    command.wait_for(one_of_many_written)
    os.kill(command.pid, signal.SIGTERM)

    assert (143, LINE, []) == command.end()
    written = content_of(tmp_path)
    assert "0_none.npz" in written
    assert len(written) < 24
    monkeypatch.chdir(tmp_path)
    assert main(line.split()) == 0
    assert f"{24 - len(written)} written, {len(written)} unchanged" in capsys.readouterr().out
    assert written.items() < content_of(tmp_path).items()


def test_an_interrupted_pack_says_that_it_goes_on_and_does(folders, tmp_path, monkeypatch):
    command = Command(PACK.format(**folders).split(), tmp_path)
    command.wait_for(packing)
    os.kill(command.pid, signal.SIGINT)

    said = "Interrupted; the same command continues where it stopped.\n"
    assert (130, said, []) == command.end()
    assert [".pack.partial"] == [path.name for path in tmp_path.iterdir()]
    assert not [path for path in tmp_path.rglob("*") if path.suffix == ".tmp"]
    monkeypatch.chdir(tmp_path)
    assert main([*PACK.format(**folders).split(), "--verify"]) == 0
    assert ["pack"] == [path.name for path in tmp_path.iterdir()]


@pytest.mark.parametrize(
    ("moment", "number"), [(writing_sentences, signal.SIGINT), (generating, signal.SIGTERM)]
)
def test_an_interrupted_demo_leaves_all_its_sentence_files_or_none(tmp_path, moment, number):
    command = Command(["demo", "demo"], tmp_path)
    command.wait_for(moment)
    os.kill(command.pid, number)

    assert (128 + number, LINE, []) == command.end()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == (0 if moment is writing_sentences else 100)
    assert not list(tmp_path.rglob(".*"))


# What surrounds a command


def ends(code, number=signal.SIGINT, *, times=1, stderr=subprocess.PIPE):
    """Run code that calls `exit_on_signals` and `sleep`, and send signals once it sleeps."""
    head = (
        "import atexit, os, signal, sys, time\n"
        "from sklprep.cli.interrupts import exit_on_signals\n"
        "def sleep(seconds=60):\n"
        "    print('ready', flush=True)\n"
        "    time.sleep(seconds)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", head + code],
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        preexec_fn=reset_signals,
    ) as process:
        assert process.stdout.readline() == "ready\n"
        for _ in range(times):
            process.send_signal(number)
            time.sleep(0.02)
        _, err = process.communicate()
    return process.returncode, err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_exit_code_is_that_of_the_signal(number):
    assert ends("exit_on_signals(sleep)", number) == (128 + number, LINE)


def test_a_second_signal_does_not_stop_the_cleaning_up(tmp_path):
    code = f"""
def run():
    try:
        sleep()
    finally:
        time.sleep(0.2)
        open({str(tmp_path / "cleaned")!r}, "w").close()
exit_on_signals(run)
"""
    assert ends(code, times=4) == (130, LINE)
    assert (tmp_path / "cleaned").exists()


@pytest.mark.parametrize("lost", ["except BaseException", "finally"])
def test_an_interrupt_that_is_caught_or_held_up_ends_the_process_all_the_same(lost):
    code = f"""
def run():
    try:
        sleep()
    {lost}:
        time.sleep(10)
        os._exit(3)
exit_on_signals(run)
"""
    assert ends(code) == (130, LINE)


def test_an_interrupt_that_a_library_makes_an_error_of_is_still_an_interrupt():
    code = """
def run():
    try:
        sleep()
    except BaseException as error:
        raise ImportError("numpy.core.multiarray failed to import") from error
exit_on_signals(run)
"""
    assert ends(code) == (130, LINE)


def test_what_threads_and_destructors_say_of_an_interrupt_is_not_heard():
    code = """
import threading
stopped = threading.Event()
def complain():
    stopped.wait()
    raise ValueError
class Loud:
    def __del__(self):
        raise ValueError
def run():
    loud = Loud()
    thread = threading.Thread(target=complain)
    thread.start()
    try:
        sleep()
    finally:
        del loud
        stopped.set()
        thread.join()
exit_on_signals(run)
"""
    assert ends(code) == (130, LINE)


def test_a_signal_that_nohup_ignores_stays_ignored():
    code = """
signal.signal(signal.SIGHUP, signal.SIG_IGN)
sys.exit(exit_on_signals(lambda: sleep(0.3) or 5))
"""
    assert ends(code, signal.SIGHUP) == (5, "")


def test_a_signal_while_the_interpreter_shuts_down_is_no_traceback():
    assert ends("exit_on_signals(int)\natexit.register(sleep)") == (130, LINE)
    assert ends("atexit.register(sleep, 0.3)\nexit_on_signals(int)") == (0, "")


def test_on_a_terminal_the_line_stands_below_half_a_progress_bar():
    ours, theirs = os.openpty()
    code, _ = ends("sys.stderr.write('Reading 12%')\nexit_on_signals(sleep)", stderr=theirs)
    os.close(theirs)
    said = os.read(ours, 1000).decode()
    os.close(ours)

    assert (130, f"Reading 12%\r\n{LINE[:-1]}\r\n") == (code, said)


def test_handlers_belong_to_the_command_s_own_process_alone(folders, capsys):
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM)
    before = [signal.getsignal(number) for number in numbers]

    assert main(["inspect", "--quick", str(folders["small"])]) == 0
    assert before == [signal.getsignal(number) for number in numbers]
