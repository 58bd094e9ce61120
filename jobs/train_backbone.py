"""Door for ``ray job submit``: python -m jobs.train_backbone [options of `cotray train-backbone`]."""

import sys

from cotray.cli import main

if __name__ == "__main__":
    main(["train-backbone", *sys.argv[1:]])
