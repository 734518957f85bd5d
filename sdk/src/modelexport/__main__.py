"""``python -m modelexport`` is the ``modelexport`` command."""

import sys

from modelexport.cli import main

sys.exit(main())
