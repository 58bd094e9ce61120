"""Door for ``ray job submit``: python -m jobs.tune [options of `cotray tune`]."""

import sys

from cotray.cli import main

if __name__ == "__main__":
    main(["tune", *sys.argv[1:]])
