"""Runs the demo as ``python -m cli.demo``, which is what ``./dev demo`` does."""

import sys

from cli.main import main

if __name__ == "__main__":
    sys.exit(main(["demo", *sys.argv[1:]]))
