"""The curve of a sweep as an SVG element, for notebooks; drawn by hand, without matplotlib."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

_WIDTH, _HEIGHT = 720, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 170, 12, 36
_MOST_TICKS = 14
_STYLES = (("a", "2 3"), ("b", "8 3 2 3"), ("c", "6 4"), ("a", "12 3"))
_LINE_HEIGHT = 13


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
        Under the points.
    means, spreads : ndarray of shape (n,)
        Scores and the length of their bars to each side; what is NaN is left out.
    joined : sequence of bool of length n - 1
        Whether a point is joined with the next.
    ylabel : str
    lines : mapping of str to float
        Horizontal lines and their names.
    band : ndarray of shape (2, n) or None
    chosen : (score, low, high) or None
        Stands to the right of the points.

    Returns
    -------
    str
        An ``<svg>`` element, coloured by the variables of `sklprep.displays`.
    """
    shown = [
        means - spreads,
        means + spreads,
        list(lines.values()),
        *(() if band is None else band),
    ]
    values = np.concatenate([np.ravel(part) for part in [*shown, chosen or []]]).astype(float)
    ticks = _ticks(values[np.isfinite(values)])
    gap = 0.25 + 0.05 * len(names)
    n_places = len(names) + (1 + gap if chosen else 0)
    end = _WIDTH - (_RIGHT if lines or chosen else _TOP)
    plot_width = end - _LEFT

    def x(position: float) -> float:
        return _LEFT + plot_width * (position + 0.5) / n_places

    def y(value: float) -> float:
        share = (value - ticks[0]) / (ticks[-1] - ticks[0])
        return _TOP + (_HEIGHT - _TOP - _BOTTOM) * (1 - share)

    parts = []
    if band is not None:
        half = plot_width / n_places / 2
        parts += [
            f'<rect x="{x(i) - half:.1f}" y="{y(high):.1f}" width="{2 * half:.1f}"'
            f' height="{y(low) - y(high):.1f}" fill="var(--sklprep-band)"/>'
            for i, (low, high) in enumerate(band.T)
            if math.isfinite(low + high)
        ]
    digits = max(0, -math.floor(math.log10(ticks[1] - ticks[0]) + 1e-9))
    for tick in ticks:
        parts += [
            _segment(_LEFT, y(tick), end, y(tick), "line", 'stroke-width="0.5"'),
            _text(_LEFT - 6, y(tick) + 4, f"{tick:.{digits}f}", "end"),
        ]
    labels = []
    for (name, value), (color, dashes) in zip(lines.items(), _cycle(len(lines)), strict=True):
        if math.isfinite(value):
            style = f'stroke-width="1.2" stroke-dasharray="{dashes}"'
            parts.append(_segment(_LEFT, y(value), end, y(value), color, style))
            labels.append((y(value), f"{name} {value:.2f}", color))
    points = [
        (x(i), mean, spread) for i, (mean, spread) in enumerate(zip(means, spreads, strict=True))
    ]
    for (left, one, _), (right, other, _), join in zip(points, points[1:], joined, strict=False):
        if join and math.isfinite(one + other):
            parts.append(_segment(left, y(one), right, y(other), "curve", 'stroke-width="1.8"'))
    for name, (at, mean, spread) in zip(names, points, strict=True):
        if math.isfinite(mean + spread):
            bar = _segment(at, y(mean - spread), at, y(mean + spread), "curve", 'stroke-width="1"')
            title = f"<title>{escape(name)}: {mean:.3f} ± {spread:.3f}</title>"
            dot = f'<circle cx="{at:.1f}" cy="{y(mean):.1f}" r="3.5" fill="var(--sklprep-curve)"/>'
            parts.append(f"<g>{title}{bar}{dot}</g>")
    parts += [_text(x(i), _HEIGHT - 20, names[i], "middle") for i in _shown_ticks(names)]
    if chosen:
        at = x(len(names) + gap)
        score, low, high = chosen
        style = 'stroke-width="2.5"'
        parts += [
            _segment(at, y(low), at, y(high), "chosen", style),
            f'<path d="M{at:.1f} {y(score) - 6:.1f}l6 6l-6 6l-6 -6z"'
            ' fill="var(--sklprep-chosen)"/>',
            _text(at, _HEIGHT - 20, "chosen", "middle"),
        ]
        labels.append((y(score), f"chosen {score:.2f} [{low:.2f}, {high:.2f}]", "chosen"))
    for height, (_, label, color) in zip(_spread(labels), sorted(labels), strict=True):
        parts.append(_text(end + 8, height + 4, label, "start", f"var(--sklprep-{color})"))
    parts.append(_text(_LEFT + plot_width / 2, _HEIGHT - 4, "input", "middle"))
    middle = (_HEIGHT - _BOTTOM + _TOP) / 2
    parts.append(
        f'<text transform="translate(11 {middle:.0f}) rotate(-90)" text-anchor="middle">'
        f"{escape(ylabel)}</text>"
    )
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}" role="img"'
        f' aria-label="{escape(ylabel)} by input">{"".join(parts)}</svg>'
    )


def _segment(x1: float, y1: float, x2: float, y2: float, color: str, style: str) -> str:
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
        f' stroke="var(--sklprep-{color})" {style}/>'
    )


def _text(x: float, y: float, text: str, anchor: str, color: str = "") -> str:
    style = f' style="fill: {color}"' if color else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{style}>{escape(text)}</text>'


def _cycle(n: int) -> list[tuple[str, str]]:
    return [_STYLES[i % len(_STYLES)] for i in range(n)]


def _ticks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Three to seven round numbers that span the values."""
    low, high = (values.min(), values.max()) if len(values) else (0.0, 1.0)
    high = high if high - low > 1e-9 * max(1.0, abs(high)) else low + max(0.1, 0.1 * abs(low))
    rough = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = power * next(k for k in (1, 2, 5, 10) if k * power >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return np.arange(first, last + 1) * step


def _shown_ticks(names: Sequence[str]) -> list[int]:
    """Which points are named: as many as there is room for."""
    widest = max(map(len, names))
    room = max(2, min(_MOST_TICKS, 80 // max(1, widest + 1)))
    return list(range(0, len(names), -(-len(names) // room)))


def _spread(labels: Sequence[tuple[Any, ...]]) -> list[float]:
    """Heights of labels, in ascending order, moved apart so that they can be read."""
    heights = [float(label[0]) for label in sorted(labels)]
    for i in range(1, len(heights)):
        heights[i] = max(heights[i], heights[i - 1] + _LINE_HEIGHT)
    excess = max(0.0, heights[-1] - (_HEIGHT - _BOTTOM)) if heights else 0.0
    for i in range(len(heights) - 1, -1, -1):
        limit = heights[i + 1] - _LINE_HEIGHT if i + 1 < len(heights) else heights[i] - excess
        heights[i] = min(heights[i], limit)
    return heights
