"""`python -m gdb_uffd.cli`: the command without its entry point."""

import sys

from gdb_uffd.cli import main

sys.exit(main())
