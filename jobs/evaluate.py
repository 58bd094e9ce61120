"""Door for ``ray job submit``: python -m jobs.evaluate [options of `cotray evaluate`]."""

import sys

from cotray.cli import main

if __name__ == "__main__":
    main(["evaluate", *sys.argv[1:]])
