"""`LayerSweepDisplay`: the plot of a layer sweep."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sklprep.formats.layers import EMBEDDINGS
from sklprep.sweeps.scorers import name_score
from sklprep.sweeps.sweep import layer_sweep
from sklprep.sweeps.sweep_result import LayerSweep
from sklprep.sweeps.wording import format_score

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's colours, which colour-blind readers can tell apart; lines differ in dashes too
_LAYERS, _NESTED = "#0072B2", "#D55E00"
_BASELINE_STYLES = (("#000000", ":"), ("#CC79A7", "-."), ("#009E73", "--"), ("#56B4E9", "-"))
_MOST_TICKS = 14


class LayerSweepDisplay:
    """Plot of a layer sweep: scores and controls, with the nested score beside them.

    Embeddings are leftmost. Each layer has its mean score and, as a bar, the simultaneous 95 % band
    of the curve or, where there is none, the standard deviation over folds. The band of the
    permutation control and the baselines are in the background. The nested score is on the right,
    with its interval: it belongs to the choice of a layer, not to one layer. Triangles on the axis
    count the outer folds that picked each layer.

    Make one with `from_sweep` or `from_estimator`.

    Parameters
    ----------
    sweep : LayerSweep

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    errorbar_ : matplotlib ErrorbarContainer
        Mean and spread of each layer.
    line_ : matplotlib Line2D
        The line that joins consecutive single layers.
    band_ : matplotlib BarContainer or None
        The permutation band.
    baseline_lines_ : dict of str to matplotlib Line2D
    naive_best_ : matplotlib Line2D
        The ring around the largest mean.
    nested_ : matplotlib ErrorbarContainer or None
        The nested score and its interval; None without nesting.
    picked_ : matplotlib Line2D or None
        Triangles under the layers that the outer folds picked.
    legend_ : matplotlib Legend or None

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("agg")
    >>> from sklprep import LayerSweepDisplay, make_activations
    >>> acts = make_activations(60, n_layers=3, d_model=8, n_features=32, random_state=0)
    >>> display = LayerSweepDisplay.from_estimator(None, acts, acts.labels, cv=3, inner_cv=3)
    >>> [label.get_text() for label in display.ax_.get_xticklabels()]
    ['emb', '0', '1', '2', 'chosen']
    """

    __module__ = "sklprep"

    def __init__(self, *, sweep: LayerSweep) -> None:
        self.sweep = sweep

    @classmethod
    def from_sweep(cls, sweep: LayerSweep, *, ax: Axes | None = None) -> Self:
        """Plot the result of `layer_sweep`.

        Parameters
        ----------
        sweep : LayerSweep
        ax : matplotlib Axes, default=None
            By default a new figure.

        Returns
        -------
        LayerSweepDisplay
        """
        return cls(sweep=sweep).plot(ax=ax)

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        acts: Any,
        y: ArrayLike,
        *,
        ax: Axes | None = None,
        **options: Any,
    ) -> Self:
        """Run `layer_sweep` and plot it.

        Parameters
        ----------
        estimator, acts, y
            As in `layer_sweep`.
        ax : matplotlib Axes, default=None
            By default a new figure.
        **options
            Other parameters of `layer_sweep`.

        Returns
        -------
        LayerSweepDisplay

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        import_pyplot("LayerSweepDisplay")
        return cls.from_sweep(layer_sweep(estimator, acts, y, **options), ax=ax)

    def plot(self, ax: Axes | None = None, *, legend: bool = True) -> Self:
        """Draw the sweep.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            By default a new figure.
        legend : bool, default=True
            Put a legend to the right of the axes.

        Returns
        -------
        LayerSweepDisplay
        """
        if ax is None:
            _, ax = import_pyplot("LayerSweepDisplay").subplots(
                figsize=(8, 3.6), layout="constrained"
            )
        self.ax_: Axes = ax
        self.figure_: Any = ax.figure
        self._x = _positions(self.sweep)
        self._draw_layers()
        self._draw_nested()
        self._draw_controls()
        self._label_axes()
        parts = [self.errorbar_, self.naive_best_, self.nested_, self.picked_, self.band_]
        handles = [part for part in [*parts, *self.baseline_lines_.values()] if part is not None]
        self.legend_ = (
            ax.legend(
                handles=handles,
                loc="upper left",
                bbox_to_anchor=(1.01, 1),
                borderaxespad=0,
                frameon=False,
            )
            if legend
            else None
        )
        return self

    def _draw_layers(self) -> None:
        sweep, ax = self.sweep, self.ax_
        x, means = self._x, sweep.mean_scores
        single = np.array([isinstance(layer, int) for layer in sweep.layers])
        # a NaN between two inputs that are not both single layers interrupts the line
        joined = single[1:] & single[:-1]
        gaps = np.flatnonzero(~joined) + 1
        (self.line_,) = ax.plot(
            np.insert(x, gaps, np.nan),
            np.insert(means, gaps, np.nan),
            color=_LAYERS,
            linewidth=1.5,
            zorder=3,
        )
        spread, label = sweep.scores.std(axis=1), "mean ± s.d. over folds"
        if sweep.band is not None:
            spread, label = sweep.band[1] - means, "mean and 95 % band of the curve"
        self.errorbar_ = ax.errorbar(
            x,
            means,
            yerr=spread,
            fmt="o",
            color=_LAYERS,
            markersize=4,
            elinewidth=1,
            alpha=0.9,
            zorder=3,
            label=label,
        )
        best = sweep.layers.index(sweep.naive_best_layer)
        (self.naive_best_,) = ax.plot(
            x[best],
            means[best],
            "o",
            markersize=9,
            fillstyle="none",
            color=_LAYERS,
            zorder=4,
            label=f"naive best {format_score(means[best])}",
        )

    def _draw_nested(self) -> None:
        """Draw the nested score to the right of the layers, and on the axis the picks."""
        sweep, ax = self.sweep, self.ax_
        self.nested_ = self.picked_ = None
        score, right = sweep.nested_score, self._x[-1] + _gap(sweep) + 1.25
        if score is None or sweep.best_layers is None:
            return
        written, bars = format_score(score), None
        if sweep.nested_interval is not None:
            low, high = sweep.nested_interval
            written += f" [{format_score(low)}, {format_score(high)}]"
            bars = np.abs(np.array([[low], [high]]) - score)
        ax.axvline(right - _gap(sweep) / 2 - 0.4, color="0.8", linewidth=0.8, zorder=0)
        self.nested_ = ax.errorbar(
            [right],
            [score],
            yerr=bars,
            fmt="D",
            color=_NESTED,
            markersize=6,
            elinewidth=2,
            capsize=4,
            zorder=5,
            label=f"layer chosen inside the folds:\n{written}",
        )
        counts = Counter(sweep.layers.index(layer) for layer in sweep.best_layers)
        on_axis = ax.get_xaxis_transform()
        (self.picked_,) = ax.plot(
            self._x[list(counts)],
            [0.03] * len(counts),
            "^",
            color=_NESTED,
            markersize=5,
            transform=on_axis,
            label=f"number of outer folds (of {sweep.scores.shape[1]})\nthat chose the layer",
        )
        for position, count in counts.items():
            ax.text(
                self._x[position],
                0.06,
                str(count),
                transform=on_axis,
                ha="center",
                va="bottom",
                fontsize="small",
                color=_NESTED,
            )

    def _draw_controls(self) -> None:
        """Draw the permutation band and the baselines, behind everything else."""
        sweep, ax = self.sweep, self.ax_
        self.band_ = None
        if sweep.permutation_band is not None:
            low, high = sweep.permutation_band
            self.band_ = ax.bar(
                self._x,
                high - low,
                bottom=low,
                width=1.0,
                color="0.88",
                zorder=0,
                label=f"permutation control, 95 %\n($p$ = {sweep.p_value:.2g} for the maximum)",
            )
        self.baseline_lines_ = {}
        for i, (name, baseline) in enumerate(sweep.baselines.items()):
            color, dashes = _BASELINE_STYLES[i % len(_BASELINE_STYLES)]
            self.baseline_lines_[name] = ax.axhline(
                baseline.mean,
                color=color,
                linestyle=dashes,
                linewidth=1.2,
                zorder=1,
                label=f"baseline: {name} {format_score(baseline.mean)}",
            )

    def _label_axes(self) -> None:
        sweep, ax = self.sweep, self.ax_
        labels = ["emb" if layer == EMBEDDINGS else str(layer) for layer in sweep.layers]
        first = int(sweep.layers[0] == EMBEDDINGS)
        only_numbers = all(isinstance(layer, int) for layer in sweep.layers[first:])
        step = -(-len(labels) // _MOST_TICKS) if only_numbers else 1
        shown = [*range(first), *range(first, len(labels), step)]
        ticks, texts = self._x[shown].tolist(), [labels[i] for i in shown]
        crowded = max(map(len, texts)) * len(texts) > 60
        if self.nested_ is not None:
            ticks.append(self._x[-1] + _gap(sweep) + 1.25)
            texts.append("chosen")
        ax.set_xticks(ticks, texts)
        if crowded:
            ax.tick_params(axis="x", labelrotation=45)
        margin = 0.5 + 0.015 * len(labels)
        ax.set_xlim(self._x[0] - margin, max(ticks[-1], self._x[-1]) + margin)
        ax.set_xlabel("Layer" if only_numbers else "Layers")
        name = name_score(sweep.scoring).replace("R2", "$R^2$")
        ax.set_ylabel(f"{name[:1].upper()}{name[1:]} ({sweep.n_folds}-fold)")
        ax.spines[["top", "right"]].set_visible(False)
        if self.nested_ is not None:  # room for the triangles
            low, high = ax.get_ylim()
            ax.set_ylim(low - 0.12 * (high - low), high)


def _gap(sweep: LayerSweep) -> float:
    """Space for tick labels between layers and what is not a layer."""
    return 0.05 * len(sweep.layers)


def _positions(sweep: LayerSweep) -> NDArray[np.float64]:
    x = np.arange(len(sweep.layers), dtype=np.float64)
    if sweep.layers[0] == EMBEDDINGS:
        x[0] -= _gap(sweep)
    return x


def import_pyplot(who: str) -> Any:
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise ImportError(
            f"{who} needs matplotlib, which is not installed: pip install 'sklprep[plot]'."
        ) from error
    return pyplot
