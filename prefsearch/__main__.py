"""`python -m prefsearch`: the command without its installed script."""

import sys

from prefsearch.cli.entry import main

sys.exit(main())
