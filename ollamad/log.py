"""Logging: messages with fields, written as text, as JSON lines or to systemd's journal.

The standard library's logging carries everything, so other libraries' messages arrive in the same
place. The journal's own protocol is in `JournalHandler`. What is worth logging, and where a
setting comes from, is decided elsewhere: this module does not know `ollamad.config`.
Whatever a message or field contains, a reader sees one record: control characters are escaped.
"""

from __future__ import annotations

import array
import contextlib
import contextvars
import errno
import fcntl
import json
import logging
import math
import os
import re
import socket
import struct
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Final, Protocol, TextIO

VALUE_CHARS_MAX: Final = 1 << 16
"""Characters of one message, field or traceback; the rest is counted, not written."""
IDENTIFIER: Final = "ollamad"
JOURNAL_SOCKET: Final = "/run/systemd/journal/socket"

_HANDLER_NAME: Final = "ollamad"
_LEVELS: Final = MappingProxyType(
    {
        "debug": logging.DEBUG,
        "info": logging.INFO,
        "warning": logging.WARNING,
        "error": logging.ERROR,
    }
)
_COLOURS: Final = ((logging.ERROR, "31"), (logging.WARNING, "33"), (logging.INFO, "32"), (0, "2"))
_PRIORITIES: Final = (
    (logging.CRITICAL, 2),
    (logging.ERROR, 3),
    (logging.WARNING, 4),
    (logging.INFO, 6),
    (0, 7),
)

_context: contextvars.ContextVar[Mapping[str, object]] = contextvars.ContextVar(
    "ollamad.log", default=MappingProxyType({})
)


class LogSettings(Protocol):
    """What `configure` needs to know; `ollamad.config.LogConfig` is one."""

    @property
    def level(self) -> str:
        """One of debug, info, warning, error."""
        ...

    @property
    def format(self) -> str:
        """One of auto, text, json, journal."""
        ...


class Logger:
    """Writes messages with fields: `log.info("loading model", model=name, gib=4.1)`.

    A message is a constant text; what varies is a field. *exc* adds its traceback.
    """

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def debug(self, message: str, /, *, exc: BaseException | None = None, **fields: object) -> None:
        """Log something for developers."""
        self._log(logging.DEBUG, message, exc, fields)

    def info(self, message: str, /, *, exc: BaseException | None = None, **fields: object) -> None:
        """Log a change that explains what the daemon does."""
        self._log(logging.INFO, message, exc, fields)

    def warning(
        self, message: str, /, *, exc: BaseException | None = None, **fields: object
    ) -> None:
        """Log something that a person may want to change."""
        self._log(logging.WARNING, message, exc, fields)

    def error(self, message: str, /, *, exc: BaseException | None = None, **fields: object) -> None:
        """Log a broken promise."""
        self._log(logging.ERROR, message, exc, fields)

    def exception(self, message: str, /, **fields: object) -> None:
        """Log a broken promise with the traceback of the exception that is being handled."""
        self._log(logging.ERROR, message, sys.exc_info()[1], fields)

    def _log(
        self, level: int, message: str, exc: BaseException | None, fields: Mapping[str, object]
    ) -> None:
        if self._logger.isEnabledFor(level):
            # Without arguments a % in the message stays what it is; 3 frames up is the caller.
            extra = {"fields": fields}
            self._logger.log(level, message, exc_info=exc, extra=extra, stacklevel=3)


def get_logger(name: str) -> Logger:
    """Return the logger of a module: `log = get_logger(__name__)`."""
    return Logger(name)


@contextlib.contextmanager
def log_context(**fields: object) -> Iterator[None]:
    """Add *fields* (a request's id, a model) to every record inside, and in tasks started there."""
    token = _context.set({**_context.get(), **fields})
    try:
        yield
    finally:
        _context.reset(token)


def configure(
    settings: LogSettings,
    stream: TextIO | None = None,
    environ: Mapping[str, str] | None = None,
    *,
    journal_path: str = JOURNAL_SOCKET,
) -> None:
    """Send all logging of this process to *stream* (standard error), or to the journal.

    A second call replaces the first. Handlers that others have added stay.
    """
    out = sys.stderr if stream is None else stream
    variables = os.environ if environ is None else environ
    chosen = _chosen_format(settings.format, out, variables)
    handler: logging.Handler
    if chosen == "journal":
        handler = JournalHandler(LineHandler(out, TextFormatter()), journal_path)
    elif chosen == "json":
        handler = LineHandler(out, JsonFormatter())
    else:
        handler = LineHandler(out, TextFormatter(colour=_wants_colour(out, variables)))
    handler.name = _HANDLER_NAME
    root = logging.getLogger()
    for old in [known for known in root.handlers if known.name == _HANDLER_NAME]:
        root.removeHandler(old)
        old.close()
    root.addHandler(handler)
    set_level(settings.level)


def set_level(level: str) -> None:
    """Change how much is logged, while running.

    Other libraries stay a step quieter than we are: their details are about their insides.
    """
    logging.getLogger("ollamad").setLevel(_LEVELS[level])
    others = {"debug": "info", "info": "warning"}.get(level, level)
    logging.getLogger().setLevel(_LEVELS[others])


def _chosen_format(wanted: str, stream: TextIO, environ: Mapping[str, str]) -> str:
    if wanted != "auto":
        return wanted
    if _is_journal(stream, environ.get("JOURNAL_STREAM", "")):
        return "journal"
    return "text" if stream.isatty() else "json"


def _is_journal(stream: TextIO, journal_stream: str) -> bool:
    """Tell whether *stream* is what systemd connected to the journal: the variable is inherited
    by children whose output goes elsewhere, so the device and inode in it must match.
    """
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):  # No descriptor behind it, or closed.
        return False
    return journal_stream == f"{status.st_dev}:{status.st_ino}"


def _wants_colour(stream: TextIO, environ: Mapping[str, str]) -> bool:
    return stream.isatty() and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"


# Records to texts.


def _shortened(text: str) -> str:
    if len(text) <= VALUE_CHARS_MAX:
        return text
    return f"{text[:VALUE_CHARS_MAX]}… ({len(text) - VALUE_CHARS_MAX} more characters)"


def _escaped(text: str) -> str:
    """Return *text* on one line, without characters that move cursors, hide or reorder text."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def _fields_of(record: logging.LogRecord) -> dict[str, object]:
    own = getattr(record, "fields", None)
    return {**_context.get(), **own} if isinstance(own, Mapping) else dict(_context.get())


def _message_of(record: logging.LogRecord) -> str:
    return _shortened(record.getMessage())


def _traceback_of(record: logging.LogRecord) -> str:
    parts = []
    if record.exc_info and record.exc_info[0] is not None:
        parts.append(logging.Formatter().formatException(record.exc_info))
    if record.stack_info:
        parts.append(record.stack_info)
    return _shortened("\n".join(parts))


def _value_text(value: object) -> str:
    text = _shortened(f"{value:.6g}" if isinstance(value, float) else str(value))
    if text and not re.search(r'[\s"=\\]', text) and text.isprintable():
        return text
    return '"' + _escaped(text.replace("\\", "\\\\").replace('"', '\\"')) + '"'


def _pairs(fields: Mapping[str, object]) -> str:
    return "".join(f" {name}={_value_text(value)}" for name, value in fields.items())


def _time_of(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class TextFormatter(logging.Formatter):
    """`TIME LEVEL logger message key=value`, and a traceback in indented lines below."""

    def __init__(self, *, colour: bool = False) -> None:
        super().__init__()
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as text; only a traceback has further lines."""
        level = f"{record.levelname:<7}"
        if self._colour:
            code = next(code for least, code in _COLOURS if record.levelno >= least)
            level = f"\x1b[{code}m{level}\x1b[0m"
        message = _escaped(_message_of(record)) + _pairs(_fields_of(record))
        line = f"{_time_of(record)} {level} {_escaped(record.name)} {message}"
        return "\n  | ".join([line, *map(_escaped, _traceback_of(record).splitlines())])


class JsonFormatter(logging.Formatter):
    """One JSON object a line; fields stand beside `time`, `level`, `logger` and `message`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as JSON in ASCII."""
        entry: dict[str, object] = {
            "time": _time_of(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _message_of(record),
        }
        traceback = _traceback_of(record)
        if traceback:
            entry["traceback"] = traceback
        for name, value in _fields_of(record).items():
            entry[f"{name}_" if name in entry else name] = _json_value(value)
        return json.dumps(entry)


def _json_value(value: object) -> object:
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    return _shortened(str(value))


class LineHandler(logging.Handler):
    """Writes records as lines to a stream; a stream that is gone loses them quietly."""

    def __init__(self, stream: TextIO, formatter: logging.Formatter) -> None:
        super().__init__()
        self._stream = stream
        self.setFormatter(formatter)

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        try:
            text = self.format(record) + "\n"
            # A file name may hold bytes that are no text: they must not fail the line.
            encoding = self._stream.encoding or "utf-8"
            text = text.encode(encoding, "backslashreplace").decode(encoding)
        except Exception:  # noqa: BLE001 - a value whose str() fails; the caller is no part of it
            self.handleError(record)
            return
        with contextlib.suppress(OSError, ValueError):  # Closed, or its reader has gone.
            self._stream.write(text)
            self._stream.flush()


# The journal.


def journal_entry(record: logging.LogRecord) -> bytes:
    """Return *record* in the journal's native protocol.

    MESSAGE is what `journalctl` prints, so it has the fields too; each also has its own name.
    """
    fields = _fields_of(record)
    message = _escaped(_message_of(record)) + _pairs(fields)
    traceback = _traceback_of(record)
    pairs: dict[str, object] = {
        "MESSAGE": "\n".join([message, *map(_escaped, traceback.splitlines())]),
        "PRIORITY": next(value for least, value in _PRIORITIES if record.levelno >= least),
        "SYSLOG_IDENTIFIER": IDENTIFIER,
        "CODE_FILE": record.pathname,
        "CODE_LINE": record.lineno,
        "CODE_FUNC": record.funcName,
        "LOGGER": record.name,
    }
    for name, value in fields.items():
        pairs[_journal_name(name)] = _shortened(str(value))
    return b"".join(_journal_field(name, str(value)) for name, value in pairs.items())


def _journal_name(name: str) -> str:
    return "OLLAMAD_" + re.sub("[^A-Z0-9_]", "_", name.upper())[:56]  # The journal takes 64.


def _journal_field(name: str, value: str) -> bytes:
    content = value.encode("utf-8", "backslashreplace")
    if b"\n" not in content:
        return b"%s=%s\n" % (name.encode(), content)
    return b"%s\n%s%s\n" % (name.encode(), struct.pack("<Q", len(content)), content)


class JournalHandler(logging.Handler):
    """Sends records to journald, as a datagram or, where that is too large, in a sealed memfd.

    Never waits: while journald is away or its queue is full, records go to *fallback*.
    """

    def __init__(self, fallback: logging.Handler, path: str = JOURNAL_SOCKET) -> None:
        super().__init__()
        self._fallback = fallback
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)

    def emit(self, record: logging.LogRecord) -> None:
        """Send one record."""
        try:
            entry = journal_entry(record)
        except Exception:  # noqa: BLE001 - a value whose str() fails; the caller is no part of it
            self.handleError(record)
            return
        try:
            self._send(entry)
        except OSError:
            self._fallback.handle(record)

    def _send(self, entry: bytes) -> None:
        # Not connected: journald's socket is another one after its restart.
        try:
            self._socket.sendto(entry, self._path)
        except OSError as exc:
            if exc.errno not in {errno.EMSGSIZE, errno.ENOBUFS}:
                raise
            self._send_sealed(entry)

    def _send_sealed(self, entry: bytes) -> None:
        file = os.memfd_create("ollamad-log", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            with open(file, "wb", closefd=False) as content:
                content.write(entry)
            seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
            fcntl.fcntl(file, fcntl.F_ADD_SEALS, seals)
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [file]))
            self._socket.sendmsg([b""], [rights], 0, self._path)
        finally:
            os.close(file)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
        self._fallback.close()
        super().close()
