"""Door for ``ray job submit``: python -m jobs.pipeline [options of `cotray run`]."""

import sys

from cotray.cli import main

if __name__ == "__main__":
    main(["run", *sys.argv[1:]])
