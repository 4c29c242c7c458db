"""Commands to cut short: a dataset over an old one, a pack that grows, a pack from nothing."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sklprep
from sklprep.formats.pack_reader import Pack

from .answers import check_run, run_command
from .folders import content_of, write_all
from .workers import Fault

KINDS = ("dataset", "grown pack", "new pack")


@dataclass(frozen=True)
class Output:
    """A command, its output, and what a reader finds there before and after it.

    `files_before` and `files_after` hold every file of the output's folder by its path below that.
    """

    argv: list[str]
    output: Path
    files_before: dict[str, bytes]
    files_after: dict[str, bytes]
    before: Any
    after: Any

    @property
    def here(self) -> Path:
        """The folder of the output, which holds nothing else."""
        return self.output.parent

    def check_cut(self) -> str:
        """After a run was cut short, a reader finds the old output or the new one."""
        found = read_output(self.output)
        if found == self.after:
            return "new"
        if found == self.before:
            return "old"
        raise Fault("a reader finds neither the old nor the new output")

    def check_next(self) -> None:
        """After the run that follows there is what there would have been, and nothing else."""
        left = sorted(set(os.listdir(self.here)) - {self.output.name})
        if left:
            raise Fault(f"the next run left {left}")
        found = content_of(self.here)
        if found != self.files_after:
            others = found.keys() ^ self.files_after.keys()
            differ = [name for name in found if found[name] != self.files_after.get(name)]
            raise Fault(f"the next run made others: {sorted(others)}, {differ}")


def read_output(output: Path) -> Any:
    """All that a reader finds in a dataset or a pack; None where there is none."""
    if not output.is_dir():
        return output.read_bytes() if output.exists() else None
    pack = Pack(output, pooling=None)
    if faults := pack.verify():
        raise Fault(f"the pack does not verify: {faults}")
    acts = sklprep.load_activations(output)
    values = [acts.hidden_states, acts.embeddings, acts.labels, acts.sentence_indices]
    values += [array for m in acts.activations for array in (m.data, m.indices, m.indptr)]
    return pack.fingerprint, [value.tobytes() for value in values]


def make_files(scratch: Path) -> Path:
    """Sentence files to make datasets and packs of, once a run: all of them, and the first 40."""
    files = scratch / "files"
    if not files.exists():
        sklprep.make_activations(
            48,
            n_layers=6,
            d_model=4096,
            n_features=64,
            n_tokens=(2, 4),
            random_state=0,
            output=files,
        )
        fewer = scratch / "fewer" / "files"
        fewer.mkdir(parents=True)
        for path in sorted(files.iterdir())[:40]:
            shutil.copy(path, fewer)
    return files


def make_output(kind: str, files: Path, here: Path) -> Output:
    """Prepare one kind of output in a folder, by running its command to the end here and now."""
    write_all(here, {})
    if kind == "dataset":
        output = here / "out.npz"
        common = f"generate --strategy hidden-to-concept --force --output {output} --input {files}"
        argv, first = f"{common} --layers all", f"{common} --layers 0-1"
    else:
        output = here / "out"
        argv = f"pack {files} {output}"
        first = f"pack {files.parent / 'fewer' / files.name} {output}"
    if kind != "new pack":
        check_run(run_command([*first.split(), "--quiet", "--jobs", "1"]))
    files_before, before = content_of(here), read_output(output)
    check_run(run_command([*argv.split(), "--quiet", "--jobs", "1"]))
    of_one_job = [*argv.split(), "--jobs", "1"]
    return Output(of_one_job, output, files_before, content_of(here), before, read_output(output))
