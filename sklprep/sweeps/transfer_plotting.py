"""`TransferMatrixDisplay`: the plot of a transfer matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from sklprep.sweeps.plotting import import_pyplot
from sklprep.sweeps.scorers import name_score
from sklprep.sweeps.transfer import transfer_matrix
from sklprep.sweeps.transfer_result import TransferMatrix
from sklprep.sweeps.wording import format_score, name_input

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LOWEST = {"accuracy": 0.0, "balanced_accuracy": 0.0, "f1_macro": 0.0, "roc_auc": 0.5}
"""Where the colours of scores that end at 1 start; other scores use the range of the matrix."""

_COLORS = "cividis"  # looks alike to colour-blind readers


class TransferMatrixDisplay:
    """Plot of a transfer matrix: a heat map of its scores, and one of cosines beside it.

    A cell shows its score, its interval, and the layer that the training rows chose most often.
    Cosines are those of the layer chosen most often on the diagonal.

    Make one with `from_matrix` or `from_estimator`.

    Parameters
    ----------
    matrix : TransferMatrix

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes
        One, or two with cosines.
    figure_ : matplotlib Figure
    scores_, cosines_ : matplotlib AxesImage
        `cosines_` is None where there are no directions.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("agg")
    >>> from sklprep import TransferMatrixDisplay, make_activations
    >>> acts = make_activations(120, n_layers=2, d_model=8, n_features=32, random_state=0)
    >>> sets = {name: (acts[i::2], acts[i::2].labels) for i, name in enumerate(["odd", "even"])}
    >>> display = TransferMatrixDisplay.from_estimator(None, sets, layers=[1], cv=4, n_repeats=1)
    >>> [label.get_text() for label in display.axes_[0].get_xticklabels()]
    ['odd\\n(majority 0.30)', 'even\\n(majority 0.30)']
    """

    __module__ = "sklprep"

    def __init__(self, *, matrix: TransferMatrix) -> None:
        self.matrix = matrix

    @classmethod
    def from_matrix(cls, matrix: TransferMatrix, *, axes: Sequence[Axes] | None = None) -> Self:
        """Plot the result of `transfer_matrix`.

        Parameters
        ----------
        matrix : TransferMatrix
        axes : sequence of one or two matplotlib Axes, default=None
            By default a new figure.

        Returns
        -------
        TransferMatrixDisplay
        """
        return cls(matrix=matrix).plot(axes)

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        sets: Mapping[str, tuple[Any, Any]],
        *,
        axes: Sequence[Axes] | None = None,
        **options: Any,
    ) -> Self:
        """Run `transfer_matrix` and plot it.

        Parameters
        ----------
        estimator, sets
            As in `transfer_matrix`.
        axes : sequence of one or two matplotlib Axes, default=None
            By default a new figure.
        **options
            Other parameters of `transfer_matrix`.

        Returns
        -------
        TransferMatrixDisplay

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        import_pyplot("TransferMatrixDisplay")
        return cls.from_matrix(transfer_matrix(estimator, sets, **options), axes=axes)

    def plot(self, axes: Sequence[Axes] | None = None) -> Self:
        """Draw the matrix.

        Parameters
        ----------
        axes : sequence of one or two matplotlib Axes, default=None
            By default a new figure. Cosines are drawn on the second one.

        Returns
        -------
        TransferMatrixDisplay
        """
        matrix = self.matrix
        self.axes_ = np.asarray(self._make_axes() if axes is None else axes, dtype=object).ravel()
        self.figure_: Any = self.axes_[0].figure
        self.scores_ = self._draw_scores(self.axes_[0])
        draws_cosines = len(self.axes_) > 1 and not matrix.no_cosines
        self.cosines_ = self._draw_cosines(self.axes_[1]) if draws_cosines else None
        return self

    def _make_axes(self) -> Any:
        n_panels = 1 if self.matrix.no_cosines else 2
        width, height = 1.3 + 1.15 * len(self.matrix.sets), 1.6 + 0.75 * len(self.matrix.rows)
        pyplot = import_pyplot("TransferMatrixDisplay")
        return pyplot.subplots(
            1, n_panels, figsize=(width * n_panels, height), layout="constrained"
        )[1]

    def _draw_scores(self, ax: Axes) -> Any:
        found = self.matrix
        values, intervals = found.matrix, found.intervals
        texts = np.empty(values.shape, dtype=object)
        for (i, j), value in np.ndenumerate(values):
            low, high = intervals[i, j]
            around = "" if np.isnan(low) else f"\n[{format_score(low)}, {format_score(high)}]"
            layer = found.chosen_most(i, j)
            chosen = f"\nlayer {layer}" if isinstance(layer, int) else f"\n{layer}"
            texts[i, j] = format_score(value) + around + chosen * (len(found.layers) > 1)
        low = _LOWEST.get(found.scoring, float(values.min()))
        high = 1.0 if found.scoring in _LOWEST else float(values.max())
        image = _draw(ax, values, texts, found.rows, found.sets, (low, high))
        if found.majority is not None:
            labels = [
                f"{label.get_text()}\n(majority {format_score(score)})"
                for label, score in zip(ax.get_xticklabels(), found.majority, strict=True)
            ]
            ax.set_xticks(range(len(labels)), labels)
        score = name_score(found.scoring)
        ax.set(xlabel="tested on", ylabel="trained on", title=f"{score[0].upper()}{score[1:]}")
        return image

    def _draw_cosines(self, ax: Axes) -> Any:
        found, layer = self.matrix, self.matrix.cosine_layer
        values = found.cosines[found.layers.index(layer)]
        texts = np.vectorize(format_score, otypes=[object])(values)
        image = _draw(ax, values, texts, found.sets, found.sets, (min(0.0, np.nanmin(values)), 1.0))
        ax.set_title(f"Cosine of the directions at {name_input(layer)}\n(of two halves)")
        return image


def _draw(
    ax: Axes,
    values: NDArray[np.float64],
    texts: NDArray[Any],
    rows: list[str],
    columns: list[str],
    limits: tuple[float, float],
) -> Any:
    image = ax.imshow(values, cmap=_COLORS, vmin=limits[0], vmax=limits[1], aspect="auto")
    for (i, j), text in np.ndenumerate(texts):
        color = "black" if values[i, j] > sum(limits) / 2 else "white"
        ax.text(j, i, text, ha="center", va="center", color=color, fontsize="small")
    ax.set_xticks(range(len(columns)), [name.replace("_", "\n") for name in columns])
    ax.set_yticks(range(len(rows)), [name.replace("_", "\n") for name in rows])
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    return image
