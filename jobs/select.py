"""Door for ``ray job submit``: python -m jobs.select [options of `cotray select`]."""

import sys

from cotray.cli import main

if __name__ == "__main__":
    main(["select", *sys.argv[1:]])
