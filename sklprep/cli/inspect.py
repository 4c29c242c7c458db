"""`sklprep inspect`: what a sentence folder, pack, dump, dataset or probe holds, and its faults.

With ``--json`` one object is printed. Its keys are stable; later versions may add more.

For a sentence folder, a pack or a dump of another tool: ``kind`` ("sentence folder", "pack",
"dump"), ``format`` (name and version, which may be empty), ``mapping`` (which arrays of a dump
became which layers), ``path``, ``name``, ``n_bytes`` (on disk), ``fingerprint``, ``pooling``,
``n_sentences``, ``n_rows``, ``left_out`` (names of faulty files), ``labels`` (number of sentences
of each label; or null, and ``labels_fault`` says why), ``has_text``, ``tokens`` (min, median, max,
sum over sentences; null where a pack does not record it), ``embeddings``, ``hidden_states`` and
``activations`` (width and stored dtypes, or null), ``layers``, ``saes`` (layer and average_l0 of
each), ``values``.

``values`` is null with ``--quick``. It has ``embeddings`` (or null) and, for each layer,
``hidden_states``: min, max, median_peak (the peak of a dimension is its largest magnitude over the
rows), n_massive and the first ten ``massive`` (dimension and peak, where the peak exceeds 20 times
median_peak), n_constant, n_rows_not_finite; and for each SAE ``activations``: mean_active (features
per row), max, n_dead (active in no row), n_rare (in 1 to 9), n_always_on, median_active_rows (over
the features that are not dead), n_values_not_finite.

For a dataset: ``kind`` ("dataset"), ``path``, ``n_bytes``, ``n_rows``, ``n_groups``, ``X`` (shape,
dtype), ``y`` (shape, dtype, and labels, or min, max and n_active), ``strategy``, ``input`` (source,
layers, pooling), ``target`` (type, layer, feature, average_l0), ``split`` (n_train, n_test, or
null), ``norm``, ``pipeline`` (name and step of each, or null), ``provenance``, ``values`` (of X, as
for a layer).

For a probe: ``kind`` ("probe"), ``path``, ``n_bytes``, ``weight`` (its shape), and as the file has
them: ``layer``, ``layer_numbering``, ``pooling``, ``classes``, ``threshold``, ``score``,
``stability``, ``provenance``.

With ``--audit`` there is also ``findings``: a list of objects with code, what, why and do.
"""

from __future__ import annotations

import argparse
import json
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sklprep.cli.arguments import add_common, add_reading, add_skip_bad, one_layer
from sklprep.cli.messages import name_flags, printable
from sklprep.exceptions import UsageError
from sklprep.formats.layers import format_layers, name_layers

if TYPE_CHECKING:
    from sklprep.inspection.findings import Finding

EXAMPLE = """\
# what the folder holds, what would inflate a score, and groups that keep near-duplicates together
sklprep inspect dishonesty_100_features --audit --groups-out groups.csv"""

_FLAGS_OF_OTHERS = {"scoring": "--scoring", "labels": "--labels"}  # of generate and sweep
_MAY_BE_TUPLE = re.compile(r": hidden_states([._/]\{layer\}| \((rows|layers), .*\)) as layers? 0\b")
"""Mapping of a dump that may be the tuple of Hugging Face. That of vLLM starts with its tokens."""
_TUPLE_NOTE = "if layer 0 holds the embeddings, as in Hugging Face's tuple, give --layer-offset -1"
_SHORT = 16  # digits of a fingerprint: 64 bits tell folders apart


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Show what a folder of sentence files, a pack, a dump of another tool, a dataset or a\n"
        "probe holds; with --audit, also what would inflate or spoil a score on it."
    )
    parser.set_defaults(run=_run)
    add = parser.add_argument
    add(
        "path",
        type=Path,
        metavar="PATH",
        help="folder of sentence_*.npz files, pack, dump of another tool, dataset, or probe",
    )
    add("--quick", action="store_true", help="read only the headers, not the values")
    add("--json", action="store_true", help="print one JSON object")
    add(
        "--audit",
        action="store_true",
        help="look for duplicates, wrong labels, dead features and the like",
    )
    add(
        "--near",
        type=_text_or_layer,
        metavar="LAYER",
        help="find near-duplicates by the hidden states of this layer instead of by their text",
    )
    add(
        "--threshold",
        type=_cosine,
        metavar="COSINE",
        help="similarity from which sentences are near-duplicates; default: 0.7, or 0.95 with"
        " --near",
    )
    add("--groups-out", type=Path, metavar="CSV", help="write the proposed groups to this file")
    add_reading(parser)
    add_skip_bad(parser)
    add_common(parser, pooling=True)


def _text_or_layer(text: str) -> int | str:
    return text if text == "text" else one_layer(text)


def _cosine(text: str) -> float:
    number = float(text)
    if not 0 < number <= 1:
        raise ValueError
    return number


_cosine.__name__ = "cosine above 0 and up to 1"


def _run(arguments: argparse.Namespace) -> int:
    from sklprep.formats.outputs import require_safe_outputs

    for name in ("near", "threshold", "groups_out"):
        if getattr(arguments, name) is not None and not arguments.audit:
            raise UsageError(f"--{name.replace('_', '-')} needs --audit; give that too.")
    if arguments.audit and arguments.quick:
        raise UsageError("--audit needs the values that --quick leaves out; give one of them.")
    require_safe_outputs([arguments.groups_out], [arguments.path])
    path: Path = arguments.path
    facts: dict[str, Any] = {}
    for more in _choose(path, arguments.format)(arguments):
        facts |= more
        if not (arguments.quiet or arguments.json):
            print(printable("\n".join(_format(more))), flush=True)
    if arguments.json and not arguments.quiet:
        print(json.dumps(facts, indent=1, allow_nan=False))
    return 0


def _choose(path: Path, given: str | None) -> Callable[[argparse.Namespace], Iterator[Any]]:
    """Choose what inspects a path, by the format that was given or that it has."""
    from sklprep.probes.probe_file import is_probe

    if given is not None:
        return _inspect_activations
    if path.is_file() and is_probe(path):
        return _inspect_probe
    return _inspect_dataset if _is_dataset(path) else _inspect_activations


def _is_dataset(path: Path) -> bool:
    """Whether to take a path for a dataset: a file of no other format, or a missing .npz."""
    from sklprep.formats.conversions import is_pickled
    from sklprep.formats.dumps.table import find_format

    if not path.is_file():
        return not path.is_dir() and path.suffix == ".npz"
    return find_format(path) is None and not is_pickled(path)


def _inspect_activations(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield the facts as they become known."""
    from sklprep.activations.activation_set import ActivationSet
    from sklprep.activations.loading import warn_of_left_out
    from sklprep.formats.dumps.dump import Reading, Request
    from sklprep.formats.opening import open_source
    from sklprep.formats.pack_reader import Pack
    from sklprep.formats.rows import Rows
    from sklprep.formats.source import all_members
    from sklprep.inspection.describe import Scan, describe_activations, describe_values

    reading = Reading(arguments.format, arguments.key, arguments.layer_offset)
    source = open_source(
        Request(arguments.path, reading, arguments.pooling, arguments.skip_bad),
        n_jobs=arguments.jobs,
        progress=not arguments.quiet,
    )
    acts = ActivationSet(Rows(source))
    near = arguments.near or "text"
    if arguments.audit:
        from sklprep.inspection.audit import audit_activations, choose_threshold

        choose_threshold(acts, near, arguments.threshold)  # raises before the values are read

    if arguments.skip_bad and not isinstance(source, Pack):
        if not arguments.quick and acts.rows.folder is not None:
            faults = acts.rows.folder.find_faults(all_members(source), damage_only=True)
            acts = acts.without(faults)
        warn_of_left_out(acts)
    yield describe_activations(acts)
    if arguments.quick:
        return
    scan = Scan(acts, keep=None if isinstance(near, str) else near)
    yield {"values": describe_values(acts, scan)}
    if arguments.audit:
        audit = audit_activations(acts, near=near, threshold=arguments.threshold, scan=scan)
        if arguments.groups_out is not None:
            audit.save_groups(arguments.groups_out)
        yield {"findings": _as_facts(audit.findings, arguments.flags)}


def _inspect_dataset(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    from sklprep.datasets.dataset_file import peek_dataset
    from sklprep.inspection.dataset_audit import audit_dataset
    from sklprep.inspection.describe import describe_dataset, scan_dataset

    _refuse(
        arguments,
        ("near", "threshold", "groups_out", "pooling", "skip_bad", "key", "layer_offset"),
        "dataset",
    )
    dataset = peek_dataset(arguments.path)
    yield describe_dataset(dataset, arguments.path)
    if arguments.quick:
        return
    stats, digests = scan_dataset(arguments.path)
    yield {"values": stats.facts()}
    if arguments.audit:
        yield {"findings": _as_facts(audit_dataset(dataset, stats, digests), arguments.flags)}


def _inspect_probe(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    from sklprep.inspection.describe import describe_probe
    from sklprep.probes.probe_file import load_probe

    names = ("audit", "near", "threshold", "groups_out", "pooling", "skip_bad", "key")
    _refuse(arguments, (*names, "layer_offset"), "probe")
    yield describe_probe(load_probe(arguments.path), arguments.path)


def _refuse(arguments: argparse.Namespace, names: tuple[str, ...], kind: str) -> None:
    """Refuse flags that are for rows of activations."""
    for name in names:
        if getattr(arguments, name) not in (None, False):
            raise UsageError(
                f"--{name.replace('_', '-')} does not apply to a {kind}; give it with the folder"
                f" or pack that the {kind} was made from."
            )


def _as_facts(findings: list[Finding], flags: Mapping[str, str]) -> list[dict[str, str]]:
    """Make the findings as they are printed: advice names flags instead of parameters."""
    from dataclasses import asdict

    flags = {**flags, **_FLAGS_OF_OTHERS}
    grouped = "--groups-out groups.csv, then sweep --groups groups.csv"
    return [
        asdict(finding)
        | {"do": name_flags(finding.do.replace("groups=audit.groups", grouped), flags)}
        for finding in findings
    ]


def _format(facts: dict[str, Any]) -> Iterator[str]:
    if "findings" in facts:
        yield from _format_findings(facts["findings"])
    elif "kind" not in facts:
        yield from _format_values(facts["values"])
    elif facts["kind"] == "dataset":
        yield from _format_dataset(facts)
    elif facts["kind"] == "probe":
        yield from _format_probe(facts)
    else:
        yield from _format_activations(facts)


def _format_activations(facts: dict[str, Any]) -> Iterator[str]:
    from sklprep.notebook.words import format_counts

    yield f"{facts['path']}: {facts['kind']}, {_size(facts)}"
    if facts["mapping"]:
        version = facts["format"]["version"]
        yield _line("format", facts["format"]["name"] + (f" {version}" if version else ""))
        yield _line("mapping", facts["mapping"])
        if _MAY_BE_TUPLE.search(facts["mapping"]) and not facts["embeddings"]:
            yield _line("", _TUPLE_NOTE)
    rows = "one per sentence" if facts["n_rows"] == facts["n_sentences"] else "one per token"
    yield _line(
        "rows",
        f"{facts['n_rows']:,} ({rows}), pooling {facts['pooling']}"
        + ("" if facts["has_text"] else "; no text"),
    )
    if facts["left_out"]:
        names = facts["left_out"]
        yield _line("left out", f"{len(names):,} files, {names[0]} first")
    yield _line(
        "labels",
        f"none: {name_flags(facts['labels_fault'], _FLAGS_OF_OTHERS)}"
        if facts["labels"] is None
        else format_counts(facts["labels"]),
    )
    if facts["tokens"]:
        yield _line(
            "tokens", "{min} to {max} per sentence, median {median:g}".format(**facts["tokens"])
        )
    for member in ("embeddings", "hidden_states", "activations"):
        there = facts[member]
        what = "none"
        if there:
            what = f"{there['width']:,} wide, {' and '.join(there['dtypes'])}"
            if member == "hidden_states":
                what = f"layers {format_layers(facts['layers'])}, {what}"
            if member == "activations":
                saes = len(facts["saes"])
                what = f"{saes} SAE{'s' if saes > 1 else ''}, {what}, average_l0 {_l0s(facts)}"
        yield _line(member.replace("_", " "), what)
    yield _line("fingerprint", facts["fingerprint"][:_SHORT])


def _format_dataset(facts: dict[str, Any]) -> Iterator[str]:
    from sklprep.notebook.words import format_counts

    yield f"{facts['path']}: dataset, {_size(facts)}"
    source, layers = facts["input"]["source"], facts["input"]["layers"]
    where = f" of {_layers(layers)}" if layers else ""
    origin = "" if source is None else f": {str(source).replace('_', ' ')}{where}"
    pooling = facts["input"]["pooling"]
    yield _line("X", f"{_shape(facts['X'])}{origin}" + (f", pooling {pooling}" if pooling else ""))
    y, target = facts["y"], facts["target"]
    feature = ""
    if target["feature"] is not None:
        feature = ": feature {feature} of layer {layer} (average_l0 {average_l0})".format(**target)
    if y["labels"] is not None:
        values = f", {format_counts(y['labels'])}"
    else:
        values = f", {_number(y['min'])} to {_number(y['max'])}, not zero in {y['n_active']} rows"
    yield _line("y", f"{_shape(y)}{feature}{values}")
    groups = facts["n_groups"]
    yield _line(
        "rows",
        f"{facts['n_rows']:,}" + (f" in {groups:,} groups" if groups < facts["n_rows"] else ""),
    )
    if facts["split"]:
        yield _line("split", "fitted on {n_train} rows, {n_test} held out".format(**facts["split"]))
    yield _line("strategy", str(facts["strategy"] or "not recorded"))
    yield _line("normalized", str(facts["norm"] or "not recorded"))
    steps = facts["pipeline"]
    if steps is None:
        yield _line("pipeline", "none")
    for number, step in enumerate(steps or ()):
        yield _line("" if number else "pipeline", step["step"])
    provenance = facts["provenance"]
    if isinstance(provenance, dict):
        versions = provenance.get("versions")
        made_with = (
            ", ".join(f"{name} {version}" for name, version in versions.items())
            if isinstance(versions, dict)
            else "not recorded"
        )
        yield _line(
            "made from",
            f"{provenance.get('input')}, fingerprint"
            f" {str(provenance.get('fingerprint'))[:_SHORT]}, with {made_with}",
        )


def _format_probe(facts: dict[str, Any]) -> Iterator[str]:
    yield f"{facts['path']}: probe, {_size(facts)}"
    yield _line("weight", f"{tuple(facts['weight'])}, on raw activations")
    numbering = f" ({facts['layer_numbering']})" if facts["layer_numbering"] else ""
    yield _line("layer", f"{facts['layer']}{numbering}")
    yield _line("pooling", facts["pooling"] or "not recorded")
    if facts["classes"] is not None:
        two = facts["threshold"] is not None
        above = f"; the second for decisions above {facts['threshold']:.6g}" if two else ""
        yield _line("classes", f"{', '.join(map(str, facts['classes']))}{above}")
    score, stability, provenance = (facts[name] for name in ("score", "stability", "provenance"))
    yield _line("score", str(score.get("summary")) if score else "none")
    if stability and isinstance(mean := stability.get("mean"), float):
        yield _line("stability", f"mean cosine {mean:.2f} between directions of the folds")
    if provenance:
        fingerprint = str(provenance.get("fingerprint"))[:_SHORT]
        yield _line("made from", f"{provenance.get('input')}, fingerprint {fingerprint}")
        yield _line("pipeline", str(provenance.get("pipeline")))


def _format_values(values: dict[str, Any]) -> Iterator[str]:
    yield ""
    head = (
        f"{'values':<16}{'min':>10}{'max':>10}{'typical':>10}{'constant':>10}  massive dimensions"
    )
    if "hidden_states" not in values:
        yield head
        yield _range("X", values)
        return
    if values["embeddings"] or values["hidden_states"]:
        yield head
    if values["embeddings"]:
        yield _range("embeddings", values["embeddings"])
    for layer in values["hidden_states"]:
        yield _range(f"layer {layer['layer']}", layer)
    if values["activations"]:
        yield ""
        yield (
            f"{'SAE features':<16}{'average_l0':>10}{'measured':>10}{'max':>10}{'dead':>10}"
            f"{'rare':>10}{'always on':>11}  active rows (median)"
        )
    for sae in values["activations"]:
        rows = sae["median_active_rows"]
        yield (
            f"{'layer ' + str(sae['layer']):<16}{sae['average_l0']:>10g}{sae['mean_active']:>10.1f}"
            f"{_number(sae['max']):>10}{sae['n_dead']:>10,}{sae['n_rare']:>10,}"
            f"{sae['n_always_on']:>11,}  {'none' if rows is None else f'{rows:g}'}"
            + (f"; {sae['n_values_not_finite']} not finite" if sae["n_values_not_finite"] else "")
        )


def _range(name: str, stats: dict[str, Any]) -> str:
    bad = stats["n_rows_not_finite"]
    note = f"; {bad} rows not finite" if bad else ""
    if stats["min"] is None:
        return f"{name:<16}no finite values{note}"
    massive = [f"{m['dimension']} (±{_number(m['peak'])})" for m in stats["massive"][:4]]
    if stats["n_massive"] > len(massive):
        massive.append(f"{stats['n_massive']} in all")
    return (
        f"{name:<16}{_number(stats['min']):>10}{_number(stats['max']):>10}"
        f"{'±' + _number(stats['median_peak']):>10}{stats['n_constant']:>10,}"
        f"  {', '.join(massive) or 'none'}{note}"
    )


def _format_findings(findings: list[dict[str, str]]) -> Iterator[str]:
    yield ""
    yield f"Audit: {len(findings) or 'no'} finding{'' if len(findings) == 1 else 's'}"
    for number, finding in enumerate(findings, 1):
        yield ""
        for head, key in ((f"{number}. ", "what"), ("   Why: ", "why"), ("   Do:  ", "do")):
            indent = " " * len(head)
            yield textwrap.fill(finding[key], 100, initial_indent=head, subsequent_indent=indent)


def _line(name: str, text: str) -> str:
    return f"  {name:<14}{text}"


def _size(facts: dict[str, Any]) -> str:
    n_bytes = facts["n_bytes"]
    return f"{n_bytes / 1e3:,.1f} kB" if n_bytes < 1e6 else f"{n_bytes / 1e6:,.1f} MB"


def _layers(layers: list[Any]) -> str:
    whole = all(isinstance(layer, int) for layer in layers)
    return name_layers(layers) if whole else f"layers {layers}"


def _shape(array: dict[str, Any]) -> str:
    return f"{tuple(array['shape'])} {array['dtype']}"


def _l0s(facts: dict[str, Any]) -> str:
    values = sorted({sae["average_l0"] for sae in facts["saes"]})
    return f"{values[0]:g}" if len(values) == 1 else f"{values[0]:g} to {values[-1]:g}"


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.4g}"
