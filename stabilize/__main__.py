"""`python -m stabilize` is the command line."""

import sys

from stabilize.cli import main

sys.exit(main())
