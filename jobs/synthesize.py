"""Door for ``ray job submit``: python -m jobs.synthesize [options of `cotray synthesize`]."""

import sys

from cotray.cli import main

if __name__ == "__main__":
    main(["synthesize", *sys.argv[1:]])
