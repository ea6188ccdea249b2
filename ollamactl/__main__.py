"""Entry point of `ollamactl` and of `python -m ollamactl`."""

from __future__ import annotations

from ollamactl.cli import cli


def main() -> None:
    """Run the command line and exit."""
    cli.main()


if __name__ == "__main__":
    main()
