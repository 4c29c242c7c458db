"""`sklprep pack`: a folder of arrays, read in place."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from sklprep.cli.arguments import add_common, add_joined, add_reading, add_skip_bad
from sklprep.cli.interrupts import ExplainedInterrupt
from sklprep.cli.messages import print_error
from sklprep.exceptions import DataError, UsageError

if TYPE_CHECKING:
    from sklprep.formats.pack_reader import Pack
    from sklprep.formats.source import Source


EXAMPLE = """\
# hidden states that a Hugging Face loop wrote, with their labels; then use the pack as INPUT
sklprep pack activations activations_pack --layer-offset -1 --labels labels.csv"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Write a folder of sentence files as a pack: plain arrays that are read in place; or add\n"
        "the folder's new files to its pack. After an interruption, the same command continues\n"
        "where it stopped; with a dump of another tool, --labels or --groups it starts again."
    )
    parser.set_defaults(run=_run)
    add = parser.add_argument
    add(
        "input",
        type=Path,
        metavar="INPUT",
        help="folder of sentence files, or dump of another tool; with --verify, --labels or"
        " --groups also a pack",
    )
    add("output", type=Path, nargs="?", metavar="OUT", help="folder of the pack to write")
    add("--verify", action="store_true", help="check every array against its digest")
    add_joined(parser)
    add_reading(parser)
    add_skip_bad(parser)
    add_common(parser, pooling=True)


def _run(arguments: argparse.Namespace) -> int:
    from sklprep.formats.pack_reader import is_pack

    new = ""
    if arguments.output is None:
        pack = _open_to_verify(arguments)
    elif is_pack(arguments.input) and not _joins(arguments):
        raise UsageError(
            f"{arguments.input} is a pack already: copy the folder, or give the sentence files it"
            f" was made from. sklprep pack {arguments.input} --verify checks its digests."
        )
    else:
        pack, new = _write(arguments)
    faults = pack.verify() if arguments.verify else []
    for fault in faults:
        print_error(fault, arguments.flags)
    if not arguments.quiet and not faults:
        verified = ", all digests match" if arguments.verify else ""
        n_sentences = pack.manifest.n_sentences
        rows = f"{pack.n_rows} rows, pooling {pack.pooling}"
        print(f"{pack.path}: {n_sentences} sentences, {rows}{new}{verified}")
    return 1 if faults else 0


def _joins(arguments: argparse.Namespace) -> bool:
    return arguments.labels is not None or arguments.groups is not None


def _open_to_verify(arguments: argparse.Namespace) -> Pack:
    from sklprep.formats.pack_manifest import MANIFEST
    from sklprep.formats.pack_reader import Pack, is_pack

    if not arguments.verify or _joins(arguments):
        source = shlex.quote(str(arguments.input))
        raise UsageError(
            "Give INPUT and OUT; only --verify takes a single path, that of a pack. For example:"
            f" sklprep pack {source} {source}_pack"
        )
    if not is_pack(arguments.input):
        raise DataError(
            f"{arguments.input} is not a pack: it has no {MANIFEST}. Check the path, or make a"
            f" pack with sklprep pack {arguments.input} OUT."
        )
    return Pack(arguments.input, pooling=None)


def _write(arguments: argparse.Namespace) -> tuple[Pack, str]:
    """Write the pack; give it, and if it existed before, a note of how much is new."""
    from sklprep.formats.dumps.dump import Reading, Request
    from sklprep.formats.opening import open_source
    from sklprep.formats.pack_reader import Pack, is_pack
    from sklprep.formats.pack_writer import build_pack, require_pack_output
    from sklprep.formats.sentence_folder import SentenceFolder

    require_pack_output(arguments.output)
    reading = Reading(arguments.format, arguments.key, arguments.layer_offset)
    source = open_source(
        Request(arguments.input, reading, arguments.pooling, arguments.skip_bad),
        n_jobs=arguments.jobs,
        progress=not arguments.quiet,
    )
    if not isinstance(source, SentenceFolder) or _joins(arguments):
        return _pack_in_one_go(source, arguments), ""
    n_before = 0
    if is_pack(arguments.output):
        n_before = Pack(arguments.output, pooling=None).manifest.n_sentences
    try:
        pack = build_pack(source, arguments.output, skip_bad=arguments.skip_bad)
    except KeyboardInterrupt:
        raise ExplainedInterrupt(
            "Interrupted; the same command continues where it stopped."
        ) from None
    n_new = pack.manifest.n_sentences - n_before
    return pack, f", {n_new or 'nothing'} new" if n_before else ""


def _pack_in_one_go(source: Source, arguments: argparse.Namespace) -> Pack:
    """Pack rows that are not just those of a folder of sentence files; such a pack cannot grow."""
    from sklprep.activations.activation_set import ActivationSet
    from sklprep.activations.loading import join_tables, leave_out_faulty, warn_of_left_out
    from sklprep.files.atomic import require_new_folder
    from sklprep.formats.pack_reader import Pack
    from sklprep.formats.source import all_members

    require_new_folder(arguments.output)
    acts = ActivationSet(join_tables(source, arguments.labels, arguments.groups))
    if arguments.skip_bad:
        acts = leave_out_faulty(acts, all_members(source), labels=None)
        warn_of_left_out(acts)
    acts.to_pack(arguments.output)
    return Pack(arguments.output, pooling=None)
