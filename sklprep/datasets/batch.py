"""Many datasets from one read: members that several datasets need are read only once."""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sklprep.exceptions import DataError, FaultyFilesError, FileFormatError, SklprepError
from sklprep.files.atomic import require_space
from sklprep.files.faults import warn_left_out
from sklprep.files.npz_reader import NpzReader
from sklprep.files.temporary import remove_leftovers, temporary_folder
from sklprep.formats.members import Members
from sklprep.formats.pack_reader import Pack

if TYPE_CHECKING:
    from sklprep.activations.activation_set import ActivationSet
    from sklprep.datasets.generation import FittedDataset, FittedPipeline
    from sklprep.datasets.plans import DatasetPlan
    from sklprep.datasets.provenance import Provenance
    from sklprep.datasets.recipe import Recipe
    from sklprep.formats.dumps.dump import Reading

SPOOL_BYTES = 512 << 20
"""Larger rows of a folder of sentence files are put into a temporary pack instead of memory. This
suffices for 2,240 rows of 26 layers of width 2,304, and fits in the memory of a laptop."""

_ROWS = "rows"  # start of the name of the temporary pack
_EXPECTED = (SklprepError, OSError, MemoryError)
"""Errors of one dataset that do not stop the others."""


@dataclass(frozen=True, slots=True)
class HoldOut:
    """Arguments of `train_test_split`, whose training rows are used to fit."""

    test_size: float
    random_state: int
    stratify: bool


@dataclass(slots=True)
class Report:
    """Results of all plans."""

    written: list[DatasetPlan] = field(default_factory=list)
    unchanged: list[DatasetPlan] = field(default_factory=list)
    failed: list[tuple[DatasetPlan, Exception]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Preview:
    """What a plan would write: shape and bytes of X, and whether the file is up to date."""

    shape: tuple[int, int]
    n_bytes: int
    unchanged: bool


def make_datasets(
    plans: Sequence[DatasetPlan],
    *,
    pooling: str | None,
    n_jobs: int | None,
    progress: bool,
    labels: Path | None = None,
    groups: Path | None = None,
    reading: Reading | None = None,
    hold_out: HoldOut | None = None,
    compress: bool = False,
    force: bool = False,
    skip_bad: bool = False,
    on_written: Callable[[DatasetPlan, FittedDataset], None],
) -> Report:
    """Make datasets, reading each folder once; one failure does not stop the others.

    A dataset that exists with the same provenance is kept unless `force` is given. `labels`,
    `groups` and `reading` are as in `load_activations`. With `skip_bad`, a dataset leaves out the
    files with faults in the members that it reads; otherwise its error names all of them.
    """
    from sklprep.activations.loading import open_activations

    for plan in plans:
        remove_leftovers(plan.output)
        remove_leftovers(plan.output.parent / _ROWS)
    report = Report()
    for source, group in itertools.groupby(plans, key=lambda plan: plan.source):
        todo = list(group)
        try:
            acts = open_activations(
                source,
                pooling=pooling,
                n_jobs=n_jobs,
                progress=progress,
                labels=labels,
                groups=groups,
                reading=reading,
                skip_bad=True,  # so that an error can name further faults
            )
        except _EXPECTED as error:
            report.failed += [(plan, error) for plan in todo]
            continue
        packed = acts.left_out if isinstance(acts.rows.source, Pack) else {}
        batch = _Batch(report, hold_out, compress, force, skip_bad, on_written, known={*packed})
        batch.make(acts, todo)
    return report


def preview_datasets(
    plans: Sequence[DatasetPlan],
    *,
    pooling: str | None,
    n_jobs: int | None,
    labels: Path | None = None,
    groups: Path | None = None,
    reading: Reading | None = None,
    hold_out: HoldOut | None = None,
    skip_bad: bool = False,
) -> Iterator[tuple[DatasetPlan, Preview | Exception]]:
    """Yield each plan with what it would write, or its error; activations are not read."""
    from sklprep.activations.loading import open_activations, warn_of_left_out

    for source, group in itertools.groupby(plans, key=lambda plan: plan.source):
        try:
            acts = open_activations(
                source,
                pooling=pooling,
                n_jobs=n_jobs,
                progress=False,
                labels=labels,
                groups=groups,
                reading=reading,
                skip_bad=skip_bad,
            )
        except _EXPECTED as error:
            yield from ((plan, error) for plan in group)
            continue
        if not isinstance(acts.rows.source, Pack):
            warn_of_left_out(acts)
        for plan in group:
            try:
                _, recipe = _make_recipe(plan, acts, hold_out, skip_bad=skip_bad)
            except _EXPECTED as error:
                yield plan, error
                continue
            unchanged = _is_unchanged(plan.output, recipe)
            yield plan, Preview(recipe.shape, recipe.n_bytes, unchanged)


@dataclass(slots=True)
class _Task:
    """A dataset to make, and the faulty files that it leaves out or fails for."""

    plan: DatasetPlan
    recipe: Recipe
    faults: dict[str, FileFormatError]


@dataclass(slots=True)
class _Batch:
    """Makes the datasets of one input."""

    report: Report
    hold_out: HoldOut | None
    compress: bool
    force: bool
    skip_bad: bool
    on_written: Callable[[DatasetPlan, FittedDataset], None]
    known: set[str]  # files left out without a warning

    def make(self, acts: ActivationSet, plans: Iterable[DatasetPlan]) -> None:
        """Make the datasets, leaving out faulty files or failing for them."""
        tasks = [task for plan in plans if (task := self._prepare(plan, acts)) is not None]
        try:
            self._find_faults(acts, tasks)
        except _EXPECTED as error:
            self._fail([task.plan for task in tasks], acts, error)
        else:
            self._make_groups(acts, tasks)

    def _prepare(self, plan: DatasetPlan, acts: ActivationSet) -> _Task | None:
        """Check a plan against the set; None if it fails or the dataset is up to date."""
        try:
            rest, recipe = _make_recipe(plan, acts, self.hold_out, skip_bad=True)
            may_be_there = not self.force and (self.skip_bad or not self._new_faults(rest))
            if may_be_there and _is_unchanged(plan.output, recipe):
                self._warn(rest)
                self.report.unchanged.append(plan)
                return None
            self._require_space(plan, recipe)
        except _EXPECTED as error:
            self._fail([plan], acts, error)
            return None
        faults = {name: fault for name, fault in rest.left_out.items() if name not in acts.left_out}
        return _Task(plan, recipe, faults)

    def _find_faults(self, acts: ActivationSet, tasks: Sequence[_Task]) -> None:
        """Find the faulty files of each task in one pass over the values.

        If the values do not fit in memory, this extra pass is made only when a dataset fails,
        unless faulty files are left out, or some are already known and all must be named.
        """
        needed = _members_of(acts, tasks)
        if _fits_in_memory(acts, needed):
            self._add_faults(acts, tasks, acts.rows.find_faults(needed, keep=True))
        elif self.skip_bad or self._new_faults(acts) or any(task.faults for task in tasks):
            self._add_faults(acts, tasks, acts.rows.find_faults(needed))

    def _add_faults(
        self, acts: ActivationSet, tasks: Iterable[_Task], suspects: Iterable[str]
    ) -> None:
        """Find the faults of some files in the members that each task reads."""
        suspects = set(suspects)
        for task in tasks if suspects else ():
            task.faults |= _find_faults_among(acts, suspects, task.recipe.find_members(acts))

    def _make_groups(self, acts: ActivationSet, tasks: Iterable[_Task]) -> None:
        """Make tasks that leave out the same files together."""
        groups: dict[frozenset[str], list[_Task]] = {}
        for task in tasks:
            groups.setdefault(frozenset(task.faults), []).append(task)
        for group in groups.values():
            plans, faults = [task.plan for task in group], group[0].faults
            if not self.skip_bad and (faults or self._new_faults(acts)):
                self._fail(plans, acts, acts.rows.faulty(self._new_faults(acts) | faults))
            elif faults:
                self._make_without(faults, acts, plans)
            else:
                self._make_group(acts, group)

    def _make_without(
        self,
        faults: Mapping[str, FileFormatError],
        acts: ActivationSet,
        plans: Iterable[DatasetPlan],
    ) -> None:
        """Make datasets from the rows of the other files."""
        try:
            rest = acts.without(faults)
        except FaultyFilesError as error:  # no file is left
            self._fail(plans, acts, error)
            return
        tasks = [task for plan in plans if (task := self._prepare(plan, rest)) is not None]
        self._make_group(rest, tasks)

    def _make_group(self, acts: ActivationSet, tasks: Sequence[_Task]) -> None:
        """Make datasets from all rows of a set."""
        try:
            with _rows_at_hand(acts, tasks) as rows:
                latest: list[tuple[Provenance, FittedPipeline]] = []
                for task in tasks:
                    self._make_one(task.plan, task.recipe, acts, rows, latest)
        except FaultyFilesError as error:  # a damaged member does not affect every task
            self._add_faults(acts, tasks, error.faults)
            if any(task.faults for task in tasks):
                self._make_groups(acts, tasks)
            else:
                self._fail([task.plan for task in tasks], acts, error)
        except _EXPECTED as error:
            self._fail([task.plan for task in tasks], acts, error)

    def _make_one(
        self,
        plan: DatasetPlan,
        recipe: Recipe,
        acts: ActivationSet,
        rows: ActivationSet,
        latest: list[tuple[Provenance, FittedPipeline]],
    ) -> None:
        """Make a dataset, or record its error; `latest` is the pipeline that was fitted last."""
        from sklprep.datasets.generation import fit_dataset

        of_X = recipe.provenance.without_target
        try:
            self._require_space(plan, recipe)  # other outputs may have used the space
            known = [fitted for made_of, fitted in latest if made_of == of_X]
            dataset = fit_dataset(rows, recipe, fitted=known[0] if known else None)
            latest[:] = [(of_X, dataset.fitted)]
            dataset.write(plan.output, compress=self.compress)
        except _EXPECTED as error:
            self._fail([plan], acts, error)
        else:
            self._warn(acts)
            self.report.written.append(plan)
            self.on_written(plan, dataset)

    def _require_space(self, plan: DatasetPlan, recipe: Recipe) -> None:
        if not self.compress:
            require_space(plan.output, recipe.n_bytes)

    def _warn(self, acts: ActivationSet) -> None:
        faults = self._new_faults(acts)
        warn_left_out(acts.rows.source.place, faults, acts.rows.n_files)
        self.known |= {*faults}

    def _fail(self, plans: Iterable[DatasetPlan], acts: ActivationSet, error: Exception) -> None:
        faults = self._new_faults(acts)
        if faults and not self.skip_bad:
            error = acts.rows.faulty({**faults, **getattr(error, "faults", {})})
        if isinstance(error, MemoryError):
            error.__traceback__ = error.__context__ = None  # their frames hold arrays
        self.report.failed += [(plan, error) for plan in plans]

    def _new_faults(self, acts: ActivationSet) -> dict[str, FileFormatError]:
        return {name: fault for name, fault in acts.left_out.items() if name not in self.known}


def _make_recipe(
    plan: DatasetPlan, acts: ActivationSet, hold_out: HoldOut | None, *, skip_bad: bool
) -> tuple[ActivationSet, Recipe]:
    """Check a plan against the set; with `skip_bad`, leave out files without labels."""
    from sklprep.datasets.recipe import make_recipe, split_rows
    from sklprep.datasets.strategies import make_strategy

    pipeline, target = make_strategy(plan.strategy, normalize=plan.normalize, **plan.options)

    def make(acts: ActivationSet) -> Recipe:
        train = None if hold_out is None else split_rows(acts, **asdict(hold_out))
        return make_recipe(acts, pipeline, target, strategy=plan.strategy, fit_rows=train)

    try:
        return acts, make(acts)
    except FaultyFilesError as error:  # names all files without labels
        if not skip_bad:
            raise
        rest = acts.without(error.faults)
        return rest, make(rest)


def _find_faults_among(
    acts: ActivationSet, suspects: set[str], members: Members
) -> dict[str, FileFormatError]:
    """Return the faults of some files, without reading others."""
    names = acts.rows.file_names
    if (folder := acts.rows.folder) is not None:
        return folder.find_faults(members, known=set(names.tolist()) - suspects)
    return acts.rows.take(np.isin(names, list(suspects))).find_faults(members)


def _members_of(acts: ActivationSet, tasks: Iterable[_Task]) -> Members:
    read = (task.recipe.find_members(acts) for task in tasks)
    return functools.reduce(operator.or_, read, Members())


@contextmanager
def _rows_at_hand(acts: ActivationSet, tasks: Sequence[_Task]) -> Iterator[ActivationSet]:
    """Read what tasks need in one pass, into memory or a temporary pack."""
    needed = _members_of(acts, tasks)
    folder = acts.rows.folder
    if folder is None or _fits_in_memory(acts, needed):
        acts.rows.source.read(needed)
        yield acts
        return
    from sklprep.activations.activation_set import ActivationSet
    from sklprep.formats.pack_writer import build_pack

    place = tasks[0].plan.output.parent
    place.mkdir(parents=True, exist_ok=True)
    with temporary_folder(place, _ROWS) as temporary:
        pack = build_pack(folder, temporary / "pack", members=needed)
        pack.place = folder.path
        yield ActivationSet(acts.rows.read_from(pack))


def _fits_in_memory(acts: ActivationSet, members: Members) -> bool:
    """Tell whether rows of a folder fit in memory, assuming 5 % of SAE features are active."""
    folder = acts.rows.folder
    if folder is None:  # a pack is read in place
        return False
    sparse = 8 * folder.n_rows * len(members.read_configs) * (folder.n_features or 0) // 20
    return sparse + folder.bytes_of(members) <= SPOOL_BYTES


def _is_unchanged(path: Path, recipe: Recipe) -> bool:
    if not path.exists():
        return False
    try:
        with NpzReader(path) as reader:
            found = str(reader.array("meta_provenance", max_bytes=1 << 20))
            if found != recipe.provenance.to_json():
                return False
            reader.check()
            return True
    except (DataError, OSError):
        return False
