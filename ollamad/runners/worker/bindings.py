"""Imports llama-cpp-python's low-level module, and only that.

The package's `__init__` also imports its high-level classes and what they need (a tenth of a
second and 20 MiB that a runner has no use for), so the package is entered by a bare module object
that merely knows its folder. `llama` is the module to use; nothing else of the package is.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import os
import sys
import types
from pathlib import Path
from typing import Any, Final

from ollamad.runners.worker.bufferlog import BufferLog

_PACKAGE: Final = "llama_cpp"


def _import_low_level() -> Any:
    if _PACKAGE not in sys.modules:
        spec = importlib.util.find_spec(_PACKAGE)
        if spec is None or spec.submodule_search_locations is None:
            raise ModuleNotFoundError("llama-cpp-python is not installed")
        package = types.ModuleType(_PACKAGE)
        package.__path__ = list(spec.submodule_search_locations)
        package.__spec__ = spec
        sys.modules[_PACKAGE] = package
    return importlib.import_module(f"{_PACKAGE}.llama_cpp")


llama: Final = _import_low_level()

buffer_log: Final = BufferLog()
"""What llama.cpp says of its buffers while it loads a model."""

# Log lines carry their level as a letter; the daemon reads it (see ollamad.runners.logs).
_LEVEL_MARKS: Final = {2: b"I", 3: b"W", 4: b"E"}
"""llama.cpp's levels that are passed on. Its debug lines, hundreds for a load, are not; nor are
continuations, which are progress dots: half a line would be logged as a line of its own."""

_FALSE_ALARMS: Final = (
    # We interrupted it, for a client that has left. A real failure has another number.
    b"failed to decode, ret = 2",
    b"graph_compute_async failed with error 1\n",
    b"failed to compute graph, compute status: 1\n",
    b"removing memory module entries for seq_id",  # What goes with any of them.
    b"using full-size SWA cache",  # On purpose: it is what lets requests share beginnings.
    b"possible training context overflow",  # It counts the cells of all sequences together.
)


@llama.llama_log_callback  # type: ignore[untyped-decorator]
def _log_to_stderr(level: int, text: bytes, _data: object) -> None:
    mark = _LEVEL_MARKS.get(level)
    if mark is None:
        return
    buffer_log.take(text)
    if text.strip() and not any(alarm in text for alarm in _FALSE_ALARMS):
        os.write(2, mark + b" " + text.rstrip() + b"\n")


def ggml() -> ctypes.CDLL:
    """Return ggml's library: the very copy that libllama links.

    Every other spelling of its name is a separate copy with its own registry of backends.
    """
    folder = Path(llama.__file__).parent / "lib"
    return ctypes.CDLL(str(folder / "libggml.so.0"))


def start_backends() -> str:
    """Load the compute backends and return a line that says what they are.

    In a build with loadable backends they must be loaded by `ggml`'s own copy of the library.
    """
    llama.llama_log_set(_log_to_stderr, ctypes.c_void_p(0))
    folder = Path(llama.__file__).parent / "lib"
    library = ggml()
    library.ggml_backend_dev_count.restype = ctypes.c_size_t
    if library.ggml_backend_dev_count() == 0:
        library.ggml_backend_load_all_from_path.argtypes = [ctypes.c_char_p]
        library.ggml_backend_load_all_from_path(os.fsencode(folder))
    if library.ggml_backend_dev_count() == 0:
        raise RuntimeError(
            f"llama.cpp found no compute device: {folder} holds no backend for this processor"
        )
    llama.llama_backend_init()
    version = llama.llama_version().decode()
    features = llama.llama_print_system_info().decode().strip(" |")
    return f"llama.cpp {version} ({features})"
