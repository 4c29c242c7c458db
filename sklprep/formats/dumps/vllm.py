"""Hidden states that vLLM extracted: one safetensors file per request.

Each file has ``hidden_states`` (tokens, layers, width) and ``token_ids`` (tokens,), but does not
say which layers these are.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from sklprep.exceptions import FileFormatError, SklprepWarning
from sklprep.files.faults import faulty_files, file_fault
from sklprep.files.listing import list_files
from sklprep.files.npy_file import FLOATS
from sklprep.files.raw_array import BFLOAT16, RawArray
from sklprep.files.safetensors_file import is_safetensors, read_safetensors_header
from sklprep.formats.dumps.dump import Chain, Channel, Dump, Request, Sentences, Tokens
from sklprep.formats.dumps.keys import read_axis, require_numbers, say_mapping, shift
from sklprep.formats.dumps.safetensors_dump import SUFFIX
from sklprep.formats.sentence_file import MAX_WIDTH

_STATES, _IDS = "hidden_states", "token_ids"
_TRIED = 8
"""Files that are tried to recognize a folder, because the first ones may be damaged."""


def recognize(path: Path) -> bool:
    """Tell whether a path is such a file, or a folder of them."""
    for file in [path] if path.is_file() else list_files(path, SUFFIX)[:_TRIED]:
        try:
            header = read_safetensors_header(file) if is_safetensors(file) else None
        except (FileFormatError, OSError):
            continue
        if header is not None:
            return {_STATES, _IDS} <= header.tensors.keys()
    return False


def open_vllm(request: Request) -> Dump:
    """Open a folder of requests, each of which is a sentence.

    vLLM's layer id `k` is the input of block `k`, so it is the output of block `k - 1`, and 0 are
    the embeddings. The files do not hold ids: ``key="hidden_states[1,13,25]", layer_offset=-1``
    says that ``eagle_aux_hidden_state_layer_ids`` was ``[1, 13, 25]``, and gives layers 0, 12 and
    24.
    """
    path = request.path
    files = [path] if path.is_file() else list_files(path, SUFFIX)
    if not files:
        raise file_fault(path, None, f"holds no {SUFFIX} files", "one per request")
    states, faults = _read_headers(files)
    if faults and not (request.skip_bad and states):
        raise faulty_files(path, faults, len(files))
    arrays = list(states.values())
    n_layers = arrays[0].shape[1]
    numbers = read_axis(request.reading.key)[1] if request.reading.key is not None else None
    if numbers is None:
        numbers = list(range(n_layers))
        warnings.warn(
            f"{path} does not say which layers it holds: they are numbered by their positions. Give"
            f" their ids, for example key='hidden_states[1-{n_layers}]' with layer_offset=-1.",
            SklprepWarning,
            stacklevel=2,
        )
    require_numbers(path, _STATES, numbers, n_layers)
    offset = request.reading.layer_offset
    shift(numbers, offset, path)
    vectors = Chain(arrays, [array.n_vectors for array in arrays])
    channels = {
        number + offset: Channel(vectors, n_layers, position)
        for position, number in enumerate(numbers)
    }
    kept = list(states)
    return Dump(
        format="vllm",
        version="",
        path=path,
        mapping=say_mapping("hidden_states (tokens, layers, width)", numbers, offset),
        files=files,
        tokens=Tokens.of_lengths([array.shape[0] for array in arrays]),
        has_tokens=True,
        embeddings=channels.pop(-1, None),
        layers=channels,
        sentences=Sentences(file_names=np.array(kept)),
        left_out=faults,
    )


def _read_headers(
    files: list[Path],
) -> tuple[dict[str, RawArray], dict[str, FileFormatError]]:
    """Return the hidden states of each file, and the faults of the others."""
    states: dict[str, RawArray] = {}
    faults: dict[str, FileFormatError] = {}
    for file in files:
        try:
            states[file.name] = _find_states(file, read_safetensors_header(file).tensors)
        except FileFormatError as error:
            faults[file.name] = error
    most = Counter((array.shape[1:], array.dtype) for array in states.values()).most_common(1)
    for name, array in list(states.items()):
        if (array.shape[1:], array.dtype) != most[0][0]:
            del states[name]
            (n_layers, width), dtype = most[0][0]
            faults[name] = file_fault(
                array.path,
                _STATES,
                f"is {array.dtype} of shape {array.shape}",
                f"{dtype} of (tokens, {n_layers}, {width}), as in most files",
                "A folder must hold the files of one extraction; move the others out.",
            )
    return states, dict(sorted(faults.items()))


def _find_states(file: Path, tensors: Mapping[str, RawArray]) -> RawArray:
    array, ids = tensors.get(_STATES), tensors.get(_IDS)
    if array is None or len(array.shape) != 3 or array.dtype not in (*FLOATS, BFLOAT16):
        found = "is missing" if array is None else f"is {array.dtype} of shape {array.shape}"
        raise file_fault(file, _STATES, found, "floats of shape (tokens, layers, width)")
    if 0 in array.shape or array.width > MAX_WIDTH:
        expected = f"none empty, at most {MAX_WIDTH:,} wide"
        raise file_fault(file, _STATES, f"has shape {array.shape}", expected)
    if ids is not None and ids.shape != array.shape[:1]:
        raise file_fault(file, _IDS, f"has shape {ids.shape}", f"{array.shape[:1]}, one per token")
    return array
