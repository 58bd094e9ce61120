"""Door for ``ray job submit``: python -m jobs.extract [options of `cotray extract`]."""

import sys

from cotray.cli import main

if __name__ == "__main__":
    main(["extract", *sys.argv[1:]])
