"""`python -m bench`: the measurements, by name."""

from __future__ import annotations

import argparse
import sys

from bench import equality, serving
from bench.peers import command as peers


def main() -> int:
    """Run the measurement that the command line names; return the exit status."""
    parser = argparse.ArgumentParser(prog="bench", description="Measure ollamad.")
    subparsers = parser.add_subparsers(required=True, metavar="MEASUREMENT")
    for name, module, words in (
        ("peers", peers, "compare with llama.cpp's own server, side by side"),
        ("equality", equality, "compare what both write, token by token, without any chance"),
        ("serving", serving, "measure a daemon that runs already"),
    ):
        subparser = subparsers.add_parser(name, help=words, description=f"{words.capitalize()}.")
        module.add_arguments(subparser)
        subparser.set_defaults(run=module.run)
    arguments = parser.parse_args()
    try:
        return int(arguments.run(arguments))
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
