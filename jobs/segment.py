"""Door for ``ray job submit``: python -m jobs.segment [options of `cotray segment`]."""

import sys

from cotray.cli import main

if __name__ == "__main__":
    main(["segment", *sys.argv[1:]])
