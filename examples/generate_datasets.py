"""The usage guide's script: the same arguments as ``sklprep generate``."""

import sys

from sklprep.cli import main

sys.exit(main(["generate", *sys.argv[1:]]))
