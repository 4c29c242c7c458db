"""What a command measured, written into a page of the documentation between two marks."""

from __future__ import annotations

from pathlib import Path


def write_between(page: Path, name: str, text: str) -> None:
    """Put text between ``<!-- name: begin -->`` and ``<!-- name: end -->``.

    Raises
    ------
    SystemExit
        If the page does not have both marks, once and in this order.
    """
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, found, rest = page.read_text().partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed or begin in after:
        raise SystemExit(f"{page} does not hold {begin} and {end} once; nothing was written.")
    page.write_text(f"{before}{begin}\n{text.strip()}\n{end}{after}")
