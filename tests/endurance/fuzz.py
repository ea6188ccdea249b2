"""`make fuzz`: requests made of the OpenAPI document, right ones and wrong ones, for a while.

A real daemon with the real small model serves them, and `schemathesis` makes them from the document
that this very daemon serves; only names of models and lengths of answers are narrowed to what makes
requests reach further than "not found". Checked are each answer's status (nothing from 500 on but
503, nothing that the document does not have), its content type and its shape. Afterwards the model
must unload, which a leaked lease would prevent, and the log must have no traceback.
`FUZZ_SECONDS` or `--seconds` says how long; `--seed` repeats a run.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import httpx

from tests.endurance.killmatrix import until
from tests.process.daemonprocess import DaemonProcess, a_daemon

SECONDS: Final = 120.0
STUCK_S: Final = 60.0
"""No request may take longer."""
GRACE_S: Final = 120.0
"""What the run may take beyond its time: the requests on their way, and shrinking a failure."""
MODEL: Final = "smollm2:135m"
WORK_NAME: Final = "fuzzed"
"""The model that requests may create, copy to and delete."""
UNKNOWN: Final = "nope"
WORDS_MAX: Final = 8
N_CTX: Final = 256
"""An answer without a limit of its own ends after ten times as many tokens: well within STUCK_S."""
CONFIG: Final = f"""
[runner]
n_slots = 2
n_ctx = {N_CTX}
"""
CHECKS: Final = (
    "not_a_server_error", "status_code_conformance", "content_type_conformance",
    "response_schema_conformance",
)  # fmt: skip
SETTINGS: Final = """
[checks.not_a_server_error]
expected-statuses = ["1xx", "2xx", "3xx", "4xx", 503]
"""

_ANY_MODEL: Final = {"type": "string", "enum": [MODEL, UNKNOWN]}
_OWN_MODEL: Final = {"type": "string", "enum": [WORK_NAME, UNKNOWN]}
_FEW: Final = {"type": "integer", "minimum": -1, "maximum": WORDS_MAX}
NARROWED: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "model": _ANY_MODEL,
        "name": _OWN_MODEL,
        "source": _ANY_MODEL,
        "destination": _OWN_MODEL,
        "num_predict": {"type": "integer", "minimum": 0, "maximum": WORDS_MAX},
        # What asks for a load is narrowed to what a small machine loads often enough.
        "num_ctx": {"type": "integer", "enum": [N_CTX]},
        "num_batch": {"type": "integer", "enum": [64, N_CTX]},
        "max_tokens": _FEW,
        "max_completion_tokens": _FEW,
        "max_output_tokens": _FEW,
    }
)
"""Fields of requests, by their names."""
CREATES: Final = "ollama.CreateRequest"
"""Its model is changed: never the one that all others need."""


def narrowed(document: dict[str, Any]) -> dict[str, Any]:
    """Return *document* with fields of its requests narrowed, and without what harms the run."""
    schemas: dict[str, Any] = document["components"]["schemas"]
    for name, schema in schemas.items():
        if not name.endswith("Request"):  # So are those of all bodies called.
            continue
        properties = schema.get("properties", {})
        for field in properties.keys() & NARROWED.keys():
            properties[field] = NARROWED[field]
        if "model" in properties:
            if name == CREATES:
                properties["model"] = _OWN_MODEL
            schema["required"] = sorted({*schema.get("required", ()), "model"})
    options = schemas["ollama.Options"]["properties"]
    options |= {name: NARROWED[name] for name in options.keys() & NARROWED.keys()}
    delete = document["paths"]["/api/delete"]["delete"]
    delete["requestBody"]["content"]["application/json"]["schema"] = {
        "type": "object",
        "properties": {"model": _OWN_MODEL},
    }
    return document


def fuzz(seconds: float, seed: int | None, folder: Path) -> list[str]:
    """Run it and return the faults; what was found is printed."""
    file = folder / "ollamad.toml"
    file.write_text(CONFIG)
    faults: list[str] = []
    environ = {"OLLAMA_MODELS": str(folder / "models")}
    with a_daemon(folder, environ, "--config", str(file)) as daemon:
        shorten(daemon)
        document = narrowed(httpx.get(f"{daemon.url}/openapi.json", timeout=STUCK_S).json())
        path = folder / "openapi.json"
        path.write_text(json.dumps(document))
        if status := run_schemathesis(path, daemon.url, seconds, seed):
            faults.append(f"schemathesis ended with status {status}: see above")
        settle(daemon, faults)
        broken = [r["message"] for r in daemon.records if "Traceback" in json.dumps(r)]
        if broken:
            faults.append(f"{len(broken)} tracebacks in the log, the first: {broken[0][:300]}")
    return faults


def shorten(daemon: DaemonProcess) -> None:
    """Give the model a limit for requests that state none: JSON of a small model may never end."""
    body = {"model": MODEL, "from": MODEL, "parameters": {"num_predict": WORDS_MAX}}
    httpx.post(
        f"{daemon.url}/api/create", json=body | {"stream": False}, timeout=STUCK_S
    ).raise_for_status()


def run_schemathesis(document: Path, url: str, seconds: float, seed: int | None) -> int:
    """Return its exit status."""
    settings = document.with_name("schemathesis.toml")
    settings.write_text(SETTINGS)
    command = [
        str(Path(sys.executable).with_name("schemathesis")),
        "--config-file", str(settings),
        "run", str(document),
        "--url", url,
        "--checks", ",".join(CHECKS),
        "--max-time", f"{max(seconds, 1):.0f}",
        "--request-timeout", f"{STUCK_S:g}",
        "--phases", "examples,coverage,fuzzing",
        "--suppress-health-check", "all",
        "--continue-on-failure",
        "--warnings", "off",
        *(("--seed", str(seed)) if seed is not None else ()),
    ]  # fmt: skip
    try:
        return subprocess.run(
            command,
            check=False,
            cwd=document.parent,  # It leaves a folder there.
            stdin=subprocess.DEVNULL,
            timeout=seconds + GRACE_S,
        ).returncode
    except subprocess.TimeoutExpired:
        print(f"schemathesis has not ended {GRACE_S:g} s after its time")
        return 124


def settle(daemon: DaemonProcess, faults: list[str]) -> None:
    """Unload the model: a lease that was not given back would keep it."""

    def running() -> list[dict[str, Any]]:
        models: list[dict[str, Any]] = httpx.get(f"{daemon.url}/api/ps").json()["models"]
        return models

    for model in {entry["name"] for entry in running()}:
        body = {"model": model, "keep_alive": 0}
        httpx.post(f"{daemon.url}/api/generate", json=body, timeout=STUCK_S)
    if not until(lambda: not running(), STUCK_S):
        faults.append(f"stays resident: {running()}")


def main() -> int:
    """Fuzz and judge; return 0 if nothing was found."""
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__.partition("\n")[0])
    default = float(os.environ.get("FUZZ_SECONDS") or SECONDS)
    parser.add_argument("--seconds", type=float, default=default)
    parser.add_argument("--seed", type=int, default=None)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fuzz") as folder:
        faults = fuzz(options.seconds, options.seed, Path(folder))
    for fault in faults:
        print(f"FAULT: {fault}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
