"""The usage guide's script, which takes the arguments of ``sklprep generate``."""

import sys

from sklprep.__main__ import main

sys.exit(main(["generate", *sys.argv[1:]]))
