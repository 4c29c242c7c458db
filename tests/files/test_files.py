"""The safe NPZ reader and atomic writing: sound files to the bit, bad ones with one clear error."""

import contextlib
import io
import itertools
import os
import re
import signal
import struct
import subprocess
import sys
import threading
import time
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from forged_files import (
    BAD_ARCHIVES,
    BAD_ENTRIES,
    BAD_MEMBERS,
    SOUND,
    archive,
    bomb,
    deflate,
    deflated,
    forged_npy,
    header_text,
    npy,
    stored,
)

from sklprep.exceptions import FileFormatError, OutputError
from sklprep.files.atomic import atomic_write, require_writable
from sklprep.files.npz_reader import NpzReader
from sklprep.files.npz_writer import write_npz

as_user = pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write everything")


def write(path, content):
    path.write_bytes(content)
    return path


def assert_one_line_about(error, path, *parts):
    assert str(error.value).startswith(f"{path}: ")
    for part in parts:
        assert part in str(error.value)
    assert "; expected " in str(error.value)
    assert len(str(error.value).splitlines()) == 1
    assert len(str(error.value)) < 500


def read_everything(path):
    with NpzReader(path) as reader:
        return {name: reader.array(name) for name in reader.members}


def bytes_read():
    with open("/proc/self/io") as file:
        return int(file.readline().split()[1])


# --- sound files --------------------------------------------------------------------------------


def assorted_arrays():
    rng = np.random.default_rng(0)
    return {
        "float16": rng.normal(size=(3, 4)).astype(np.float16),
        "float32": rng.normal(size=(5, 1, 2)).astype(np.float32),
        "float64": rng.normal(size=7),
        "special": np.array([np.nan, -np.nan, np.inf, -np.inf, -0.0, 5e-324]),
        **{
            f"{kind}{bits}": rng.integers(0, 100, size=(2, 3)).astype(f"{kind}{bits}")
            for kind in ("int", "uint")
            for bits in (8, 16, 32, 64)
        },
        "bool": rng.random((4, 5)) < 0.5,
        "zero_d_int": np.array(-(2**62) - 1),
        "zero_d_float": np.array(0.1),
        "zero_d_text": np.array("wörld ✓ 🎉"),
        "empty_text": np.array(""),
        "texts": np.array([["a", "longer"], ["", "✓"]]),
        "no_rows": np.zeros((0, 5), np.float32),
        "no_width": np.zeros((3, 0)),
        "empty": np.zeros(0, np.int64),
        "one_wide": np.zeros((1, 1, 1, 1, 1)),
        "strided": np.arange(20)[::3],
        "name with spaces é": np.arange(3),
        "megabytes": rng.normal(size=(700, 1000)).astype(np.float32),
        "megabytes_of_zeros": np.zeros((26, 20, 2048), np.float32),
        "megabytes_of_text": np.array(["x" * 300_000, "y"]),
        "in_one_byte": np.full(700_001, 3, np.uint8),
    }


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_every_kind_of_array_is_read_as_numpy_reads_it_to_the_bit(tmp_path, save):
    path = tmp_path / "all.npz"
    save(path, **assorted_arrays())
    with np.load(path, allow_pickle=False) as expected, NpzReader(path) as reader:
        assert list(reader.members) == expected.files
        for name in expected.files:
            header, actual = reader.header(name), reader.array(name)
            assert (header.dtype, header.shape) == (expected[name].dtype, expected[name].shape)
            assert actual.dtype == expected[name].dtype
            assert actual.shape == expected[name].shape
            assert actual.tobytes() == expected[name].tobytes(), name


@pytest.mark.parametrize("level", [1, 6, 9])
def test_deflated_members_of_every_length_around_a_piece_are_read(tmp_path, level):
    # What the inflater holds back when its input ends must still be asked for.
    for megabit in (1 << 18, 1 << 19):
        for more in range(-24, 160, 4):
            raw = npy(np.ones((megabit + more - 128) // 4, np.float32))
            path = write(
                tmp_path / "a.npz", archive(replace(deflated(raw), packed=deflate(raw, level)))
            )
            with np.load(path) as expected, NpzReader(path) as reader:
                np.testing.assert_array_equal(expected["a"], reader.array("a"), err_msg=str(more))


@pytest.mark.parametrize("version", [1, 2, 3])
def test_headers_of_all_three_versions_are_read(tmp_path, version):
    raw = forged_npy(header_text(), b"\0\0\x80\x3f\0\0\0\x40", version)
    path = write(tmp_path / "a.npz", archive(stored(raw)))
    assert read_everything(path)["a"].tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    "more", ["comment", "trailing junk", "zip64", "data descriptors", "symlink"]
)
def test_unusual_but_sound_archives_are_read(tmp_path, more):
    path = tmp_path / "a.npz"
    raw = npy(np.arange(1000))
    if more == "comment":
        write(path, archive(stored(raw), comment=b"made by hand, PK and all"))
    elif more == "trailing junk":
        write(path, archive(stored(raw)) + b"junk" * 256)
    elif more == "zip64":
        with (
            zipfile.ZipFile(path, "w") as zipped,
            zipped.open("a.npy", "w", force_zip64=True) as file,
        ):
            file.write(raw)
    elif more == "data descriptors":

        class Stream(io.RawIOBase):
            content = b""

            def writable(self):
                return True

            def write(self, piece):
                Stream.content += bytes(piece)
                return len(piece)

        with zipfile.ZipFile(Stream(), "w", zipfile.ZIP_DEFLATED) as zipped:
            zipped.writestr("a.npy", raw)
        assert b"PK\x07\x08" in Stream.content
        write(path, Stream.content)
    else:
        path.symlink_to(write(tmp_path / "elsewhere", archive(deflated(raw))))
    np.testing.assert_array_equal(np.arange(1000), read_everything(path)["a"])


def test_64_members_are_read_and_65_refused(tmp_path):
    np.savez(tmp_path / "64.npz", **{f"a{i}": np.array(i) for i in range(64)})
    assert [int(value) for value in read_everything(tmp_path / "64.npz").values()] == [*range(64)]
    np.savez(tmp_path / "65.npz", **{f"a{i}": np.array(i) for i in range(65)})
    with pytest.raises(FileFormatError, match="has 65 members; expected at most 64"):
        NpzReader(tmp_path / "65.npz")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_header_reads_the_header_and_not_the_data(tmp_path, save):
    path = tmp_path / "a.npz"
    values = np.random.default_rng(0).random((300, 2500))
    save(path, a=values)
    with NpzReader(path) as reader:
        before = bytes_read()
        header = reader.header("a")
        assert bytes_read() - before < 400_000 < path.stat().st_size / 10
    assert (header.shape, header.dtype) == (values.shape, values.dtype)
    assert header.row_bytes == 20_000


def test_a_member_that_is_not_there_is_named_beside_those_that_are(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, some=1, other=2)
    with NpzReader(path) as reader:
        for read in (reader.array, reader.header, lambda name: list(reader.blocks(name, []))):
            with pytest.raises(FileFormatError) as error:
                read("absent")
            assert_one_line_about(error, path, "member 'absent' is missing", "some, other")


def test_an_array_larger_than_makes_sense_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, a=np.random.default_rng(0).random(1_000_000))
    with NpzReader(path) as reader:
        before = bytes_read()
        with pytest.raises(FileFormatError) as error:
            reader.array("a", max_bytes=7_999_999)
        assert bytes_read() - before < path.stat().st_size / 10
        assert_one_line_about(error, path, "'a' has 8,000,000 bytes; expected at most 7,999,999")
        assert reader.array("a", max_bytes=8_000_000).shape == (1_000_000,)


def test_a_closed_reader_has_let_go_of_the_file(tmp_path):
    def open_files():
        links = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
        return [path for path in links if os.path.realpath(path).startswith(str(tmp_path))]

    np.savez(tmp_path / "a.npz", a=1)
    with NpzReader(tmp_path / "a.npz") as reader:
        reader.array("a")
        assert len(open_files()) == 1
    reader.close()
    assert open_files() == []
    for bad in (b"", b"text", archive()[:-1]):
        with pytest.raises(FileFormatError) as error:
            NpzReader(write(tmp_path / "bad.npz", bad))
        assert open_files() == [], error


# --- rows in blocks -----------------------------------------------------------------------------

WIDTHS = [
    ((3, 40, 1), np.float16),
    ((2, 3, 777), np.float64),
    ((4, 5, 40_001), np.float16),  # rows that straddle pieces of 256 KiB
    ((7, 70_000), np.float32),  # rows wider than a piece
    ((3, 400_000), np.float32),  # rows wider than a block
    ((999_999,), np.uint8),
]


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize(("shape", "dtype"), WIDTHS)
def test_blocks_are_the_slices_of_the_rows_asked_for(tmp_path, save, shape, dtype):
    rng = np.random.default_rng(len(shape))
    values = (rng.random(shape) * 9 * (rng.random(shape) < 0.3)).astype(dtype)
    path = tmp_path / "a.npz"
    save(path, before=np.arange(5), a=values, after=np.ones(3))
    rows = values.reshape(-1, shape[-1])
    with NpzReader(path) as reader:
        for trial in range(8):
            n_ranges = int(rng.integers(0, min(4, len(rows) // 2) + 1)) if trial else 1
            ends = np.sort(rng.choice(len(rows) + 1, 2 * n_ranges, replace=False))
            ranges = (
                [(int(a), int(b)) for a, b in ends.reshape(-1, 2)] if trial else [(0, len(rows))]
            )
            got = np.zeros(len(rows), int)
            for first, block in reader.blocks("a", ranges):
                assert len(block) == 1 or block.nbytes <= 1 << 20
                assert any(a <= first and first + len(block) <= b for a, b in ranges)
                assert block.dtype == dtype
                np.testing.assert_array_equal(rows[first : first + len(block)], block)
                got[first : first + len(block)] += 1
            expected = np.zeros(len(rows), int)
            for a, b in ranges:
                expected[a:b] = 1
            np.testing.assert_array_equal(expected, got, err_msg=f"trial {trial}: {ranges}")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_blocks_check_what_lies_behind_the_rows_asked_for(tmp_path, save):
    path = tmp_path / "a.npz"
    save(path, a=np.random.default_rng(0).random((100, 1000)))
    with zipfile.ZipFile(path) as zipped:
        entry = zipped.getinfo("a.npy")
    content = bytearray(path.read_bytes())
    content[entry.header_offset + entry.compress_size - 1000] ^= 1
    write(path, content)
    with NpzReader(path) as reader, pytest.raises(FileFormatError) as error:
        list(reader.blocks("a", [(0, 1)]))
    assert_one_line_about(error, path, "'a'", "The file is damaged")


# --- damage -------------------------------------------------------------------------------------


def outcome(path, expected):
    """Read all members of a damaged file; anything but right values or our error fails."""
    refusals = []
    try:
        with NpzReader(path) as reader:
            for name, values in expected.items():
                try:
                    actual = reader.array(name)
                    n_rows = values.size // values.shape[-1]
                    rows = [block.tobytes() for _, block in reader.blocks(name, [(0, n_rows)])]
                except FileFormatError as error:
                    refusals.append(str(error))
                    continue
                assert actual.dtype == values.dtype
                assert actual.tobytes() == values.tobytes()
                assert b"".join(rows) == values.tobytes()
    except FileFormatError as error:
        refusals.append(str(error))
    for message in refusals:
        assert len(message.splitlines()) == 1
    return "refused" if refusals else "right"


def damaged_sample(tmp_path, save):
    rng = np.random.default_rng(5)
    arrays = {
        "floats": (rng.random((6, 30)) * (rng.random((6, 30)) < 0.5)).astype(np.float32),
        "flags": rng.random(20) < 0.5,
        "texts": np.array(["some words", "ünïcode"]),
    }
    save(tmp_path / "sound.npz", **arrays)
    content = (tmp_path / "sound.npz").read_bytes()
    assert outcome(tmp_path / "sound.npz", arrays) == "right"
    return arrays, content


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_flipped_bit_is_noticed_or_harmless(tmp_path, save):
    arrays, content = damaged_sample(tmp_path, save)
    rng = np.random.default_rng(6)
    results = []
    for trial, bit in enumerate(rng.choice(8 * len(content), 250, replace=False).tolist()):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        try:
            results.append(outcome(write(tmp_path / "flipped.npz", flipped), arrays))
        except Exception as error:
            raise AssertionError(f"seed 6, trial {trial}, bit {bit}") from error
    assert results.count("refused") > 120


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_file_cut_short_or_scrambled_is_refused_or_right(tmp_path, save):
    arrays, content = damaged_sample(tmp_path, save)
    rng = np.random.default_rng(7)
    for trial in range(160):
        a, b = np.sort(rng.choice(len(content), 2, replace=False)).tolist()
        kind = ("cut", "hole", "noise", "repeat")[trial % 4]
        if kind == "cut":
            scrambled = content[:a]
        elif kind == "hole":
            scrambled = content[:a] + content[b:]
        elif kind == "noise":
            scrambled = content[:a] + rng.bytes(min(b - a, 20)) + content[min(b, a + 20) :]
        else:
            scrambled = content[:b] + content[a:]
        try:
            outcome(write(tmp_path / "scrambled.npz", scrambled), arrays)
        except Exception as error:
            raise AssertionError(f"seed 7, trial {trial}, {kind}") from error


# --- what numpy.load does with bad files, and what we do ----------------------------------------


@pytest.mark.parametrize("pack", [stored, deflated])
@pytest.mark.parametrize(("raw", "found"), BAD_MEMBERS.values(), ids=BAD_MEMBERS)
def test_a_bad_member_is_refused_by_name(tmp_path, raw, found, pack):
    path = write(tmp_path / "bad.npz", archive(stored(npy(1.5), b"good.npy"), pack(raw)))
    with NpzReader(path) as reader:
        assert reader.array("good") == 1.5
        with pytest.raises(FileFormatError) as error:
            reader.array("a")
        assert_one_line_about(error, path, "member 'a'", found)
        if "0 and 1" not in found and "beyond unicode" not in found:  # sound but for its values
            with pytest.raises(FileFormatError):
                reader.header("a")
            with pytest.raises(FileFormatError):
                list(reader.blocks("a", [(0, 1)]))


@pytest.mark.parametrize(("entry", "found"), BAD_ENTRIES.values(), ids=BAD_ENTRIES)
def test_a_member_that_is_not_what_its_entry_claims_is_refused(tmp_path, entry, found):
    path = write(tmp_path / "bad.npz", archive(entry))
    with NpzReader(path) as reader, pytest.raises(FileFormatError) as error:
        reader.array("a")
    assert_one_line_about(error, path, "member 'a'", found)


def zip64(count):
    """An archive of two members whose end record leaves their number to the zip64 one."""
    content = archive(stored(SOUND), stored(SOUND, b"b.npy"))
    body, end = content[:-22], content[-22:]
    _, _, _, _, _, size, offset, _ = struct.unpack("<4s4H2IH", end)
    record = struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, size, offset)
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, len(body), 1)
    return body + record + locator + end[:8] + struct.pack("<2H", 0xFFFF, 0xFFFF) + end[12:]


def test_an_archive_may_leave_the_number_of_members_to_its_zip64_record(tmp_path):
    assert [*read_everything(write(tmp_path / "a.npz", zip64(2)))] == ["a", "b"]
    with pytest.raises(FileFormatError, match="has 2 members in its zip directory; expected 3, as"):
        NpzReader(write(tmp_path / "b.npz", zip64(3)))


def test_no_change_of_one_byte_hides_a_member(tmp_path):
    """A length that swallows the next entries of the directory: `zipfile` finds nothing wrong."""
    np.savez(tmp_path / "sound.npz", a=1, b=2, c=3, d=4)
    content = (tmp_path / "sound.npz").read_bytes()
    starts = [match.start() for match in re.finditer(b"PK\1\2", content)]
    hidden = 0
    for start, length_at, swallowed in itertools.product(starts, (28, 30, 32), (1, 2, 3)):
        changed = bytearray(content)
        changed[start + length_at] += swallowed * (starts[1] - starts[0])
        path = write(tmp_path / "changed.npz", changed)
        with contextlib.suppress(zipfile.BadZipFile), zipfile.ZipFile(path) as zipped:
            hidden += len(zipped.namelist()) < len(starts)
        with contextlib.suppress(FileFormatError), NpzReader(path) as reader:
            assert [*reader.members] == ["a", "b", "c", "d"]
    assert hidden > 10


@pytest.mark.parametrize(("content", "found"), BAD_ARCHIVES.values(), ids=BAD_ARCHIVES)
def test_a_bad_archive_is_refused_when_it_is_opened(tmp_path, content, found):
    path = write(tmp_path / "bad.npz", content)
    with pytest.raises(FileFormatError) as error:
        NpzReader(path)
    assert_one_line_about(error, path, found)


def test_what_is_not_there_or_not_ours_raises_the_errors_of_the_system(tmp_path):
    with pytest.raises(FileNotFoundError):
        NpzReader(tmp_path / "absent.npz")
    (tmp_path / "dangling.npz").symlink_to(tmp_path / "absent.npz")
    with pytest.raises(FileNotFoundError):
        NpzReader(tmp_path / "dangling.npz")
    (tmp_path / "loop.npz").symlink_to(tmp_path / "loop.npz")
    with pytest.raises(OSError, match="symbolic links"):
        NpzReader(tmp_path / "loop.npz")


@as_user
def test_a_file_without_permission_raises_permission_error(tmp_path):
    np.savez(tmp_path / "a.npz", a=1)
    (tmp_path / "a.npz").chmod(0)
    with pytest.raises(PermissionError):
        NpzReader(tmp_path / "a.npz")


def test_folders_pipes_and_devices_are_refused_without_being_read(tmp_path, run_python):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "null").symlink_to("/dev/null")
    code = """
from sklprep.files.npz_reader import NpzReader
before = peak()
for path in sys.argv[1:]:
    try:
        NpzReader(path)
    except Exception as error:
        print(type(error).__name__, error)
assert peak() - before < 20
"""
    paths = [tmp_path / name for name in ("folder", "pipe", "zero", "null")]
    assert run_python(code, *paths).splitlines() == [
        f"FileFormatError {path}: is not a regular file; expected an NPZ file." for path in paths
    ]


def test_the_memory_for_a_bomb_is_bounded(tmp_path, run_python):
    data = forged_npy(header_text("|u1", f"(300, {1 << 20})"))
    text = forged_npy(header_text(), version=2, length=300 << 20)
    liar = forged_npy(header_text("|u1", "(1000,)"))
    bombs = archive(
        bomb(b"data.npy", data, 300),
        bomb(b"header.npy", text, 300),
        replace(bomb(b"liar.npy", liar, 300), size=len(liar) + 1000),
    )
    write(tmp_path / "bomb.npz", bombs)
    code = """
import numpy as np
from sklprep.exceptions import FileFormatError
from sklprep.files.npz_reader import NpzReader
before = peak()
with NpzReader(sys.argv[1]) as reader:
    assert reader.header("data").shape == (300, 1 << 20)
    total = 0
    for row, block in reader.blocks("data", [(0, 2), (150, 170), (299, 300)]):
        assert not block.any()
        total += block.size
    assert total == 23 << 20
    for name in reader.members:
        try:
            reader.array(name, max_bytes=1 << 20)
        except FileFormatError as error:
            print(name, str(error).split(name, 1)[1])
assert peak() - before < 20, peak() - before
"""
    assert len(bombs) < 1_100_000
    said = run_python(code, tmp_path / "bomb.npz").splitlines()
    assert said[0].startswith("data ' has 314,572,800 bytes; expected at most 1,048,576")
    assert said[1].startswith("header ' has a header of 314,572,800 bytes; expected at most 4,096")
    assert said[2].startswith("liar ' inflates to a different size than its entry claims")


# --- writing ------------------------------------------------------------------------------------


@pytest.fixture
def old(tmp_path):
    """A file with old content, alone in its folder."""
    folder = tmp_path / "output"
    folder.mkdir()
    return write(folder / "data.npz", b"old")


def test_the_new_content_appears_whole_when_the_body_ends(old):
    with atomic_write(old) as file:
        file.write(b"new")
        file.flush()
        assert old.read_bytes() == b"old"
    assert old.read_bytes() == b"new"
    assert os.listdir(old.parent) == ["data.npz"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, GeneratorExit])
def test_the_old_content_stays_when_the_body_raises(old, error):
    def interrupted():
        with atomic_write(old) as file:
            file.write(b"half of the n")
            raise error

    with pytest.raises(error):
        interrupted()
    assert old.read_bytes() == b"old"
    assert os.listdir(old.parent) == ["data.npz"]


def test_nothing_appears_where_nothing_was_when_the_body_raises(tmp_path):
    with pytest.raises(ValueError, match="no"), atomic_write(tmp_path / "new.npz"):
        raise ValueError("no")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_the_mode_of_the_file_follows_the_umask(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        write_npz(tmp_path / "a.npz", {"a": 1})
    finally:
        os.umask(before)
    assert (tmp_path / "a.npz").stat().st_mode & 0o777 == mode


def test_the_file_and_then_the_folder_are_synced_to_disk(tmp_path, monkeypatch):
    synced = []
    fsync = os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda fd: (synced.append(os.readlink(f"/proc/self/fd/{fd}")), fsync(fd))
    )
    write_npz(tmp_path / "a.npz", {"a": 1})
    assert len(synced) == 2
    assert synced[0].startswith(f"{tmp_path}/.a.npz.")
    assert synced[1] == str(tmp_path)


def test_missing_folders_are_made(tmp_path):
    write_npz(tmp_path / "deep" / "er" / "a.npz", {"a": 1})
    assert read_everything(tmp_path / "deep/er/a.npz")["a"] == 1


def test_a_name_of_the_full_length_can_be_written(tmp_path):
    name = "🎉" * 63
    write_npz(tmp_path / name, {"a": 1})
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize("name", ["x", "x.NPZ", "x.bin", "x.npz.part", ".hidden"])
def test_no_suffix_is_appended(tmp_path, name):
    write_npz(tmp_path / name, {"a": [1, 2]})
    assert os.listdir(tmp_path) == [name]
    assert read_everything(tmp_path / name)["a"].tolist() == [1, 2]


@pytest.mark.parametrize("compress", [False, True])
def test_what_is_written_numpy_reads_back_to_the_bit(tmp_path, compress):
    arrays = assorted_arrays()
    write_npz(tmp_path / "a.npz", arrays, compress=compress)
    with zipfile.ZipFile(tmp_path / "a.npz") as zipped:
        methods = {entry.compress_type for entry in zipped.infolist()}
    assert methods == {zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED}
    with np.load(tmp_path / "a.npz", allow_pickle=False) as actual:
        assert actual.files == list(arrays)
        for name, values in arrays.items():
            assert actual[name].dtype == values.dtype
            assert actual[name].tobytes() == values.tobytes()


@pytest.mark.parametrize("compress", [False, True])
def test_the_same_arrays_give_the_same_bytes_at_any_time(tmp_path, monkeypatch, compress):
    for name, seconds in (("a", 1e9), ("b", 1.5e9)):
        monkeypatch.setattr(time, "time", lambda seconds=seconds: seconds)
        monkeypatch.setattr(time, "localtime", lambda *_, s=seconds, gmtime=time.gmtime: gmtime(s))
        write_npz(tmp_path / name, assorted_arrays(), compress=compress)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize(
    "values",
    [
        np.array([None, 1]),
        [{"a": 1}],
        None,
        np.zeros(2, [("x", "O")]),
        [[1], [2, 3]],
    ],
    ids=["array", "dict", "None", "struct", "ragged"],
)
def test_object_arrays_are_refused_before_anything_is_written(old, values):
    with pytest.raises(OutputError, match=r"data\.npz: 'bad' is an object array"):
        write_npz(old, {"good": 1, "bad": values})
    assert old.read_bytes() == b"old"
    assert os.listdir(old.parent) == ["data.npz"]


def test_an_output_that_cannot_be_is_refused_before_the_work(old):
    folder = old.parent
    with pytest.raises(OutputError, match=r"Output .* is a folder; name a file, such as .*x\.npz"):
        require_writable(folder)
    for below in (old / "a.npz", old / "deep" / "er" / "a.npz"):
        with pytest.raises(
            OutputError, match=r"Output .* cannot be written: .*data\.npz is a file"
        ):
            require_writable(below)
        with pytest.raises(OutputError, match="is a file"):
            write_npz(below, {"a": 1})
    require_writable(str(old))
    require_writable(folder / "new" / "a.npz")
    assert os.listdir(folder) == ["data.npz"]


def test_a_pipe_or_a_device_is_not_replaced_by_a_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "null").symlink_to("/dev/null")
    for name in ("pipe", "null"):
        with pytest.raises(OutputError, match=f"Output .*{name} is a pipe or a device"):
            write_npz(tmp_path / name, {"a": 1})
    assert sorted(os.listdir(tmp_path)) == ["null", "pipe"]


@as_user
def test_a_read_only_folder_is_refused(old):
    old.parent.chmod(0o500)
    with pytest.raises(OutputError, match="is read-only for you"):
        require_writable(old)


def test_two_writers_never_mix(tmp_path):
    path = tmp_path / "a.npz"

    def write_often(value):
        for _ in range(15):
            write_npz(path, {"X": np.full(5000, value), "y": np.full(50, value)})

    threads = [threading.Thread(target=write_often, args=(value,)) for value in range(3)]
    for thread in threads:
        thread.start()
    seen = set()
    while any(thread.is_alive() for thread in threads):
        if path.exists():
            with np.load(path) as content:
                seen.add((*np.unique(content["X"]), *np.unique(content["y"])))
    assert seen <= {(value, value) for value in range(3)}
    assert os.listdir(tmp_path) == ["a.npz"]


KILLED = """
import sys
import numpy as np
from sklprep.files.atomic import atomic_write
from sklprep.files.npz_writer import write_npz
print("ready", flush=True)
if sys.argv[2] == "half":
    with atomic_write(sys.argv[1]) as file:
        file.write(b"half of the content" * 10_000)
        file.flush()
        print("half", flush=True)
        sys.stdin.read()
value = 0
while True:
    value += 1
    write_npz(sys.argv[1], {"X": np.full(500_000, value), "y": np.full(100, value)})
    print(value, flush=True)
"""


@pytest.mark.parametrize("moment", ["half", 0.0, 0.004, 0.013])
def test_a_kill_in_the_middle_leaves_a_whole_file(tmp_path, moment):
    path = tmp_path / "a.npz"
    write_npz(path, {"X": np.full(500_000, -1), "y": np.full(100, -1)})
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, path, str(moment)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "ready\n"
        assert process.stdout.readline() == ("half\n" if moment == "half" else "1\n")
        if moment != "half":
            time.sleep(moment)
        process.send_signal(signal.SIGKILL)
        finished = process.stdout.read().split()
    assert process.returncode == -signal.SIGKILL
    with np.load(path) as content:
        value = content["y"][0]
        assert (content["X"] == value).all()
        assert (content["y"] == value).all()
    if moment == "half":
        assert value == -1
    else:
        assert value >= int(finished[-1] if finished else 1)
