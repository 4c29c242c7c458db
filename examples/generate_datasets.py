"""The usage guide's script: the same arguments as ``sklprep generate``."""

import sys

from sklprep.__main__ import main

sys.exit(main(["generate", *sys.argv[1:]]))
