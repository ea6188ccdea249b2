"""A conversation at the terminal: what was said, what is set, and the commands that begin with `/`.

Where the lines come from is not its business (`ollamactl.promptline` at a terminal, a list in
tests). Unlike Ollama's, an error of the daemon does not end the conversation: it is shown, the
question is taken back, and the next line is asked for.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from typing import Final

from ollamactl.answer import AnswerPrinter, print_statistics
from ollamactl.errors import ApiError, CtlError
from ollamactl.http import Client
from ollamactl.modelfile import Parameters, add_parameter
from ollamactl.progress import waiting
from ollamactl.promptline import without_quotes
from ollamactl.render import note, write, write_line
from ollamactl.showpage import show_page
from ollamactl.wire import JsonObject, Piece, ShownModel, read_as

MESSAGES_MAX: Final = 10_000
"""Messages kept; beyond it the oldest go. No model's context holds as many."""

HELP: Final = """\
Available Commands:
  /set            Set session variables
  /show           Show model information
  /clear          Clear session context
  /bye, /exit     Exit
  /?, /help       Help for a command
  /? shortcuts    Help for keyboard shortcuts

Use \"\"\" to begin a multi-line message."""
HELP_SET: Final = """\
Available Commands:
  /set parameter <name> <value>  Set a parameter
  /set system <text>             Set the system message
  /set format json               Ask for JSON
  /set noformat                  Ask for text
  /set think [level]             Let the model think
  /set nothink                   Answer without thinking
  /set wordwrap                  Wrap lines at words
  /set nowordwrap                Leave lines as they are
  /set verbose                   Show statistics
  /set quiet                     Show no statistics"""
HELP_SHOW: Final = """\
Available Commands:
  /show info        Show details for this model
  /show license     Show model license
  /show modelfile   Show Modelfile for this model
  /show parameters  Show parameters for this model
  /show system      Show system message
  /show template    Show prompt template"""
HELP_SHORTCUTS: Final = """\
Available keyboard shortcuts:
  Enter             Send
  Ctrl + j          Add a line without sending
  Ctrl + a, e       Move to the beginning, the end of the line
  Alt + b, f        Move back, forward by one word
  Up, Down          Earlier, later messages
  Ctrl + r          Search earlier messages
  Ctrl + u, k       Delete to the beginning, the end of the line
  Ctrl + w          Delete the word before the cursor
  Ctrl + l          Clear the screen
  Ctrl + g          Edit in VISUAL or EDITOR
  Ctrl + c          Stop the answer
  Ctrl + d          Exit"""

THINK_LEVELS: Final = ("high", "medium", "low", "max")


@dataclasses.dataclass(slots=True, kw_only=True)
class ChatSettings:
    """What the flags of `run` set and `/set` changes."""

    keep_alive: str | None = None
    format: object = None
    think: bool | str | None = None
    hides_thinking: bool = False
    is_verbose: bool = False
    wraps: bool = True
    parameters: Parameters = dataclasses.field(default_factory=dict)
    system: str | None = None

    def request(self, model: str) -> JsonObject:
        """Return the fields that every request about *model* has."""
        fields: JsonObject = {"model": model, "options": self.parameters}
        if self.keep_alive is not None:
            fields["keep_alive"] = self.keep_alive
        if self.format is not None:
            fields["format"] = self.format
        if self.think is not None:
            fields["think"] = self.think
        return fields


class Chat:
    """One conversation with one model."""

    def __init__(
        self, client: Client, model: str, shown: ShownModel, settings: ChatSettings
    ) -> None:
        self._client = client
        self._model = model
        self._shown = shown
        self._settings = settings
        self._messages: list[JsonObject] = []

    def run(self, ask: Callable[[], str]) -> None:
        """Answer what *ask* returns until it raises EOFError or the user leaves."""
        self._show_stored_messages()
        while True:
            try:
                text = ask()
            except KeyboardInterrupt:
                write_line("\nUse Ctrl + d or /bye to exit.")
                continue
            except EOFError:
                write_line()
                return
            try:
                if not self._obey(text):
                    return
            except KeyboardInterrupt:
                write_line()
            except ApiError as error:
                note(f"Error: {error.with_status}")
            except CtlError as error:
                note(f"Error: {error}")

    def _obey(self, text: str) -> bool:
        """Do what one input asks for; return whether the conversation goes on."""
        words = text.split()
        match words:
            case []:
                pass
            case ["/bye" | "/exit", *_]:
                return False
            case ["/clear", *_]:
                self._messages.clear()
                write_line("Cleared session context")
            case ["/?" | "/help", "set" | "/set", *_]:
                note(HELP_SET)
            case ["/?" | "/help", "show" | "/show", *_]:
                note(HELP_SHOW)
            case ["/?" | "/help", "shortcuts", *_]:
                note(HELP_SHORTCUTS)
            case ["/?" | "/help", *_]:
                note(HELP)
            case ["/set", *arguments]:
                self._set(arguments, text)
            case ["/show", *arguments]:
                self._show(arguments)
            case [word, *_] if word.startswith("/") and "/" not in word[1:]:
                write_line(f"Unknown command '{word}'. Type /? for help")
            case _:
                self._answer(without_quotes(text))
        return True

    def _answer(self, text: str) -> None:
        """Send *text* and show the answer.

        A failed question is taken back, so that it does not fail the next one too. A question
        whose answer the user stopped stays, without the part of an answer.
        """
        self._messages.append({"role": "user", "content": text})
        del self._messages[:-MESSAGES_MAX]
        try:
            answer = self._stream()
        except CtlError:
            self._messages.pop()
            raise
        self._messages.append(answer)
        write_line("\n")

    def _stream(self) -> JsonObject:
        settings = self._settings
        printer = AnswerPrinter(hides_thinking=settings.hides_thinking, wraps=settings.wraps)
        messages = self._messages
        if settings.system is not None:
            messages = [{"role": "system", "content": settings.system}, *messages]
        body = settings.request(self._model) | {"messages": messages, "stream": True}
        last = Piece()
        with (
            waiting() as spinner,
            contextlib.closing(self._client.stream("/api/chat", body)) as got,
        ):
            try:
                for answer in got:
                    last = read_as(Piece, answer)
                    if last.message.content or last.message.thinking:
                        spinner.over()
                    printer.take(last)
            except (CtlError, KeyboardInterrupt):
                spinner.over()
                printer.break_off()
                raise
        printer.finish()
        if settings.is_verbose:
            write_line()
            print_statistics(last)
        message: JsonObject = {"role": "assistant", "content": printer.text}
        if printer.thinking:
            message["thinking"] = printer.thinking
        return message

    def _show_stored_messages(self) -> None:
        """Show what the model's maker has put before the conversation; the daemon adds it."""
        for message in self._shown.messages or ():
            if message.role == "user":
                write_line(f">>> {message.content}")
            elif message.role == "assistant":
                write_line(f"{message.content}\n")

    def _set(self, arguments: list[str], text: str) -> None:
        match arguments:
            case ["verbose" | "quiet" | "wordwrap" | "nowordwrap" | "nothink" as mode]:
                self._set_mode(mode)
            case ["format" | "noformat", *_]:
                self._set_format(arguments)
            case ["think"]:
                self._set_think(True)
                write_line("Set 'think' mode.")
            case ["think", level] if level in THINK_LEVELS:
                self._set_think(level)
                write_line(f"Set 'think' mode to '{level}'.")
            case ["system", _, *_]:
                self._settings.system = without_quotes(text.strip().split(maxsplit=2)[2])
                write_line("Set system message.")
            case ["parameter", name, *values] if values:
                self._set_parameter(name, values)
            case [] | ["parameter" | "system" | "think", *_]:
                note(HELP_SET)
            case [other, *_]:
                write_line(f"Unknown command '/set {other}'. Type /? for help")

    def _set_mode(self, mode: str) -> None:
        match mode:
            case "verbose" | "quiet":
                self._settings.is_verbose = mode == "verbose"
            case "wordwrap" | "nowordwrap":
                self._settings.wraps = mode == "wordwrap"
            case _:
                self._set_think(False)
        write_line(f"Set '{mode}' mode.")

    def _set_format(self, arguments: list[str]) -> None:
        match arguments:
            case ["format", "json"]:
                self._settings.format = "json"
                write_line("Set format to 'json' mode.")
            case ["noformat"]:
                self._settings.format = None
                write_line("Disabled format.")
            case _:
                write_line("Invalid or missing format. For 'json' mode use '/set format json'")

    def _set_think(self, think: bool | str) -> None:
        self._settings.think = think
        if think and "thinking" not in (self._shown.capabilities or ()):
            note(f'warning: model "{self._model}" does not support thinking output')

    def _set_parameter(self, name: str, values: list[str]) -> None:
        changed: Parameters = {}
        try:
            for value in values if name == "stop" else [" ".join(values)]:
                add_parameter(changed, name, value)
        except ValueError as error:
            write_line(f'Couldn\'t set parameter: "{error}"')
            return
        self._settings.parameters |= changed
        write_line(f"Set parameter '{name}' to '{', '.join(values)}'")

    def _show(self, arguments: list[str]) -> None:
        shown, settings = self._shown, self._settings
        match arguments:
            case ["info"]:
                write(show_page(shown, verbose=False))
            case ["license"]:
                write_line(shown.license or "No license was specified for this model.")
            case ["modelfile"]:
                write_line(shown.modelfile)
            case ["parameters"]:
                self._show_parameters()
            case ["system"]:
                write_line(
                    settings.system
                    or shown.system
                    or "No system message was specified for this model."
                )
            case ["template"]:
                write_line(shown.template or "No prompt template was specified for this model.")
            case []:
                note(HELP_SHOW)
            case [other, *_]:
                write_line(f"Unknown command '/show {other}'. Type /? for help")

    def _show_parameters(self) -> None:
        write_line("Model defined parameters:")
        lines = self._shown.parameters.splitlines() or [
            "No additional parameters were specified for this model."
        ]
        for line in lines:
            write_line(f"  {line}")
        write_line()
        if self._settings.parameters:
            write_line("User defined parameters:")
            for name, value in self._settings.parameters.items():
                shown = " ".join(value) if isinstance(value, list) else str(value)
                write_line(f"  {name:<30} {shown}")
            write_line()
