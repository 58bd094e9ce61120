"""Door for ``ray job submit``: python -m jobs.ingest [options of `cotray ingest`]."""

import sys

from cotray.cli import main

if __name__ == "__main__":
    main(["ingest", *sys.argv[1:]])
