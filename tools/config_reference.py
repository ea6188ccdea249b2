"""Write the configuration reference and the commented default file from `ollamad.config`.

Run `python -m tools.config_reference` after a change of settings; a test compares both files with
what this writes. `--check` only says whether they are up to date.
"""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path
from typing import Final

from ollamad import configfile, modelconfig
from ollamad.config import SECTIONS, SETTINGS
from ollamad.configvalue import Setting, toml_literal
from ollamad.modelconfig import POLICY_SETTINGS

ROOT: Final = Path(__file__).resolve().parent.parent
REFERENCE: Final = ROOT / "docs" / "configuration.md"
DEFAULT_FILE: Final = ROOT / "packaging" / "deb" / "ollamad.toml"

SERVICE_MODELS: Final = "/var/lib/ollamad/models"
"""What the computed default of `store.models_path` is in the packaged service."""

_REFERENCE_HEAD: Final = """\
# Configuration

<!-- Written by `python -m tools.config_reference` from `ollamad/config.py`: edit that instead. -->

`ollamad` reads its settings once, when it starts, from four places. A later one wins:

1. the defaults below;
2. a TOML file: the one given with `--config`, or else the first that exists of
   `$CONFIGURATION_DIRECTORY/ollamad.toml` (set by systemd; then nothing else is looked at),
   `$XDG_CONFIG_HOME/ollamad/ollamad.toml` (`~/.config/ollamad/ollamad.toml`) and
   `/etc/ollamad/ollamad.toml`;
3. environment variables, under the names that Ollama uses;
4. flags of `ollamad serve`.

A setting that does not exist, or a value that cannot be meant, stops the start with a message that
names the line, the variable or the flag. `ollamad config` shows every value and where it came from.

Settings marked *reloadable* change with `systemctl reload ollamad` (SIGHUP); the others need a
restart. In the file, durations are seconds or texts such as `"1m30s"`, amounts of memory are bytes
or texts such as `"512MiB"`. Spaces and quotes around a variable's value are ignored, and an empty
variable is the same as none.
"""


def reference() -> str:
    """Return the text of docs/configuration.md."""
    parts = [_REFERENCE_HEAD]
    for section in SECTIONS:
        parts.append(f"\n## [{section}]\n\n{_section_doc(section)}\n")
        parts += [_reference_entry(key, known) for key, known in _settings_of(section)]
    parts.append(f'\n## [models."NAME"]\n\n{_wrapped(modelconfig.SECTION_DOC)}\n')
    parts += [
        _reference_entry(f'models."NAME".{name}', known) for name, known in POLICY_SETTINGS.items()
    ]
    parts.append("\n## Other variables of Ollama\n")
    parts += [f"\n{_wrapped(paragraph)}\n" for paragraph in _about_other_variables()]
    return "".join(parts)


def _about_other_variables() -> list[str]:
    unused, retired = _listed(configfile.UNUSED_VARIABLES), _listed(configfile.RETIRED_VARIABLES)
    return [
        f"These have no effect here yet, which a warning at the start says: {unused}.",
        f"These no longer have an effect in Ollama either: {retired}.",
        "Any other variable that starts with `OLLAMA_` is reported with the nearest that exists.",
    ]


def default_file() -> str:
    """Return the text of the default configuration file, in which everything is commented out."""
    lines = [
        "# Configuration of ollamad. What is commented out shows the default.",
        "#",
        "# Variables (OLLAMA_...) and flags of `ollamad serve` go before this file.",
        "# `ollamad config` shows every value and where it came from.",
    ]
    for section in SECTIONS:
        lines += ["", "", f"[{section}]", *_comment(_section_doc(section))]
        for key, known in _settings_of(section):
            lines += ["", *_comment(known.doc), *_comment(" ".join(_facts(known)))]
            name = key.partition(".")[2]
            lines.append(f"#{name} = {_default_literal(known)}")
    return "\n".join([*lines, *_policy_example()]) + "\n"


def _policy_example() -> list[str]:
    lines = ["", "", *_comment(modelconfig.SECTION_DOC), '#[models."NAME"]']
    for name, known in POLICY_SETTINGS.items():
        default = f"Default: {known.default_doc}." if known.default_doc else ""
        lines += ["", *_comment(known.doc), *_comment(" ".join([*_facts(known), default]).strip())]
        lines.append(f"#{name} = {_EXAMPLES.get(name) or _default_literal(known)}")
    return lines


_EXAMPLES: Final = {"kv_type": '"f16"', "keep_alive": '"5m"'}
"""What stands for a default that another setting has."""


def _settings_of(section: str) -> list[tuple[str, Setting]]:
    return [(key, known) for key, known in SETTINGS.items() if key.startswith(f"{section}.")]


def _section_doc(section: str) -> str:
    return SECTIONS[section].__doc__ or ""


def _default_literal(known: Setting) -> str:
    computed = known.default_doc is not None
    return toml_literal(SERVICE_MODELS if computed else known.kind.show(known.default))


def _facts(known: Setting) -> list[str]:
    facts = [f"Takes {known.kind.expects}{_range(known)}."]
    if known.env:
        facts.append(f"Variable: `{known.env}`.")
    if known.flag:
        facts.append(f"Flag: `{known.flag}`.")
    if known.reloadable:
        facts.append("Reloadable.")
    return facts


def _range(known: Setting) -> str:
    if (
        known.minimum is not None
        and known.maximum is not None
        and known.kind.expects.count("whole")
    ):
        return f" from {known.minimum:.0f} to {known.maximum:.0f}"
    if known.minimum:
        return f", at least {_number(known, known.minimum)}"
    return ""


def _number(known: Setting, value: float) -> str:
    whole = int(value) if float(value).is_integer() else value
    return str(known.kind.show(known.kind.read(whole)))


def _reference_entry(key: str, known: Setting) -> str:
    default = known.default_doc or f"`{toml_literal(known.kind.show(known.default))}`"
    facts = "\n".join(f"- {fact}" for fact in [f"Default: {default}.", *_facts(known)])
    return f"\n### {key}\n\n{_wrapped(known.doc)}\n\n{facts}\n"


def _listed(names: frozenset[str]) -> str:
    return ", ".join(f"`{name}`" for name in sorted(names))


def _wrapped(text: str) -> str:
    return "\n".join(textwrap.wrap(text, 98, break_long_words=False, break_on_hyphens=False))


def _comment(text: str) -> list[str]:
    lines = textwrap.wrap(text.replace("`", ""), 90, break_on_hyphens=False)
    return [f"# {line}" for line in lines]


def main(arguments: list[str]) -> int:
    """Write both files, or with `--check` tell which are out of date; return the exit status."""
    texts = {REFERENCE: reference(), DEFAULT_FILE: default_file()}
    old = {path for path, text in texts.items() if not path.exists() or path.read_text() != text}
    for path in sorted(old):
        if "--check" in arguments:
            print(f"{path.relative_to(ROOT)} is out of date: run python -m tools.config_reference")
        else:
            path.write_text(texts[path])
            print(f"wrote {path.relative_to(ROOT)}")
    return 1 if old and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
