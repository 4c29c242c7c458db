"""What a killed run leaves behind, and what is refused before any work: nothing is lost, ever."""

import contextlib
import errno
import fcntl
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sentence_files import damage, write_folder

import sklprep.files.temporary
from sklprep import generate_dataset, load_activations, make_strategy
from sklprep.cli.main import main
from sklprep.exceptions import OutputError
from sklprep.files.atomic import atomic_write
from sklprep.files.npz_writer import Blocks, write_npz
from sklprep.files.temporary import create_temporary_file, remove_dead, temporary_folder
from sklprep.formats.pack_writer import build_pack
from sklprep.formats.sentence_folder import SentenceFolder

pytestmark = pytest.mark.filterwarnings("ignore::sklprep.exceptions.SklprepWarning")

SLOT = ".x.npz.{}.sklprep.tmp"


def tree(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(Path(folder).rglob("*"))
        if path.is_file()
    }


@contextlib.contextmanager
def writing(path):
    """Another process that is in the middle of writing a file; give it a line and it finishes."""
    code = (
        "import sys\n"
        "from sklprep.files.atomic import atomic_write\n"
        "with atomic_write(sys.argv[1]) as file:\n"
        "    file.write(b'half')\n"
        "    file.flush()\n"
        "    print('ready', flush=True)\n"
        "    sys.stdin.readline()\n"
        "    file.write(b' and half')\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "ready\n"
        try:
            yield process
        finally:
            process.kill()


# --- temporary files ----------------------------------------------------------------------------


def test_the_next_write_of_a_file_removes_what_killed_ones_left(tmp_path):
    path = tmp_path / "x.npz"
    write_npz(path, {"a": 1})
    with writing(path) as one, writing(path) as two, writing(path) as three:
        assert sorted(os.listdir(tmp_path)) == [*map(SLOT.format, range(3)), "x.npz"]
        for process in (one, two, three):
            process.send_signal(signal.SIGKILL)
            process.wait()
    assert len(os.listdir(tmp_path)) == 4
    write_npz(path, {"a": 2})
    assert os.listdir(tmp_path) == ["x.npz"]
    assert np.load(path)["a"] == 2


def test_a_file_that_a_live_process_writes_is_left_alone(tmp_path):
    path = tmp_path / "x.npz"
    with writing(path) as process:
        with atomic_write(path) as file:
            file.write(b"in between")
        assert path.read_bytes() == b"in between"
        assert sorted(os.listdir(tmp_path)) == [SLOT.format(0), "x.npz"]
        process.communicate("\n")
    assert path.read_bytes() == b"half and half"
    assert os.listdir(tmp_path) == ["x.npz"]


def test_of_several_leftovers_only_those_of_the_dead_are_removed(tmp_path):
    path = tmp_path / "x.npz"
    with writing(path) as one, writing(path) as two, writing(path):
        for process in (one, two):
            process.kill()
            process.wait()
        write_npz(path, {"a": 1})
        assert sorted(os.listdir(tmp_path)) == [SLOT.format(2), "x.npz"]


def test_leftovers_of_other_files_and_foreign_temporary_files_stay(tmp_path):
    names = [".y.npz.0.sklprep.tmp", ".x.npz.tmp", ".x.npz.1a2b3c.tmp", "x.npz.0.sklprep.tmp"]
    for name in names:
        (tmp_path / name).write_text("not yours")
    write_npz(tmp_path / "x.npz", {"a": 1})
    assert sorted(os.listdir(tmp_path)) == sorted([*names, "x.npz"])


def test_what_is_no_file_under_a_temporary_name_is_gone_around(tmp_path):
    (tmp_path / "mine").write_text("mine")
    (tmp_path / SLOT.format(0)).symlink_to("mine")
    write_npz(tmp_path / "x.npz", {"a": 1})
    assert (tmp_path / "mine").read_text() == "mine"
    assert np.load(tmp_path / "x.npz")["a"] == 1


def test_a_leftover_does_not_decide_the_mode_of_the_new_file(tmp_path):
    leftover = tmp_path / SLOT.format(0)
    leftover.touch()
    leftover.chmod(0o600)
    before = os.umask(0o022)
    try:
        write_npz(tmp_path / "x.npz", {"a": 1})
    finally:
        os.umask(before)
    assert (tmp_path / "x.npz").stat().st_mode & 0o777 == 0o644


def test_a_folder_with_leftovers_is_read_as_if_they_were_not_there(tmp_path, capsys):
    write_folder(tmp_path / "dump", 5)
    before = load_activations(tmp_path / "dump").fingerprint
    for name in ("sentence_000004.npz", "sentence_000005.npz", "x.npz", "manifest.json"):
        (tmp_path / "dump" / f".{name}.0.sklprep.tmp").write_bytes(b"half of something")
    (tmp_path / "dump" / ".rows.0.sklprep.tmp").mkdir()
    acts = load_activations(tmp_path / "dump")
    assert (len(acts), acts.fingerprint) == (5, before)
    assert main(["pack", str(tmp_path / "dump"), str(tmp_path / "pack"), "--quiet"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("deed", ["unlink", "replace"])
def test_a_file_is_removed_or_renamed_under_its_lock(tmp_path, monkeypatch, deed):
    """Once the lock is gone, the name may belong to another process."""
    removed = []
    do = getattr(Path, deed)

    def note(path, *arguments, **options):
        removed.append(remove_dead(path))
        do(path, *arguments, **options)

    monkeypatch.setattr(Path, deed, note)
    with contextlib.suppress(ValueError), atomic_write(tmp_path / "x.npz"):
        if deed == "unlink":
            raise ValueError
    assert removed == [False]
    assert os.listdir(tmp_path) == ([] if deed == "unlink" else ["x.npz"])


def test_a_file_that_got_its_name_before_it_could_be_locked_is_no_leftover(tmp_path, monkeypatch):
    """The owner renames it and goes, after it was opened as a leftover and before the lock."""
    temporary, path = tmp_path / SLOT.format(0), tmp_path / "x.npz"
    temporary.write_bytes(b"whole")
    flock = fcntl.flock

    def late(fd, operation):
        temporary.replace(path)
        flock(fd, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    assert remove_dead(temporary)
    assert path.read_bytes() == b"whole"


def test_a_file_taken_for_a_leftover_before_it_was_locked_is_made_again(tmp_path, monkeypatch):
    flock, stolen = fcntl.flock, []

    def late(fd, operation):
        temporary = tmp_path / SLOT.format(0)
        if len(stolen) < 2:
            stolen.append(temporary.stat().st_ino)
            temporary.unlink()
        flock(fd, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    fd, temporary = create_temporary_file(tmp_path / "x.npz")
    assert len(stolen) == 2
    assert os.path.samestat(os.fstat(fd), temporary.stat())
    os.close(fd)


def test_without_locks_files_are_written_and_nothing_is_removed(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    leftover = tmp_path / SLOT.format(0)
    leftover.write_text("perhaps in use")
    monkeypatch.setattr(fcntl, "flock", refuse)
    write_npz(tmp_path / "x.npz", {"a": 1})
    assert sorted(os.listdir(tmp_path)) == [leftover.name, "x.npz"]


RACE = """
import os, random, signal, sys, time
from sklprep.files.atomic import atomic_write
path, seed = sys.argv[1], int(sys.argv[2])
os.fsync = lambda fd: None
children = []
for number in range(6):
    if not (child := os.fork()):
        for _ in range(60):
            with atomic_write(path) as file:
                file.write(bytes([number]) * 70_000)
        os._exit(0)
    children.append(child)
random.seed(seed)
for child in children[:3]:
    time.sleep(random.uniform(0, 0.02))
    os.kill(child, signal.SIGKILL)
codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
assert set(codes[:3]) <= {0, -9}, codes
assert codes[3:] == [0] * 3, codes
with open(path, "rb") as file:
    content = file.read()
assert len(content) == 70_000 and len(set(content)) == 1
with atomic_write(path) as file:
    file.write(b"last")
assert os.listdir(os.path.dirname(path)) == ["x.npz"], os.listdir(os.path.dirname(path))
print(codes.count(-9))
"""


def test_many_writers_of_one_file_of_whom_some_are_killed_never_disturb_each_other(
    tmp_path, run_python
):
    killed = 0
    for seed in range(4):
        (tmp_path / str(seed)).mkdir()
        killed += int(run_python(RACE, tmp_path / str(seed) / "x.npz", seed))
    assert killed >= 3


# --- temporary folders --------------------------------------------------------------------------


def test_a_temporary_folder_of_a_live_process_stays_and_that_of_a_dead_one_goes(tmp_path):
    dead = tmp_path / ".rows.0.sklprep.tmp"
    (dead / "pack" / "deeper").mkdir(parents=True)
    (dead / "pack" / "a.npy").write_text("large")
    with temporary_folder(tmp_path, "rows") as one:
        assert list(one.iterdir()) == []
        (one / "a").touch()
        with temporary_folder(tmp_path, "rows") as two:
            assert one != two
            sklprep.files.temporary.remove_leftovers(tmp_path / "rows")
            assert (one / "a").exists()
            assert two.exists()
    assert os.listdir(tmp_path) == []


# --- killed commands ----------------------------------------------------------------------------

KILLED = """
import os, signal, sys
import joblib, sklprep.datasets.batch, sklprep.datasets.generation, skops.io
import sklprep.formats.pack_writer
import sklprep.transformers.normalizers, sklprep.transformers.layer_selector
import sklprep.transformers.targets
from sklprep.cli.main import main
out, *arguments = sys.argv[1:]

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

def in_fsync():
    os.fsync = die

def with_rows_in_a_temporary_pack():
    sklprep.datasets.batch.SPOOL_BYTES = 0
    sklprep.datasets.generation.fit_dataset = die

def run(prepare):
    if not (child := os.fork()):
        prepare()
        os._exit(main([*arguments, "--output", f"{out}/x.npz"]))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

for how in (in_fsync, with_rows_in_a_temporary_pack):
    assert run(how) == -9
    print(*os.listdir(out))
assert run(lambda: None) == 0
"""


def test_generate_cleans_up_after_a_killed_one(tmp_path, run_python):
    write_folder(tmp_path / "dump", 104)
    out = tmp_path / "out"
    out.mkdir()
    command = ["generate", "--strategy", "hidden-to-concept", "--layer", "1", "--quiet"]
    command += ["--input", str(tmp_path / "dump")]
    said = run_python(KILLED, out, *command, timeout=120)
    assert said.split() == [SLOT.format(0), ".rows.0.sklprep.tmp"]
    assert os.listdir(out) == ["x.npz"]
    assert main([*command, "--output", str(tmp_path / "x.npz")]) == 0
    assert (out / "x.npz").read_bytes() == (tmp_path / "x.npz").read_bytes()


def test_leftovers_go_even_where_the_dataset_is_there_unchanged(tmp_path):
    write_folder(tmp_path / "dump", 5)
    command = ["generate", "--strategy", "embedding-to-concept", "--quiet"]
    command += ["--input", str(tmp_path / "dump"), "--output", str(tmp_path / "x.npz")]
    assert main(command) == 0
    before = tree(tmp_path)
    (tmp_path / SLOT.format(1)).write_text("of a killed run with --force")
    (tmp_path / ".rows.0.sklprep.tmp").mkdir()
    assert main(command) == 0
    assert tree(tmp_path) == before
    assert not (tmp_path / ".rows.0.sklprep.tmp").exists()


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("s.csv", ["sweep", "{dump}", "--layers", "0", "--cv", "2", "--output", "{file}"]),
        ("s.png", ["sweep", "{dump}", "--layers", "0", "--cv", "2", "--plot", "{file}"]),
        ("g.csv", ["inspect", "{dump}", "--audit", "--groups-out", "{file}"]),
    ],
)
def test_every_file_that_a_command_writes_is_written_so(tmp_path, monkeypatch, name, arguments):
    if name.endswith("png"):
        pytest.importorskip("matplotlib")
    write_folder(tmp_path / "dump", 60, n_features=4)
    (tmp_path / f".{name}.0.sklprep.tmp").write_text("left by a killed run")
    (tmp_path / name).write_text("old")
    paths = {"dump": tmp_path / "dump", "file": tmp_path / name}
    command = [part.format(**paths) for part in arguments] + ["--quiet"]

    def fail(*_):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        assert main(command) == 1
    assert (tmp_path / name).read_text() == "old"
    assert sorted(os.listdir(tmp_path)) == ["dump", name]
    assert main(command) == 0
    assert (tmp_path / name).read_bytes() != b"old"
    assert sorted(os.listdir(tmp_path)) == ["dump", name]


def test_a_pack_that_was_begun_goes_only_where_another_run_finished_it(tmp_path):
    write_folder(tmp_path / "dump", 5)
    source = SentenceFolder(tmp_path / "dump")
    build_pack(source, tmp_path / "pack")
    shutil.copytree(tmp_path / "pack", tmp_path / ".pack.partial")
    build_pack(source, tmp_path / "pack")
    assert sorted(os.listdir(tmp_path)) == ["dump", "pack"]


def test_a_pack_that_a_live_process_begins_is_left_alone(tmp_path):
    write_folder(tmp_path / "dump", 5)
    source = SentenceFolder(tmp_path / "dump")
    build_pack(source, tmp_path / "pack")
    (tmp_path / ".pack.partial").mkdir()
    fd = os.open(tmp_path / ".pack.partial", os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    build_pack(source, tmp_path / "pack")
    assert (tmp_path / ".pack.partial").is_dir()
    os.close(fd)
    build_pack(source, tmp_path / "pack")
    assert sorted(os.listdir(tmp_path)) == ["dump", "pack"]


def test_what_was_begun_and_is_broken_is_begun_again(tmp_path):
    write_folder(tmp_path / "dump", 5)
    source = SentenceFolder(tmp_path / "dump")
    build_pack(source, tmp_path / "whole")
    for broken in ("manifest.json", "source_names.npy"):
        shutil.copytree(tmp_path / "whole", tmp_path / ".pack.partial")
        (tmp_path / ".pack.partial" / broken).write_text("broken")
        build_pack(source, tmp_path / "pack")
        assert tree(tmp_path / "pack") == tree(tmp_path / "whole")
        shutil.rmtree(tmp_path / "pack")


def test_a_pack_may_be_reached_by_a_link(tmp_path):
    write_folder(tmp_path / "dump", 5)
    (tmp_path / "place").mkdir()
    (tmp_path / "link").symlink_to("place")
    for _ in range(2):
        build_pack(SentenceFolder(tmp_path / "dump"), tmp_path / "link")
        write_folder(tmp_path / "dump", 7)
    assert len(load_activations(tmp_path / "place")) == 7
    assert sorted(os.listdir(tmp_path)) == ["dump", "link", "place"]


# --- no space -----------------------------------------------------------------------------------

FULL = """
import os, resource, sys
import joblib, sklprep.formats.pack_writer
from sklprep.cli.main import main
limits, *arguments = sys.argv[1:]
if arguments[0] == "generate":
    import sklprep.datasets.generation, sklprep.transformers.normalizers, skops.io
    import sklprep.transformers.layer_selector, sklprep.transformers.targets
sys.stderr = sys.stdout
for limit in limits.split(","):
    if not (child := os.fork()):
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit),) * 2)
        print("exit", main(arguments), flush=True)
        os._exit(0)
    os.waitpid(child, 0)
"""


def test_a_full_disk_is_one_line_and_the_old_dataset_stays(tmp_path, run_python):
    write_folder(tmp_path / "dump", 104, d_model=60)
    out = tmp_path / "out" / "x.npz"
    write_npz(out, {"old": 1})
    before = tree(tmp_path)
    said = run_python(
        FULL,
        *("100,2000,5000,20000", "generate", "--strategy", "hidden-to-concept", "--layer", 1),
        *("--quiet", "--input", tmp_path / "dump", "--output", out),
        timeout=120,
    )
    one = (
        f"Error: {out}: cannot be written (File too large); existing files are unchanged."
        " Free some space, or choose another disk.\nexit 1\n"
    )
    assert said == one * 4
    assert tree(tmp_path) == before


def test_a_full_disk_stops_a_pack_that_goes_on_later(tmp_path, run_python):
    write_folder(tmp_path / "dump", 30, d_model=60)
    pack, whole = tmp_path / "pack", tmp_path / "whole"
    said = run_python(FULL, "100,3000,6000", "pack", tmp_path / "dump", pack, "--quiet")
    lines = said.splitlines()
    assert lines[1::2] == ["exit 1"] * 3
    for line in lines[::2]:
        assert line.startswith(f"Error: {pack.parent}")
        assert "cannot be written (File too large); existing files are unchanged" in line
    assert not pack.exists()
    for place in (pack, whole):
        build_pack(SentenceFolder(tmp_path / "dump"), place)
    assert tree(pack) == tree(whole)
    assert sorted(os.listdir(tmp_path)) == ["dump", "pack", "whole"]


def test_a_dataset_too_large_for_the_disk_is_refused_before_the_work(tmp_path, monkeypatch, capsys):
    """A pack of sparse files, of which nothing but the size is large."""
    n = 20
    write_folder(tmp_path / "dump", n)
    build_pack(SentenceFolder(tmp_path / "dump"), tmp_path / "pack")
    manifest = tmp_path / "pack" / "manifest.json"
    width = 1_000_000
    usage = shutil.disk_usage(tmp_path)._replace(free=n * width * 4 - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    shape = f'"shape": [\n    {n},\n    7\n   ]'
    assert shape in manifest.read_text()
    manifest.write_text(
        manifest.read_text()
        .replace(shape, shape.replace("7", str(width)))
        .replace('"d_model": 7', f'"d_model": {width}')
    )
    header = {"descr": "<f4", "fortran_order": False, "shape": (n, width)}
    for layer in range(3):
        with (tmp_path / "pack" / "hidden_states" / f"L{layer}.npy").open("wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
            file.truncate(file.tell() + n * width * 4)
    before = sorted(os.listdir(tmp_path))
    command = ["generate", "--strategy", "hidden-to-concept", "--layer", "1"]
    command += ["--input", str(tmp_path / "pack"), "--output", str(tmp_path / "x.npz")]
    assert main(command) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"Error: Output {tmp_path / 'x.npz'} needs {n * width * 4 / 1e6:,.1f} MB")
    assert err.endswith(" MB are free on its disk. Free some space, or choose another disk.\n")
    assert err.count("\n") == 1
    with pytest.raises(OutputError, match="are free on its disk"):
        generate_dataset(
            load_activations(tmp_path / "pack"),
            *make_strategy("hidden-to-concept", layers=1),
            output=tmp_path / "x.npz",
        )
    assert sorted(os.listdir(tmp_path)) == before


def test_arrays_too_large_for_the_disk_are_refused_before_a_block_is_made(tmp_path):
    def blocks():
        raise AssertionError("made")
        yield

    shape = (shutil.disk_usage(tmp_path).total // 4 + 1, 1)
    with pytest.raises(OutputError, match="are free on its disk"):
        write_npz(tmp_path / "x.npz", {"X": Blocks(shape, np.dtype(np.float32), blocks())})
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("grown", [False, True])
def test_a_pack_too_large_for_the_disk_is_refused_before_the_work(
    tmp_path, monkeypatch, capsys, grown
):
    write_folder(tmp_path / "dump", 6)
    if grown:
        build_pack(SentenceFolder(tmp_path / "dump"), tmp_path / "pack")
        write_folder(tmp_path / "dump", 4, first=6)
    n_new, row = (4 if grown else 6), 4 * (5 + 3 * 7) + 3 * 8
    usage = shutil.disk_usage(tmp_path)
    before = tree(tmp_path)
    command = ["pack", str(tmp_path / "dump"), str(tmp_path / "pack"), "--quiet"]
    free = n_new * row - 1
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=free))
    assert main(command) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"Error: Output {tmp_path / 'pack'} needs 0.0 MB, but 0.0 MB are free")
    assert tree(tmp_path) == before
    assert not (tmp_path / ".pack.partial").exists()
    free += 1
    assert main(command) == 0


def test_rows_too_large_for_the_disk_are_refused_before_they_are_read(tmp_path, monkeypatch):
    write_folder(tmp_path / "dump", 6, compress=False)
    acts = load_activations(tmp_path / "dump")[1:5]
    for number in range(6):
        damage(tmp_path / "dump" / f"sentence_{number:06d}.npz", "hidden_states")
    usage = shutil.disk_usage(tmp_path)
    free = 4 * (4 * (5 + 3 * 7) + 3 * 8) - 1
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=free))
    with pytest.raises(OutputError, match=r"Output .*pack needs 0\.0 MB, but 0\.0 MB are free"):
        acts.to_pack(tmp_path / "pack")
    assert os.listdir(tmp_path) == ["dump"]


# --- outputs that cannot be ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A folder and a pack of the same files, CSVs, and links to all of it."""
    path = tmp_path_factory.mktemp("original")
    write_folder(path / "dump", 60, n_features=4)
    build_pack(SentenceFolder(path / "dump"), path / "pack")
    lines = [f"{i},{i % 2},{i}" for i in range(60)]
    (path / "labels.csv").write_text("\n".join(["sentence_index,label,group", *lines]))
    (path / "features.csv").write_text("layer,feature_id\n1,3\n")
    (path / "link").symlink_to("dump")
    (path / "link.csv").symlink_to("labels.csv")
    (path / "out").mkdir()
    return path


@pytest.fixture
def place(original, tmp_path, monkeypatch):
    """A copy of it, where the test works."""
    shutil.copytree(original, tmp_path, symlinks=True, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


GENERATE = "generate --strategy hidden-to-concept --layer 1 --input"
SWEEP = "sweep dump --layers 0 --cv 2"


@pytest.mark.parametrize(
    "command",
    [
        f"{GENERATE} dump --output dump/sentence_000003.npz",
        f"{GENERATE} dump --output dump/sentence_new.npz",
        f"{GENERATE} link --output dump/sentence_000003.npz",
        f"{GENERATE} dump --output link/sentence_000003.npz",
        f"{GENERATE} dump --output out/../dump/sentence_000003.npz",
        f"{GENERATE} pack --output pack/manifest.json",
        f"{GENERATE} pack --output pack/hidden_states/L1.npy",
        f"{GENERATE} pack --output pack/new.npy",
        f"{GENERATE} pack --input dump --output {{input}}/sentence_x.npz",
        f"{GENERATE} dump --labels labels.csv --output labels.csv",
        f"{GENERATE} dump --labels link.csv --output labels.csv",
        f"{GENERATE} dump --groups labels.csv --output ./labels.csv",
        "generate --strategy hidden-to-feature --input dump --features-from features.csv"
        " --output features.csv",
        f"{SWEEP} --output dump/sentence_000001.npz",
        f"{SWEEP} --labels labels.csv --output labels.csv",
        f"{SWEEP} --groups labels.csv --plot labels.csv",
        "sweep pack --layers 0 --cv 2 --output pack/labels.npy",
        "inspect dump --audit --groups-out dump/sentence_000001.npz",
        "inspect pack --audit --groups-out pack/manifest.json",
    ],
)
def test_an_output_that_is_an_input_is_refused_before_the_work(place, capsys, command):
    before = tree(place)
    assert main(command.split()) == 2
    err = capsys.readouterr().err
    assert "would overwrite or become part of the input " in err
    assert err.startswith("Error: Output ")
    assert err.count("\n") == 1
    assert tree(place) == before


@pytest.mark.parametrize(
    "command",
    [
        f"{GENERATE} dump --output dump/h1.npz --quiet",
        f"{GENERATE} pack --output pack/h1.npz --quiet",
        f"{GENERATE} dump --output out/sentence_h1.npz --quiet",
        f"{GENERATE} pack --output dump/sentence_h1.npz --quiet",
    ],
)
def test_an_output_beside_the_inputs_is_fine(place, command):
    assert main(command.split()) == 0
    assert main([*command.split(), "--force"]) == 0


def test_two_outputs_of_one_name_are_refused(place, capsys):
    assert main([*SWEEP.split(), "--output", "out/s.png", "--plot", "out/../out/s.png"]) == 2
    assert capsys.readouterr().err == (
        "Error: Output out/../out/s.png is given twice; give each output a different name.\n"
    )


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("out", "Output out is a folder; name a file, such as out/x.npz."),
        ("labels.csv/x.npz", "cannot be written: labels.csv is a file, not a folder."),
        ("a" * 300 + "/x.npz", "cannot be written (File name too long)."),
        ("a" * 300, "cannot be written (File name too long)."),
        ("loop/x.npz", "cannot be written: loop is a link to nothing, not a folder."),
    ],
)
@pytest.mark.parametrize("command", [f"{GENERATE} dump --output", f"{SWEEP} --output", "pack dump"])
def test_an_output_that_cannot_be_written_is_refused_before_the_work(
    place, capsys, command, output, message
):
    (place / "loop").symlink_to("loop")
    if command == "pack dump" and output == "out":
        output, message = "labels.csv", "labels.csv is a file, not a folder."
    before = tree(place)
    assert main([*command.split(), output]) == 2
    err = capsys.readouterr().err
    assert err.startswith("Error: ")
    assert message in err
    assert err.count("\n") == 1
    assert tree(place) == before


def test_a_pack_is_not_written_over_the_folder_it_is_made_from(place, capsys):
    before = tree(place)
    for output in ("dump", "link", "."):
        assert main(["pack", "dump", output]) == 2
        assert capsys.readouterr().err == (
            f"Error: {output} exists and is not a pack; name a folder that does not exist yet.\n"
        )
    assert tree(place) == before


READ_ONLY = """
import importlib, os, pkgutil, sys
import joblib, sklprep
for module in pkgutil.walk_packages(sklprep.__path__, "sklprep."):  # nobody may not read them
    importlib.import_module(module.name)
from sklprep.cli.main import main
os.chdir(sys.argv[1])
if os.geteuid() == 0:  # root may write everywhere, nobody may not
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
sys.stderr = sys.stdout
for command in sys.argv[2:]:
    print(main(command.split()))
"""


def test_a_read_only_place_is_refused_before_the_work(place, run_python):
    for path in (*place.rglob("*"), place):
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = tree(place)
    said = run_python(
        READ_ONLY,
        place,
        f"{GENERATE} dump --output out/x.npz",
        f"{GENERATE} dump --output new/x.npz",
        f"{SWEEP} --output out/s.csv",
        "inspect dump --audit --groups-out g.csv",
        "pack dump new",
    )
    lines = said.splitlines()
    assert lines[1::2] == ["2"] * 5
    outputs = ("out/x.npz", "new/x.npz", "out/s.csv", "g.csv", "new/manifest.json")
    for line, output in zip(lines[::2], outputs, strict=True):
        assert line.startswith(f"Error: Output {output} cannot be written: folder ")
        assert line.endswith("is read-only for you.")
    assert tree(place) == before
    for path in (place, *place.rglob("*")):
        path.chmod(0o755)


def test_nothing_is_read_before_an_output_is_refused(tmp_path, capsys):
    for command in (
        ["generate", "--strategy", "embedding-to-concept", "--input", "/nowhere", "--output"],
        ["sweep", "/nowhere", "--output"],
        ["inspect", "/nowhere", "--audit", "--groups-out"],
    ):
        assert main([*command, str(tmp_path)]) == 2
        assert f"Output {tmp_path} is a folder" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["open", "fdopen"])
def test_an_interrupt_as_soon_as_the_file_is_there_leaves_nothing(tmp_path, monkeypatch, name):
    call = getattr(os, name)

    def interrupted(target, *arguments):
        result = call(target, *arguments)
        if name == "fdopen":
            result.close()  # nobody has it: the signal comes before it is assigned
            raise KeyboardInterrupt
        if arguments[0] & os.O_CREAT:
            os.close(result)
            raise KeyboardInterrupt
        return result

    monkeypatch.setattr(os, name, interrupted)
    with pytest.raises(KeyboardInterrupt), atomic_write(tmp_path / "a.npz"):
        pass
    assert not list(tmp_path.iterdir())
