"""python -m countermark."""

from countermark.apps.cli import main

raise SystemExit(main())
