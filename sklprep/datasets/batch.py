"""Many datasets from one read: expand what was asked for, read once, write each."""

from __future__ import annotations

import functools
import itertools
import json
import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sklprep.datasets.strategies import FEATURE, SAE, STRATEGIES, check_normalize, check_options
from sklprep.exceptions import (
    DataError,
    FaultyFilesError,
    FileFormatError,
    SklprepError,
    UsageError,
)
from sklprep.files.atomic import require_space
from sklprep.files.faults import warn_left_out
from sklprep.files.npz_reader import NpzReader
from sklprep.files.temporary import remove_leftovers, temporary_folder
from sklprep.formats.layers import format_layers, parse_layers
from sklprep.formats.members import Members

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sklprep.activations.activation_set import ActivationSet
    from sklprep.datasets.generation import FittedDataset, FittedPipeline
    from sklprep.formats.sentence_folder import SentenceFolder

SPOOL_BYTES = 512 << 20
"""Rows of a raw folder beyond this go through a temporary pack instead of memory."""

_ROWS = "rows"
_EXPECTED = (SklprepError, OSError, MemoryError)


@dataclass(frozen=True, slots=True)
class Job:
    """One dataset to make."""

    source: Path
    strategy: str
    options: dict[str, Any]
    normalize: str
    output: Path


@dataclass(frozen=True, slots=True)
class Split:
    """The rows to fit on: those that `train_test_split` puts into training."""

    test_size: float
    random_state: int
    stratify: bool


@dataclass(slots=True)
class Report:
    """What became of the jobs."""

    written: list[Job] = field(default_factory=list)
    unchanged: list[Job] = field(default_factory=list)
    failed: list[tuple[Job, Exception]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Preview:
    """What a job would write: the shape and bytes of X, and whether it is there unchanged."""

    shape: tuple[int, int]
    n_bytes: int
    unchanged: bool


def plan_jobs(
    sources: Sequence[Path],
    strategies: Sequence[str],
    normalize: Sequence[str],
    options: dict[str, Sequence[Any]],
    output: str,
) -> list[Job]:
    """Combine every value with every other, each strategy with the options that it uses.

    Parameters
    ----------
    sources, strategies, normalize : sequence
        Values to combine; no `normalize` is the default of each strategy.
    options : dict
        Values of the strategies' options by name; ``features`` holds (layer, feature, average_l0)
        triples instead of ``target_layer``, ``target_feature`` and ``average_l0``.
    output : str
        Path of the dataset, with the fields ``{trait}``, ``{input}``, ``{strategy}``, ``{name}``,
        ``{layers}``, ``{norm}``, ``{target_layer}``, ``{feature}``, ``{l0}`` and ``{input_layer}``.

    Returns
    -------
    list of Job

    Raises
    ------
    UsageError
        If an option is missing or used by no strategy, or two datasets would share a file.
    """
    given = {name for name, values in options.items() if values}
    if "features" in given:
        given = given - {"features"} | {"target_layer", "target_feature", "average_l0"}
    if len(strategies) == 1:
        check_options(strategies[0], dict.fromkeys(given - _implied(options)))
    for name in sorted(given - _implied(options)):
        if not any(name in STRATEGIES[s].needs + STRATEGIES[s].takes for s in strategies):
            check_options(strategies[0], dict.fromkeys((*STRATEGIES[strategies[0]].needs, name)))
    for strategy, method in itertools.product(strategies, normalize):
        check_normalize(strategy, method)
    jobs = [
        Job(
            source,
            strategy,
            combined,
            method,
            Path(_fill(output, source, strategy, combined, method)),
        )
        for source, strategy in itertools.product(sources, strategies)
        for combined in _combine(strategy, options)
        for method in normalize or (STRATEGIES[strategy].default_normalize,)
    ]
    _check_distinct(jobs, output)
    return jobs


def run_jobs(
    jobs: Sequence[Job],
    *,
    pooling: str | None,
    n_jobs: int | None,
    progress: bool,
    labels: Path | None = None,
    groups: Path | None = None,
    split: Split | None = None,
    compress: bool = False,
    force: bool = False,
    skip_bad: bool = False,
    on_written: Callable[[Job, FittedDataset], None],
) -> Report:
    """Make the datasets, reading each folder once; one failure does not stop the others.

    A dataset that is there already with the same provenance is left as it is unless `force`.
    `labels` and `groups` are CSV files, as `load_activations` takes them. With `skip_bad` a dataset
    goes without the files that are faulty in what it reads; otherwise its error names all of them.
    """
    from sklprep.activations.loading import open_activations

    for job in jobs:
        remove_leftovers(job.output)
        remove_leftovers(job.output.parent / _ROWS)
    report = Report()
    for source, group in itertools.groupby(jobs, key=lambda job: job.source):
        todo = list(group)
        try:
            acts = open_activations(
                source,
                pooling=pooling,
                n_jobs=n_jobs,
                progress=progress,
                labels=labels,
                groups=groups,
                skip_bad=True,  # an error is to name what is faulty beyond that, too
            )
        except _EXPECTED as error:
            report.failed += [(job, error) for job in todo]
            continue
        packed = acts.left_out if acts.rows.folder is None else {}
        maker = _Maker(report, split, compress, force, skip_bad, on_written, known={*packed})
        rounds = [(acts, todo)]
        while rounds:
            rounds += maker.make(*rounds.pop(0))
    return report


@dataclass(slots=True)
class _Maker:
    """Makes the datasets of one folder or pack, in rounds without ever more faulty files."""

    report: Report
    split: Split | None
    compress: bool
    force: bool
    skip_bad: bool
    on_written: Callable[[Job, FittedDataset], None]
    known: set[str]  # files left out that need no mention

    def make(
        self, acts: ActivationSet, todo: Sequence[Job]
    ) -> list[tuple[ActivationSet, list[Job]]]:
        """Make the datasets, or fail; return what is to be made without files found faulty."""
        doomed = bool(self._faults_of(acts)) and not self.skip_bad
        put_off: list[tuple[Job, Mapping[str, FileFormatError]]] = []
        ready: list[tuple[Job, _Prepared]] = []
        for job in todo:
            try:
                prepared = _prepare(job, acts, self.split)
                if not (self.force or doomed) and _is_unchanged(job.output, prepared.provenance):
                    self._warn(acts)
                    self.report.unchanged.append(job)
                else:
                    self._check_space(job, acts, prepared)
                    ready.append((job, prepared))
            except FaultyFilesError as error:
                put_off.append((job, error.faults))
            except _EXPECTED as error:
                self._fail(job, acts, error)
        try:
            with _with_rows_at_hand(acts, [prepared for _, prepared in ready], todo) as rows:
                latest: dict[str, FittedPipeline] = {}
                while ready:
                    job, prepared = ready.pop(0)
                    found = self._make_one(job, prepared, acts, rows, latest, doomed=doomed)
                    put_off += [(job, found)] if found else []
        except FaultyFilesError as error:  # a damaged member does not matter to every job
            put_off += [(job, prepared.pick_used(error.faults)) for job, prepared in ready]
        except _EXPECTED as error:
            for job, _ in ready:
                self._fail(job, acts, error)
        return self._regroup(acts, put_off)

    def _make_one(
        self,
        job: Job,
        prepared: _Prepared,
        acts: ActivationSet,
        rows: ActivationSet,
        latest: dict[str, FittedPipeline],
        *,
        doomed: bool,
    ) -> Mapping[str, FileFormatError]:
        """Make a dataset, or fail; return the files that it is to go without, if there are any."""
        try:
            if doomed:
                raise self._name_all(acts, rows.rows.find_faults(prepared.find_members(rows)))
            self._check_space(job, acts, prepared)  # others may have been written since
            fitted = prepared.fit(acts, rows, latest.get(prepared.input))
            latest.clear()
            latest[prepared.input] = fitted.fitted
            fitted.write(job.output, compress=self.compress)
        except FaultyFilesError as error:
            if self.skip_bad:
                return error.faults
            self._fail(job, acts, error)
        except _EXPECTED as error:
            self._fail(job, acts, error)
        else:
            self._warn(acts)
            self.report.written.append(job)
            self.on_written(job, fitted)
        return {}

    def _check_space(self, job: Job, acts: ActivationSet, prepared: _Prepared) -> None:
        from sklprep.datasets.generation import x_bytes

        if not self.compress:
            require_space(job.output, x_bytes(len(acts), prepared.selector.n_features_out_))

    def _warn(self, acts: ActivationSet) -> None:
        faults = self._faults_of(acts)
        warn_left_out(acts.rows.source.place, faults, acts.rows.n_files)
        self.known |= {*faults}

    def _fail(self, job: Job, acts: ActivationSet, error: Exception) -> None:
        if self._faults_of(acts) and not self.skip_bad:
            error = self._name_all(acts, getattr(error, "faults", {}))
        if isinstance(error, MemoryError):
            error.__traceback__ = error.__context__ = None  # the frames hold the memory
        self.report.failed.append((job, error))

    def _name_all(
        self, acts: ActivationSet, more: Mapping[str, FileFormatError]
    ) -> FaultyFilesError:
        return acts.rows.faulty({**self._faults_of(acts), **more})

    def _faults_of(self, acts: ActivationSet) -> dict[str, FileFormatError]:
        return {name: fault for name, fault in acts.left_out.items() if name not in self.known}

    def _regroup(
        self, acts: ActivationSet, put_off: Iterable[tuple[Job, Mapping[str, FileFormatError]]]
    ) -> list[tuple[ActivationSet, list[Job]]]:
        """Put jobs together that go without the same files."""
        groups: dict[frozenset[str], tuple[Mapping[str, FileFormatError], list[Job]]] = {}
        for job, faults in put_off:
            groups.setdefault(frozenset(faults), (faults, []))[1].append(job)
        rounds = []
        for faults, jobs in groups.values():
            try:
                rounds.append((acts.without(faults) if faults else acts, jobs))
            except FaultyFilesError as error:  # no file is left
                for job in jobs:
                    self._fail(job, acts, error)
        return rounds


def preview_jobs(
    jobs: Sequence[Job],
    *,
    pooling: str | None,
    n_jobs: int | None,
    labels: Path | None = None,
    groups: Path | None = None,
    split: Split | None = None,
    skip_bad: bool = False,
) -> Iterator[tuple[Job, Preview | Exception]]:
    """Yield each job with what it would write, or why it would fail; activations are not read."""
    from sklprep.activations.loading import open_activations, warn_of_left_out
    from sklprep.datasets.generation import x_bytes

    for source, group in itertools.groupby(jobs, key=lambda job: job.source):
        try:
            acts = open_activations(
                source,
                pooling=pooling,
                n_jobs=n_jobs,
                progress=False,
                labels=labels,
                groups=groups,
                skip_bad=skip_bad,
            )
        except _EXPECTED as error:
            yield from ((job, error) for job in group)
            continue
        if acts.rows.folder is not None:
            warn_of_left_out(acts)
        for job in group:
            try:
                rest, prepared = _prepare_sound(job, acts, split, skip_bad=skip_bad)
            except _EXPECTED as error:
                yield job, error
                continue
            shape = (len(rest), prepared.selector.n_features_out_)
            unchanged = _is_unchanged(job.output, prepared.provenance)
            yield job, Preview(shape, x_bytes(*shape), unchanged)


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A job checked against the data; nothing large has been read."""

    pipeline: Any
    target: Any
    strategy: str
    fit_rows: NDArray[np.int64] | None
    provenance: str
    selector: Any
    fitted_target: Any
    members: Members

    def find_members(self, rows: ActivationSet) -> Members:
        """What is read of rows, which may be those of a pack with other configs."""
        from sklprep.datasets.generation import find_members

        return find_members(self.selector, self.fitted_target, rows)

    def pick_used(self, faults: Mapping[str, FileFormatError]) -> dict[str, FileFormatError]:
        """Of damaged files, those whose damage lies in a member that this job reads."""
        used = {None, *self.members.names}
        return {name: fault for name, fault in faults.items() if fault.member in used}

    @property
    def input(self) -> str:
        """What X is made of: all that the provenance says but for the target."""
        arguments = json.loads(self.provenance)["arguments"]
        parts = {key: arguments[key] for key in arguments.keys() - {"strategy", "target"}}
        return json.dumps(parts, sort_keys=True)

    def fit(
        self, acts: ActivationSet, rows: ActivationSet, fitted: FittedPipeline | None
    ) -> FittedDataset:
        """Fit on rows that may hold no more than what this and other jobs need of the set."""
        from sklprep.datasets.generation import fit_dataset

        return fit_dataset(
            acts,
            self.pipeline,
            self.target,
            strategy=self.strategy,
            fit_rows=self.fit_rows,
            rows=rows,
            fitted=fitted,
        )


def _prepare(job: Job, acts: ActivationSet, split: Split | None) -> _Prepared:
    from sklearn.base import clone
    from sklearn.pipeline import Pipeline

    from sklprep.datasets.generation import find_members, split_rows
    from sklprep.datasets.provenance import provenance
    from sklprep.datasets.strategies import make_strategy

    pipeline, target = make_strategy(job.strategy, normalize=job.normalize, **job.options)
    selector = clone(pipeline[0]).fit(acts)
    fitted_target = clone(target).fit(acts)
    fit_rows = None
    if split is not None:
        fit_rows = split_rows(acts, split.test_size, split.random_state, stratify=split.stratify)
    checked = Pipeline([("selector", selector), *pipeline.steps[1:]])
    return _Prepared(
        pipeline,
        target,
        job.strategy,
        fit_rows,
        provenance(acts, checked, fitted_target, strategy=job.strategy, fit_rows=fit_rows),
        selector,
        fitted_target,
        find_members(selector, fitted_target, acts),
    )


def _prepare_sound(
    job: Job, acts: ActivationSet, split: Split | None, *, skip_bad: bool
) -> tuple[ActivationSet, _Prepared]:
    """Prepare a job, with `skip_bad` without the files that have no label; one error names all."""
    try:
        return acts, _prepare(job, acts, split)
    except FaultyFilesError as error:
        if not skip_bad:
            raise
        rest = acts.without(error.faults)
        return rest, _prepare(job, rest, split)


@contextmanager
def _with_rows_at_hand(
    acts: ActivationSet, prepared: Sequence[_Prepared], jobs: Sequence[Job]
) -> Iterator[ActivationSet]:
    """Read what the jobs need in one pass: into memory, or a temporary pack where it is large."""
    needed = functools.reduce(operator.or_, (one.members for one in prepared), Members())
    folder = acts.rows.folder
    if folder is None or _bytes_of(folder, needed) <= SPOOL_BYTES:
        acts.rows.source.read(needed)
        yield acts
        return
    from sklprep.activations.activation_set import ActivationSet
    from sklprep.formats.pack_writer import build_pack

    place = jobs[0].output.parent
    place.mkdir(parents=True, exist_ok=True)
    with temporary_folder(place, _ROWS) as temporary:
        pack = build_pack(folder, temporary / "pack", members=needed)
        pack.place = folder.path
        yield ActivationSet(acts.rows.read_from(pack))


def _bytes_of(folder: SentenceFolder, members: Members) -> int:
    """Bytes that rows take in memory, with one in twenty SAE features active."""
    sparse = 8 * folder.n_rows * len(members.read_configs) * (folder.n_features or 0) // 20
    return sparse + folder.bytes_of(members)


def _is_unchanged(path: Path, expected: str) -> bool:
    if not path.exists():
        return False
    try:
        with NpzReader(path) as reader:
            if str(reader.array("meta_provenance", max_bytes=1 << 20)) != expected:
                return False
            reader.check()
            return True
    except (DataError, OSError):
        return False


def _implied(options: dict[str, Sequence[Any]]) -> set[str]:
    """A CSV of features names an average_l0 whether or not it is needed."""
    return {"average_l0"} if options.get("features") else set()


def _combine(strategy: str, options: dict[str, Sequence[Any]]) -> list[dict[str, Any]]:
    row = STRATEGIES[strategy]
    used = row.needs + row.takes
    axes: list[list[dict[str, Any]]] = []
    if row.output_type == FEATURE and options.get("features"):
        names = ("target_layer", "target_feature", "average_l0")
        axes.append([dict(zip(names, feature, strict=True)) for feature in options["features"]])
    axes += [[{name: value} for value in options[name]] for name in used if options.get(name)]
    combined = []
    for choice in itertools.product(*axes):
        merged = {key: value for part in choice for key, value in part.items() if value is not None}
        check_options(strategy, merged)
        combined.append(merged)
    return combined


def _fill(
    pattern: str, source: Path, strategy: str, options: dict[str, Any], normalize: str
) -> str:
    layers = STRATEGIES[strategy].input_layers(options)
    spec = (
        layers
        if isinstance(layers, str) and not re.match(r"\d", layers)
        else format_layers(parse_layers(layers)).replace(",", "_")
    )
    base = source.resolve().name
    fields = {
        "trait": _trait(source),
        "input": base,
        "strategy": strategy,
        "name": _short_name(strategy, spec, options),
        "layers": spec,
        "norm": normalize,
        "target_layer": options.get("target_layer", ""),
        "feature": options.get("target_feature", ""),
        "l0": f"{options['average_l0']:g}" if options.get("average_l0") is not None else "",
        "input_layer": options.get("input_layer", ""),
    }
    try:
        return pattern.format(**fields)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        why = "a field has no name" if isinstance(error, IndexError) else error
        raise UsageError(
            f"The output pattern {pattern!r} cannot be filled ({why}); its fields are"
            f" {', '.join(f'{{{name}}}' for name in fields)}. Write {{{{ for a brace."
        ) from None


def _trait(source: Path) -> str:
    return re.sub(r"(_\d+)?_features$", "", source.resolve().name)


def _short_name(strategy: str, spec: str, options: dict[str, Any]) -> str:
    """As the usage guide names its files: ``h0-5_to_concept``, ``emb_to_f1234``."""
    letter = "sae" if STRATEGIES[strategy].input_member == SAE else "h"
    left = "emb" if spec == "embeddings" else f"{letter}{spec}"
    if STRATEGIES[strategy].output_type != FEATURE:
        return f"{left}_to_concept"
    layer, feature = options["target_layer"], options["target_feature"]
    return (
        f"{left}_to_f{feature}"
        if spec in ("embeddings", str(layer))
        else (f"{left}_to_l{layer}_f{feature}")
    )


def _check_distinct(jobs: Sequence[Job], pattern: str) -> None:
    seen: dict[Path, Job] = {}
    for job in jobs:
        other = seen.setdefault(job.output, job)
        if other is not job:
            one, two = other.source.resolve(), job.source.resolve()
            if one != two and one.name == two.name:
                raise UsageError(
                    f"{other.source} and {job.source} have one name, and so have the datasets of"
                    f" both: {job.output}. Rename a folder, or run the command once for each."
                )
            raise UsageError(
                f"Two datasets would be written to {job.output}: {_difference(other, job)}. Give"
                f" every field that varies in the output pattern, got {pattern!r}."
            )


def _difference(one: Job, other: Job) -> str:
    pairs: list[tuple[str, Any, Any]] = [
        (
            "{input}" if _trait(one.source) == _trait(other.source) else "{trait}",
            one.source,
            other.source,
        ),
        ("{strategy}", one.strategy, other.strategy),
        ("{norm}", one.normalize, other.normalize),
    ]
    fields = {"target_feature": "feature", "average_l0": "l0"}
    pairs += [
        (f"{{{fields.get(name, name)}}}", one.options.get(name), other.options.get(name))
        for name in {**one.options, **other.options}
    ]
    return (
        ", ".join(f"{name} is {a} and {b}" for name, a, b in pairs if a != b)
        or "it was asked for twice"
    )
