"""Directive ``sklprep-command``: the help of a command, taken from its parser."""

from __future__ import annotations

import argparse
from typing import Any, ClassVar

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from sklprep.cli.main import make_parser


def find_parser(name: str) -> Any:
    """Find the parser of a command."""
    for action in make_parser()._actions:
        if isinstance(action, argparse._SubParsersAction):
            return action.choices[name]
    raise LookupError(name)


def name_action(action: argparse.Action) -> str:
    """Write an option or a positional argument as the help does."""
    metavar = action.metavar
    if action.choices is not None and metavar is None:
        metavar = "{" + ",".join(map(str, action.choices)) + "}"
    words = [", ".join(action.option_strings), "" if action.nargs == 0 else str(metavar or "")]
    return " ".join(word for word in words if word)


def describe_action(action: argparse.Action) -> str:
    """Write what an option does, with its default."""
    return (action.help or "") % vars(action)


class Command(SphinxDirective):
    """Show the description, example, options and epilog of a command."""

    required_arguments = 1
    option_spec: ClassVar[dict[str, Any]] = {}

    def run(self) -> list[nodes.Node]:
        """Build the nodes."""
        parser = find_parser(self.arguments[0])
        lines = [escape(" ".join(parser.description.split())), ""]
        lines += ["```bash", parser.example, "```", "", "| option | meaning |", "| --- | --- |"]
        for action in parser._actions:
            if action.help is argparse.SUPPRESS:
                continue
            lines.append(f"| `{name_action(action)}` | {escape(describe_action(action))} |")
        if parser.epilog:
            lines += ["", "```text", parser.epilog, "```"]
        return self.parse_text_to_nodes("\n".join(lines))


def escape(text: str) -> str:
    """Escape the markup of Markdown."""
    for mark in "\\*_|<>$`":
        text = text.replace(mark, f"\\{mark}")
    return text


def setup(app: Any) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("sklprep-command", Command)
    return {"parallel_read_safe": True}
