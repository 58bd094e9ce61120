"""``python -m cotray``."""

from cotray.cli import main

if __name__ == "__main__":
    main()
