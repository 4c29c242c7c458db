"""The card that notebooks show for an object.

It is HTML and CSS without scripts. Its colours follow the theme of the notebook if that declares it
(JupyterLab, VS Code, Colab), and otherwise the browser's preference.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

_LIGHT = """
  --sklprep-text: #1c2733; --sklprep-muted: #5b6875; --sklprep-line: #b9c6d3;
  --sklprep-background: #ffffff; --sklprep-head: #e3f0fb; --sklprep-edge: #4f8fd0;
  --sklprep-curve: #0072b2; --sklprep-chosen: #c44e00; --sklprep-band: #e4e7ea;
  --sklprep-a: #1c2733; --sklprep-b: #a8457e; --sklprep-c: #00795a; color-scheme: light;
"""
_DARK = """
  --sklprep-text: #e3e8ee; --sklprep-muted: #9eabb8; --sklprep-line: #4a5663;
  --sklprep-background: #14181d; --sklprep-head: #1d3348; --sklprep-edge: #4f8fd0;
  --sklprep-curve: #58b2ea; --sklprep-chosen: #f08a4b; --sklprep-band: #2c343d;
  --sklprep-a: #e3e8ee; --sklprep-b: #e08fbd; --sklprep-c: #43c79f; color-scheme: dark;
"""
_STYLE = (
    f"""
.sklprep-card {{{_LIGHT}}}
@media (prefers-color-scheme: dark) {{ .sklprep-card {{{_DARK}}} }}
:is([data-jp-theme-light=false], .vscode-dark, .vscode-high-contrast, html[theme=dark],
  [data-theme=dark]) .sklprep-card {{{_DARK}}}
:is([data-jp-theme-light=true], .vscode-light, html[theme=light], [data-theme=light])
  .sklprep-card {{{_LIGHT}}}
"""
    + """
.sklprep-card {
  display: inline-block; max-width: 100%; box-sizing: border-box; overflow-x: auto;
  border: 1px solid var(--sklprep-edge); border-radius: 4px; line-height: 1.45;
  background: var(--sklprep-background); color: var(--sklprep-text);
  font-family: system-ui, sans-serif; font-size: 13px;
}
.sklprep-card header { background: var(--sklprep-head); padding: 5px 12px; }
.sklprep-card header b { font-family: ui-monospace, monospace; }
.sklprep-card header span { color: var(--sklprep-muted); margin-left: 8px; }
.sklprep-card p { margin: 8px 12px; max-width: 88ch; }
.sklprep-card small { color: var(--sklprep-muted); font-size: 11px; }
.sklprep-card table {
  border-collapse: collapse; margin: 6px 12px 8px; border: none; font-size: inherit;
}
.sklprep-card tr, .sklprep-card tr:hover { background: none; }
.sklprep-card :is(th, td) {
  text-align: left; vertical-align: top; padding: 1px 18px 1px 0; border: none;
  color: var(--sklprep-text); background: none; max-width: 88ch; white-space: normal;
  overflow-wrap: anywhere;
}
.sklprep-card th { font-weight: normal; color: var(--sklprep-muted); white-space: nowrap; }
.sklprep-card details { border-top: 1px dotted var(--sklprep-line); }
.sklprep-card summary { cursor: pointer; padding: 3px 12px; color: var(--sklprep-muted); }
.sklprep-card svg { display: block; margin: 4px 12px; max-width: 100%; height: auto; }
.sklprep-card svg text { fill: var(--sklprep-muted); font-size: 11px; }
"""
)


def card(
    title: str,
    subtitle: str,
    facts: Iterable[tuple[str, str]] = (),
    *,
    lead: str = "",
    picture: str = "",
    caption: str = "",
    details: Iterable[tuple[str, str]] = (),
) -> str:
    """Make the HTML of a card.

    Parameters
    ----------
    title, subtitle, lead, caption : str
        Text; the caption is below the picture.
    facts : iterable of (str, str)
        Names and values, as text.
    picture : str
        An SVG element, as `sklprep.notebook.curve.draw_curve` makes it.
    details : iterable of (str, str)
        Sections that can be unfolded: title as text, content as HTML (see `table`).

    Returns
    -------
    str
        HTML, with all text escaped.

    Examples
    --------
    >>> "1 &lt; 2" in card("Title", "", [("fact", "1 < 2")])
    True
    """
    parts = [
        f"<style>{_STYLE}</style>",
        '<div class="sklprep-card">',
        f"<header><b>{escape(title)}</b><span>{escape(subtitle)}</span></header>",
        f"<p>{escape(lead)}</p>" if lead else "",
        picture,
        f"<p><small>{escape(caption)}</small></p>" if caption else "",
        table([], facts),
        *(
            f"<details><summary>{escape(name)}</summary>{content}</details>"
            for name, content in details
        ),
        "</div>",
    ]
    return "\n".join(part for part in parts if part)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Make an HTML table of text, with row names in the first cells; empty if there are no rows."""
    lines = [
        f'<tr><th scope="row">{escape(name)}</th>'
        + "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        + "</tr>"
        for name, *cells in rows
    ]
    names = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    titles = f"<thead><tr>{names}</tr></thead>" if head else ""
    return f"<table>{titles}<tbody>{''.join(lines)}</tbody></table>" if lines else ""
