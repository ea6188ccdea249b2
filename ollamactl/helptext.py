"""Help pages: what every command's `-h` shows, beyond what click writes by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import click

HOST_VARIABLE: Final = (
    "OLLAMA_HOST",
    "Where the daemon is: host, host:port or a URL. Default 127.0.0.1:11434.",
)
PROXY_VARIABLES: Final = (
    "HTTP_PROXY, HTTPS_PROXY, NO_PROXY",
    "Proxies on the way to a daemon on another machine. Never used on this one.",
)
ADMIN_VARIABLE: Final = (
    "OLLAMAD_ADMIN_SOCKET",
    "The daemon's admin socket, as --socket. Default: the user's own, else the system's.",
)


class DocumentedCommand(click.Command):
    """A command whose help ends with examples, environment variables and exit status."""

    def __init__(
        self,
        *args: Any,  # Any: click's own constructor, handed through.
        examples: Sequence[tuple[str, str]] = (),
        environment: Sequence[tuple[str, str]] = (HOST_VARIABLE, PROXY_VARIABLES),
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._examples = examples
        self._environment = environment

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the sections after the options."""
        if self._examples:
            with formatter.section("Examples"):
                for i, (words, line) in enumerate(self._examples):
                    if i:
                        formatter.write_paragraph()
                    formatter.write_text(words)
                    # Not through write_text: a command must stay on one line to be copied.
                    formatter.write(f"{'':>{formatter.current_indent + 2}}{line}\n")
        if self._environment:
            with formatter.section("Environment Variables"):
                formatter.write_dl(list(self._environment))
        with formatter.section("Exit Status"):
            formatter.write_text("0 on success, 1 on any error, 130 when interrupted.")
        super().format_epilog(ctx, formatter)
