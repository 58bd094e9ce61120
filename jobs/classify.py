"""Door for ``ray job submit``: python -m jobs.classify [options of `cotray classify`]."""

import sys

from cotray.cli import main

if __name__ == "__main__":
    main(["classify", *sys.argv[1:]])
