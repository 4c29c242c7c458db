"""``python -m sklprep``."""

import sys

from sklprep.cli import main

sys.exit(main())
