"""``python -m tests.fuzz``: run the parts, print a Markdown table; exit code 1 if any failed."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ..benchmarks.measure import describe_machine
from ..pages import write_between
from . import corpus, flips, full_disks, kills, malicious, mutants, semantics, writers
from .table import HEAD, Row, Run

PARTS: dict[str, Callable[[Run], Iterator[Row]]] = {
    function.__name__: function
    for function in (
        mutants.mutated_sentences,
        mutants.mutated_packs,
        mutants.mutated_datasets,
        mutants.mutated_dumps,
        semantics.semantic_faults,
        corpus.corpus,
        flips.flipped_sentences,
        flips.flipped_packs,
        flips.flipped_datasets,
        malicious.malicious_pipelines,
        malicious.mutated_pipelines,
        writers.concurrent_writers,
        writers.concurrent_packers,
        full_disks.full_disk,
        full_disks.full_quota,
        kills.killed_generate,
        kills.killed_pack,
    )
}
SEED = 20_250_726


def main(argv: Sequence[str] | None = None) -> int:
    """Run the parts asked for, print the table row by row and every fault on stderr."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz",
        description="Break files, disks and processes, and see whether anything is lost.",
        epilog="parts:\n" + "\n".join(f"  {name:<20}{run.__doc__}" for name, run in PARTS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--short", action="store_true", help="fewer cases, for every commit")
    parser.add_argument("--only", nargs="+", choices=PARTS, metavar="NAME", help="run just these")
    parser.add_argument("--seed", type=int, default=SEED, metavar="N", help="default: %(default)s")
    parser.add_argument("--case", type=int, metavar="N", help="run one case of one part again")
    parser.add_argument("--page", type=Path, metavar="FILE", help="write the table into a page")
    arguments = parser.parse_args(argv)
    parts = arguments.only or list(PARTS)
    if arguments.case is not None and len(parts) > 1:
        parser.error("--case needs --only with one part")
    ran_on = f"Seed {arguments.seed}; measured on {describe_machine()}."
    print(f"{ran_on}\n\n{HEAD}", flush=True)
    table, failed = [HEAD], False
    with tempfile.TemporaryDirectory(prefix="sklprep_fuzz_") as scratch:
        run = Run(
            arguments.seed,
            arguments.short,
            Path(scratch).resolve(),
            len(os.sched_getaffinity(0)),
            lambda fault: print(f"\n{fault}", file=sys.stderr, flush=True),
            arguments.case,
        )
        for part in parts:
            for row in PARTS[part](run):
                print(row, flush=True)
                table.append(str(row))
                failed |= bool(row.faults)
    if arguments.page is not None:
        write_between(arguments.page, "fuzz", "\n".join([*table, "", ran_on]))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
