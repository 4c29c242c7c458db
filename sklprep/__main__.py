"""The command ``sklprep``, which is also ``python -m sklprep``."""

import sys
from collections.abc import Sequence

from sklprep.cli.interrupts import exit_on_signals


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line in this process, which ends at once on Ctrl-C or SIGTERM."""

    def run() -> int:
        # a signal during the imports counts too
        from sklprep.cli.main import main as run_command
        from sklprep.cli.messages import escape_what_streams_cannot_hold

        escape_what_streams_cannot_hold()
        return run_command(argv)

    return exit_on_signals(run)


if __name__ == "__main__":
    sys.exit(main())
