"""``python -m gclip``."""

import sys

from gclip.cli import main

sys.exit(main())
