"""The curve of a sweep as an SVG element, for the card that a notebook shows.

It is drawn without matplotlib, so that a card neither needs it nor waits for it: this takes 3 ms
and 13 kB for 27 layers, where matplotlib takes 1.1 s to import, 0.5 s to draw, and 54 kB in every
saved output of the notebook. It also follows a dark theme.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import cycle, islice

import numpy as np
from numpy.typing import NDArray

_WIDTH, _HEIGHT = 720, 260  # fits the narrowest output area of Jupyter and VS Code
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 170, 12, 36  # space for scores, names of lines, and inputs
_MOST_TICKS = 14  # three-digit names still stand apart
_STYLES = (("a", "2 3"), ("b", "8 3 2 3"), ("c", "6 4"), ("a", "12 3"))
_LINE_HEIGHT = 13  # of the card's 11 px text

_Label = tuple[float, str, str]
"""Height, text and colour of a label to the right of the curve."""


def draw_curve(
    names: Sequence[str],
    means: NDArray[np.float64],
    spreads: NDArray[np.float64],
    *,
    joined: Sequence[bool],
    ylabel: str,
    lines: Mapping[str, float],
    band: NDArray[np.float64] | None = None,
    chosen: tuple[float, float, float] | None = None,
) -> str:
    """Draw means with their spreads, baselines, permutation band and the nested score.

    Parameters
    ----------
    names : sequence of str of length n
        Labels under the points.
    means, spreads : ndarray of shape (n,), float64
        Scores and the length of their bars to each side; NaN is left out.
    joined : sequence of bool of length n - 1
        Whether a point is joined to the next.
    ylabel : str
        Name of the vertical axis.
    lines : mapping of str to float
        Horizontal lines and their names.
    band : ndarray of shape (2, n) or None
        Lower and upper ends of the permutation band.
    chosen : (score, low, high) or None
        The nested score and its interval, drawn to the right of the points.

    Returns
    -------
    str
        An ``<svg>`` element, coloured by the variables of `sklprep.notebook.cards`.
    """
    others = [*lines.values(), *(chosen or ()), *(() if band is None else band.ravel())]
    values = np.concatenate([means - spreads, means + spreads, np.array(others, float)])
    gap = 0.25 + 0.05 * len(names)
    plane = _Plane(
        ticks=_ticks(values[np.isfinite(values)]),
        n_places=len(names) + (1 + gap if chosen else 0),
        end=_WIDTH - (_RIGHT if lines or chosen else _TOP),
    )
    parts = [] if band is None else _draw_band(plane, band)
    parts += _draw_grid(plane, ylabel)
    baselines, labels = _draw_lines(plane, lines)
    parts += baselines + _draw_points(plane, names, means, spreads, joined)
    if chosen:
        marker, label = _draw_chosen(plane, len(names) + gap, chosen)
        parts, labels = parts + marker, [*labels, label]
    for height, (_, text, color) in zip(_spread(labels), sorted(labels), strict=True):
        parts.append(_text(plane.end + 8, height + 4, text, "start", f"var(--sklprep-{color})"))
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}" role="img"'
        f' aria-label="{escape(ylabel)} by input">{"".join(parts)}</svg>'
    )


@dataclass(frozen=True)
class _Plane:
    """Maps positions and scores to coordinates in the picture."""

    ticks: NDArray[np.float64]
    n_places: float
    end: float

    @property
    def place_width(self) -> float:
        return (self.end - _LEFT) / self.n_places

    def x(self, position: float) -> float:
        return _LEFT + self.place_width * (position + 0.5)

    def y(self, value: float) -> float:
        share = (value - self.ticks[0]) / (self.ticks[-1] - self.ticks[0])
        return _TOP + (_HEIGHT - _TOP - _BOTTOM) * (1 - share)


def _draw_band(plane: _Plane, band: NDArray[np.float64]) -> list[str]:
    return [
        f'<rect x="{plane.x(i) - plane.place_width / 2:.1f}" y="{plane.y(high):.1f}"'
        f' width="{plane.place_width:.1f}" height="{plane.y(low) - plane.y(high):.1f}"'
        ' fill="var(--sklprep-band)"/>'
        for i, (low, high) in enumerate(band.T)
        if math.isfinite(low + high)
    ]


def _draw_grid(plane: _Plane, ylabel: str) -> list[str]:
    ticks = plane.ticks
    digits = max(0, -math.floor(math.log10(ticks[1] - ticks[0]) + 1e-9))
    parts = []
    for tick in ticks:
        y = plane.y(tick)
        parts += [
            _segment(_LEFT, y, plane.end, y, "line", 'stroke-width="0.5"'),
            _text(_LEFT - 6, y + 4, f"{tick:.{digits}f}", "end"),
        ]
    middle = (_HEIGHT - _BOTTOM + _TOP) / 2
    return [
        *parts,
        _text((_LEFT + plane.end) / 2, _HEIGHT - 4, "input", "middle"),
        f'<text transform="translate(11 {middle:.0f}) rotate(-90)" text-anchor="middle">'
        f"{escape(ylabel)}</text>",
    ]


def _draw_lines(plane: _Plane, lines: Mapping[str, float]) -> tuple[list[str], list[_Label]]:
    """Draw the lines with finite values, and give their labels."""
    parts, labels = [], []
    styles = islice(cycle(_STYLES), len(lines))
    for (name, value), (color, dashes) in zip(lines.items(), styles, strict=True):
        if math.isfinite(value):
            y = plane.y(value)
            style = f'stroke-width="1.2" stroke-dasharray="{dashes}"'
            parts.append(_segment(_LEFT, y, plane.end, y, color, style))
            labels.append((y, f"{name} {value:.2f}", color))
    return parts, labels


def _draw_points(
    plane: _Plane,
    names: Sequence[str],
    means: NDArray[np.float64],
    spreads: NDArray[np.float64],
    joined: Sequence[bool],
) -> list[str]:
    x, y = plane.x, plane.y
    parts = [
        _segment(x(i), y(means[i]), x(i + 1), y(means[i + 1]), "curve", 'stroke-width="1.8"')
        for i, join in enumerate(joined)
        if join and math.isfinite(means[i] + means[i + 1])
    ]
    for i, (name, mean, spread) in enumerate(zip(names, means, spreads, strict=True)):
        if math.isfinite(mean + spread):
            low, high = y(mean - spread), y(mean + spread)
            bar = _segment(x(i), low, x(i), high, "curve", 'stroke-width="1"')
            title = f"<title>{escape(name)}: {mean:.3f} ± {spread:.3f}</title>"
            at = f'cx="{x(i):.1f}" cy="{y(mean):.1f}"'
            dot = f'<circle {at} r="3.5" fill="var(--sklprep-curve)"/>'
            parts.append(f"<g>{title}{bar}{dot}</g>")
    return parts + [_text(x(i), _HEIGHT - 20, names[i], "middle") for i in _shown_ticks(names)]


def _draw_chosen(
    plane: _Plane, position: float, chosen: tuple[float, float, float]
) -> tuple[list[str], _Label]:
    score, low, high = chosen
    x, y = plane.x(position), plane.y(score)
    parts = [
        _segment(x, plane.y(low), x, plane.y(high), "chosen", 'stroke-width="2.5"'),
        f'<path d="M{x:.1f} {y - 6:.1f}l6 6l-6 6l-6 -6z" fill="var(--sklprep-chosen)"/>',
        _text(x, _HEIGHT - 20, "chosen", "middle"),
    ]
    return parts, (y, f"chosen {score:.2f} [{low:.2f}, {high:.2f}]", "chosen")


def _segment(x1: float, y1: float, x2: float, y2: float, color: str, style: str) -> str:
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
        f' stroke="var(--sklprep-{color})" {style}/>'
    )


def _text(x: float, y: float, text: str, anchor: str, color: str = "") -> str:
    style = f' style="fill: {color}"' if color else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{style}>{escape(text)}</text>'


def _ticks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give three to seven round numbers that span the values."""
    low, high = (values.min(), values.max()) if len(values) else (0.0, 1.0)
    high = high if high - low > 1e-9 * max(1.0, abs(high)) else low + max(0.1, 0.1 * abs(low))
    rough = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = power * next(k for k in (1, 2, 5, 10) if k * power >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return np.arange(first, last + 1) * step


def _shown_ticks(names: Sequence[str]) -> list[int]:
    """Give the points that are labelled: as many as there is space for."""
    widest = max(map(len, names))
    room = max(2, min(_MOST_TICKS, 80 // max(1, widest + 1)))
    return list(range(0, len(names), -(-len(names) // room)))


def _spread(labels: Sequence[_Label]) -> list[float]:
    """Give the heights of labels, ascending, moved apart so that they do not overlap."""
    heights = [float(label[0]) for label in sorted(labels)]
    for i in range(1, len(heights)):
        heights[i] = max(heights[i], heights[i - 1] + _LINE_HEIGHT)
    excess = max(0.0, heights[-1] - (_HEIGHT - _BOTTOM)) if heights else 0.0
    for i in range(len(heights) - 1, -1, -1):
        limit = heights[i + 1] - _LINE_HEIGHT if i + 1 < len(heights) else heights[i] - excess
        heights[i] = min(heights[i], limit)
    return heights
