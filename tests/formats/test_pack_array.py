"""An array that grows: what plain numpy reads of it, and the digests of its segments."""

import hashlib

import numpy as np
import pytest

from sklprep.files.npy_file import NpyFile
from sklprep.formats.pack_array import ArrayWriter
from sklprep.formats.pack_manifest import ArrayEntry

SEGMENT = 64


def expected_digests(data):
    segments = [data[start : start + SEGMENT] for start in range(0, len(data), SEGMENT)]
    return [hashlib.sha256(segment).hexdigest() for segment in segments]


@pytest.mark.parametrize("steps", [(1, 5), (3, 2, 4), (7, 1), (0, 8), (16, 16), (1,) * 20])
@pytest.mark.parametrize("width", [1, 5, 16])
def test_an_array_that_grows_in_steps_is_the_array_and_its_segments_go_on(tmp_path, steps, width):
    values = np.random.default_rng(0).normal(size=(sum(steps), width)).astype("<f4")
    entry = ArrayEntry.of("<f4", (0, width))
    done = 0
    for n in steps:
        with ArrayWriter(tmp_path / "a.npy", entry, segment_bytes=SEGMENT) as writer:
            for row in values[done : done + n]:
                writer.append(row[None])
            writer.finish(sync=False)
            done += n
            entry = writer.entry()
        np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), values[:done])
        assert entry.shape == (done, width)
        assert list(entry.segments) == expected_digests(values[:done].tobytes())


def test_what_stands_behind_the_rows_that_count_is_written_over(tmp_path):
    with ArrayWriter(
        tmp_path / "a.npy", ArrayEntry.of("<i8", [0]), segment_bytes=SEGMENT
    ) as writer:
        writer.append(np.arange(50))
        writer.finish(sync=False)
    kept = ArrayEntry.of("<i8", [20], expected_digests(np.arange(20).tobytes()))
    with ArrayWriter(tmp_path / "a.npy", kept, segment_bytes=SEGMENT) as writer:
        writer.append(np.arange(100, 103))
        writer.finish(sync=False)
        entry = writer.entry()

    expected = np.array([*range(20), 100, 101, 102])
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), expected)
    assert list(entry.segments) == expected_digests(expected.tobytes())


@pytest.mark.parametrize("n_rows", [0, 1, 7, 8, 9, 40])
def test_pieces_are_those_that_the_digests_are_of(tmp_path, n_rows):
    np.save(tmp_path / "a.npy", np.arange(50))
    data = np.arange(n_rows).tobytes()
    with NpyFile(tmp_path / "a.npy", n_rows) as array:
        pieces = list(array.pieces(SEGMENT))
        assert b"".join(pieces) == data
        assert [hashlib.sha256(piece).hexdigest() for piece in pieces] == expected_digests(data)
        assert list(array.pieces(SEGMENT, last=True)) == pieces[-1:]
