"""What a layer sweep found, in words: one sentence, and a paragraph for a paper."""

from __future__ import annotations

from collections import Counter

from sklprep.sweeps.intervals import LEVEL, compare
from sklprep.sweeps.scorers import name_score
from sklprep.sweeps.sweep_scores import SweepScores
from sklprep.sweeps.wording import format_p, format_score, name_input, name_inputs

_SOLVERS = {
    "sklprep": "a solver that reaches scikit-learn's optimum for all folds and labelings at once",
    "scikit-learn": "scikit-learn",
}


def summarize(sweep: SweepScores) -> str:
    """Give the answer in one sentence, with the baselines and controls to hold it against."""
    naive = format_score(sweep.naive_best_score)
    naive = f"naive best {naive} at {name_input(sweep.naive_best_layer)}"
    if sweep.best_layers is None:
        head = f"Not nested, so the best {_score_name(sweep)} is inflated by its selection"
        parts = [naive]
    else:
        head = _head(sweep)
        parts = [*_describe_rate(sweep), _picked(sweep)]
        if _had_a_choice(sweep) and (left_out := sweep.details.get("left_out")):
            parts.append(left_out)
        if len(sweep.layers) > 1:
            parts.append(naive)
    if sweep.baselines:
        order = sorted(sweep.baselines, key=lambda name: name == "sentence length")
        parts.append(", ".join(_name_baseline(sweep, name) for name in order))
    parts += _compared(sweep) if sweep.comparisons else _unbeaten(sweep)
    parts += _describe_residualized(sweep)
    if sweep.p_value is not None:
        parts.append(
            f"permutation p = {sweep.p_value:.3g} (smallest possible {sweep.p_value_min:.3g})"
        )
    parts += [_say(one, _best(sweep)) for one in sweep.other_scores.values()]
    if sweep.score_reason:
        parts.append(f"scored by {_score_name(sweep)} as {sweep.score_reason}")
    return f"{head}: {'; '.join(parts)}"


def _name_baseline(sweep: SweepScores, name: str) -> str:
    """Give a baseline with its score, and say if it is clearly worse than the majority.

    It then learned what is wrong in test rows, as from near-duplicates of the other label, and
    exceeding it means little.
    """
    said = f"{name} {format_score(sweep.baselines[name].mean)}"
    majority = sweep.baselines.get("majority")
    if majority is None or sweep.size_ratio is None:
        return said
    differences = sweep.baselines[name].scores - majority.scores
    is_worse = compare([differences], sweep.size_ratio)[0].interval[1] < 0
    return f"{said} (worse than the majority)" if is_worse else said


def _say(sweep: SweepScores, best: int) -> str:
    """Say the nested score and its interval; without nesting, those of the layer at `best`."""
    score = sweep.mean_scores[best] if sweep.nested_score is None else sweep.nested_score
    if sweep.nested_interval is None:
        return f"{_score_name(sweep)} {format_score(score)}"
    low, high = map(format_score, sweep.nested_interval)
    return f"{_score_name(sweep)} {format_score(score)} [{low}, {high}]"


def _had_a_choice(sweep: SweepScores) -> bool:
    return len(sweep.layers) > 1 or any(len(one) > 1 for one in sweep.chosen or ())


def _head(sweep: SweepScores) -> str:
    said = _say(sweep, 0)
    is_whole = _had_a_choice(sweep) and not sweep.details.get("left_out")
    head = f"Honest {said}" if is_whole else f"{said[0].upper()}{said[1:]}"
    if sweep.nested_interval is None:
        head += f" (no interval: {_why_no_interval(sweep)})"
    if sweep.repeat_spread is None:
        return head
    return f"{head} over {sweep.n_repeats} repeats (s.d. {format_score(sweep.repeat_spread, 3)})"


def _describe_rate(sweep: SweepScores) -> list[str]:
    """Say which share of negatives the calibrated thresholds let through."""
    if sweep.nested_fpr is None:
        return []
    interval = ""
    if sweep.nested_fpr_interval is not None:
        low, high = (format_score(bound, 3) for bound in sweep.nested_fpr_interval)
        interval = f" [{low}, {high}]"
    return [
        f"false positives on test rows {format_score(sweep.nested_fpr, 3)}{interval}, which is"
        " also the recall of chance"
    ]


def _picked(sweep: SweepScores) -> str:
    if not _had_a_choice(sweep):
        name = name_input(sweep.layers[0])
        return f"of {name} alone; any earlier choice of it is not accounted for"
    layer, times = Counter(sweep.best_layers).most_common(1)[0]
    verb = "was" if isinstance(layer, int) else "were"
    picked = f"{name_input(layer)} {verb} picked in {times} of {sweep.scores.shape[1]} folds"
    alike = _not_shown_to_differ_from(sweep, layer)
    if alike:
        verb = "is" if alike == 1 else "are"
        others = f"the {len(sweep.layers) - 1} other inputs"
        picked += f" ({alike} of {others} {verb} not shown to differ from it)"
    return picked


def _not_shown_to_differ_from(sweep: SweepScores, layer: int | str) -> int:
    """Count the other inputs that the corrected t does not distinguish from one."""
    pairs = sweep.compare_layers().items()
    return sum(layer in pair and found.p_value > 1 - LEVEL for pair, found in pairs)


def _unbeaten(sweep: SweepScores) -> list[str]:
    """Without comparisons, name the baselines that the score does not exceed."""
    score = sweep.naive_best_score if sweep.nested_score is None else sweep.nested_score
    names = [name for name, rival in sweep.baselines.items() if not score > rival.mean]
    return [f"not better than {' and '.join(names)}"] if names else []


def _compared(sweep: SweepScores) -> list[str]:
    """Say which baselines the score is shown to be better than, and which not."""
    better, others = [], []
    for name, found in sweep.comparisons.items():
        low, high = map(format_score, found.interval)
        by = f"{format_score(found.difference)} [{low}, {high}]"
        if found.is_better:
            better.append(f"than {name} by {by}")
        else:
            others.append(f"than {name} ({by})")
    return [
        *([f"better {', '.join(better)}"] if better else []),
        *([f"not shown to be better {', '.join(others)}"] if others else []),
    ]


def _describe_residualized(sweep: SweepScores) -> list[str]:
    """Say what is left of the score without what confounds explain."""
    if sweep.residualized is None:
        return []
    head = _head(sweep.residualized).removeprefix("Honest ")
    head = f"{head[0].lower()}{head[1:]}"
    found = f"without what is linear in the confounds ({sweep.details['confounds']}), {head}"
    if sweep.confounded is not None:
        by = format_score(abs(sweep.confounded.difference))
        ends = sorted(sweep.confounded.interval)
        if ends[0] > 0:
            low, high = map(format_score, ends)
            found += f", lower by {by} [{low}, {high}]"
        elif ends[1] < 0:
            found += (
                f", higher by {by}: removing the confounds has encoded them in the columns, so"
                " do not report it"
            )
        else:
            low, high = map(format_score, ends)
            by = format_score(sweep.confounded.difference)
            found += f", not shown to be lower ({by} [{low}, {high}])"
    return [found]


def describe_methods(sweep: SweepScores) -> str:
    """Describe data, folds, model, controls and versions in one paragraph for a paper."""
    return " ".join(
        [
            *_describe_design(sweep),
            *_describe_nested(sweep),
            *_describe_choice(sweep),
            *_describe_scores(sweep),
            *_describe_permutations(sweep),
            *_describe_baselines(sweep),
            *_describe_limits(sweep),
        ]
    )


def _describe_design(sweep: SweepScores) -> list[str]:
    details = sweep.details
    sentences = [
        f"{details['data']}: {sweep.n_samples:,} rows in {sweep.n_groups:,} groups,"
        f" {details['target']}.",
        f"Each of {len(sweep.layers)} inputs ({name_inputs(sweep.layers)}) was scored by"
        f" {_score_name(sweep)} in {_times(sweep)}{sweep.n_folds}-fold cross-validation"
        f" ({details['folds']}), on"
        " the same folds for every input and with no group on both sides of a split; the model"
        f" {details['estimator']} was refitted from scratch, its normalization included, on the"
        f" training rows of each fold, by"
        f" {', or by '.join(_SOLVERS[name] for name in sweep.solver.split(' and '))}.",
    ]
    if aggregate := details.get("aggregate"):
        sentences.append(f"Sentences were scored by {aggregate}.")
    return sentences


def _describe_nested(sweep: SweepScores) -> list[str]:
    sentences = []
    if sweep.best_layers is not None:
        sentences.append(
            f"The best input{_name_parameters(sweep)} was chosen by inner cross-validation"
            f" ({sweep.details['inner_folds']}) within each outer training set and scored on the"
            f" outer test set: {_score_name(sweep)} {format_score(sweep.nested_score, 3)},"
            f" {_describe_interval(sweep)}."
        )
    if sweep.nested_fpr is not None:
        sentences.append(
            "The threshold of each outer fold was calibrated on the rows that its inner folds"
            f" held out; {_describe_rate(sweep)[0]}. Intervals of that rate are Clopper and"
            " Pearson's, and do not include how thresholds vary."
        )
    return sentences


def _describe_choice(sweep: SweepScores) -> list[str]:
    if not _had_a_choice(sweep):
        return ["Any earlier choice of this input is not accounted for."]
    if sweep.best_layers is None:
        return []
    picked = _picked(sweep)
    return [f"{picked[0].upper()}{picked[1:]}."]


def _describe_scores(sweep: SweepScores) -> list[str]:
    sentences = []
    if left_out := sweep.details.get("left_out"):
        sentences.append(f"{left_out[0].upper()}{left_out[1:]}.")
    if sweep.score_reason:
        sentences.append(f"The score is {_score_name(sweep)}, as {sweep.score_reason}.")
    if sweep.other_scores:
        said = ", ".join(_say(one, _best(sweep)) for one in sweep.other_scores.values())
        sentences.append(f"Scores of the same models that were not used to choose: {said}.")
    return sentences


def _describe_permutations(sweep: SweepScores) -> list[str]:
    if sweep.permutation_scores is None:
        return []
    return [
        f"In a permutation control labels were permuted between groups {sweep.n_permutations:,}"
        f" times, {sweep.details['permutations']}, the same for all inputs; the maximum over inputs"
        f" has p = {sweep.p_value:.3g} (smallest possible {sweep.p_value_min:.3g}), compared with"
        " that of the first repeat; p-values of single inputs are adjusted by the same maximum"
        " (Westfall and Young 1993)."
    ]


def _describe_baselines(sweep: SweepScores) -> list[str]:
    sentences = []
    if sweep.baselines:
        means = ", ".join(
            f"{name} {format_score(b.mean, 3)}" for name, b in sweep.baselines.items()
        )
        sentences.append(f"Baselines on the same folds: {means}.")
    if sweep.comparisons:
        compared = "; ".join(
            f"{name} {format_score(c.difference, 3)}"
            f" [{format_score(c.interval[0], 3)}, {format_score(c.interval[1], 3)}],"
            f" {format_p(c.p_value)}"
            for name, c in sweep.comparisons.items()
        )
        sentences.append(
            "Paired differences from them, by the corrected t with p-values by Holm's method:"
            f" {compared}."
        )
    if sweep.residualized is not None:
        sentences.append(
            "The confounds were a baseline by themselves, and each column was residualized on"
            " them by least squares on the training rows of each fold:"
            f" {_describe_residualized(sweep)[0]}."
        )
    if "TF-IDF" in sweep.baselines:
        sentences.append(
            "TF-IDF sees words of two letters or more, not punctuation, case or order."
        )
    return sentences


def _describe_limits(sweep: SweepScores) -> list[str]:
    return [
        "Other seeds, scores, folds, inputs and selections of rows that were tried are not"
        " accounted for.",
        f"Seed {sweep.details['seed']}; {sweep.details['versions']}.",
    ]


def _best(sweep: SweepScores) -> int:
    """Give the position of the layer whose mean score is the largest."""
    return sweep.layers.index(sweep.naive_best_layer)


def _why_no_interval(sweep: SweepScores) -> str:
    return sweep.no_interval or "all folds have the same score"


def _describe_interval(sweep: SweepScores) -> str:
    if sweep.nested_interval is None:
        return f"without an interval, as {_why_no_interval(sweep)}"
    low, high = (format_score(bound, 3) for bound in sweep.nested_interval)
    if sweep.n_positives is not None:
        return (
            f"95 % interval [{low}, {high}] of {sweep.n_positives:,} positives (the wider of"
            " Clopper and Pearson 1934 and the corrected t)"
        )
    return (
        f"95 % interval [{low}, {high}] by the corrected t over folds and repeats (Nadeau and"
        " Bengio 2003; Bouckaert and Frank 2004)"
    )


def _name_parameters(sweep: SweepScores) -> str:
    competed = sweep.details.get("parameters")
    return f" and the best of the parameters {competed}" if competed else ""


def _times(sweep: SweepScores) -> str:
    return f"{sweep.n_repeats} repeats of " if sweep.n_repeats > 1 else ""


def _score_name(sweep: SweepScores) -> str:
    return name_score(sweep.scoring)
