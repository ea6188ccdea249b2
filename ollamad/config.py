"""`Config`: every setting of the daemon, with its default, its limits and why it is what it is.

One frozen object a concern; a part of the daemon receives its own object, never `Config`. The
table `SETTINGS` is made from these classes, and from it the reference, the commented default file
and the reading of files, environment and flags. Where values come from is for
`ollamad.configfile`; per-request options are another family, in `ollamad.options`.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal

from ollamad import configdevices
from ollamad import configvalue as kinds
from ollamad.adminwire import CHANGE_GROUP, READ_GROUP, SOCKET_VARIABLE, SYSTEM_SOCKET
from ollamad.configvalue import Setting, setting
from ollamad.deviceshare import DeviceShares
from ollamad.modelpolicy import PolicyBook
from ollamad.options import STOPS_MAX
from ollamad.units import KIB, MIB

KvType = Literal["f16", "q8_0", "q4_0", "f32", "bf16"]
FlashAttention = Literal["auto", "on", "off"]
LogLevel = Literal["debug", "info", "warning", "error"]
IsolationMode = Literal["auto", "off"]
LogFormat = Literal["auto", "text", "json", "journal"]

N_CTX_MAX: Final = 1 << 27
"""Tokens of context that can be asked for; more than any model was trained for."""
N_SLOTS_MAX: Final = 256
"""Sequences of one runner; llama.cpp is built for no more."""
N_THREADS_MAX: Final = 4096
"""Threads of one runner; a larger number is a mistake."""
BYTES_MAX: Final = 1 << 60
"""Largest amount of memory that a setting takes."""
COUNT_MAX: Final = 1_000_000
"""Most parts of a request that a setting can allow."""
ANSWERS_MAX: Final = 1024
"""Most answers to one request that a setting can allow."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class HttpConfig:
    """The HTTP door: where it listens and what it lets in."""

    host: str = setting(
        kinds.HOST,
        kinds.DEFAULT_HOST,
        "The address that the API listens on. Empty means all interfaces. The API has no "
        "passwords: whoever can reach it can use and delete models, so by default only this "
        "machine can.",
        env="OLLAMA_HOST",
        from_env=lambda text: kinds.parse_address(text).host,
        flag="--host",
    )
    port: int = setting(
        kinds.COUNT,
        kinds.DEFAULT_PORT,
        "The TCP port that the API listens on. 0 takes any free port.",
        env="OLLAMA_HOST",
        from_env=lambda text: kinds.parse_address(text).port,
        flag="--port",
        minimum=0,
        maximum=65535,
    )
    origins: tuple[str, ...] = setting(
        kinds.ORIGINS,
        (),
        "Web origins that may use the API besides those of this machine, such as "
        "`https://chat.example.com`. One `*` in an entry stands for any text; a bare `*` lets "
        "every web page that a user opens use the models.",
        env="OLLAMA_ORIGINS",
    )
    body_bytes_max: int = setting(
        kinds.BYTES,
        64 * MIB,
        "The largest body of a request; a larger one is refused with 413. Enough for a chat with "
        "several images; blobs that are uploaded are not counted, they go straight to disk.",
        minimum=KIB,
        maximum=BYTES_MAX,
    )
    json_depth_max: int = setting(
        kinds.COUNT,
        128,
        "How deep the arrays and objects of a request may be nested. People's schemas and tools "
        "need a dozen levels; what is deeper is made to exhaust a stack.",
        minimum=16,
        maximum=512,
    )
    messages_max: int = setting(
        kinds.COUNT,
        10_000,
        "Messages of one conversation. An agent that works for a day sends some thousands.",
        minimum=1,
        maximum=COUNT_MAX,
    )
    images_max: int = setting(
        kinds.COUNT,
        64,
        "Images of one request, in all its messages together.",
        minimum=0,
        maximum=COUNT_MAX,
    )
    tools_max: int = setting(
        kinds.COUNT,
        512,
        "Tools that one request may describe. All of them stand in the prompt.",
        minimum=0,
        maximum=COUNT_MAX,
    )
    stops_max: int = setting(
        kinds.COUNT,
        64,
        "Texts that may end an answer. Each token of the answer is compared with all of them.",
        minimum=1,
        maximum=STOPS_MAX,
    )
    inputs_max: int = setting(
        kinds.COUNT,
        16_384,
        "Texts of one request for vectors. Programs that index a book send all of its parts at "
        "once; the answer to so many takes a few hundred megabytes.",
        minimum=1,
        maximum=COUNT_MAX,
    )
    documents_max: int = setting(
        kinds.COUNT,
        4096,
        "Documents that one request may have ranked.",
        minimum=1,
        maximum=COUNT_MAX,
    )
    answers_max: int = setting(
        kinds.COUNT,
        16,
        "Answers that one request may ask for: `n`, or `best_of`, times its prompts. They are "
        "computed side by side, as far as the model's slots go, and take those from others.",
        minimum=1,
        maximum=ANSWERS_MAX,
    )
    drain_timeout_s: float = setting(
        kinds.SECONDS,
        30.0,
        "How long answers that are under way may still take when the daemon stops. What is not "
        "finished by then is cut off.",
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SchedulingConfig:
    """Which models are loaded, how long they stay, and who waits."""

    keep_alive_s: float = setting(
        kinds.KEEP_ALIVE,
        300.0,
        "How long a model stays in memory after its last request, unless the request says "
        "otherwise. Negative keeps it until room is needed, 0 unloads it at once.",
        env="OLLAMA_KEEP_ALIVE",
        reloadable=True,
    )
    queue_length_max: int = setting(
        kinds.COUNT,
        512,
        "Requests that may wait for a model, over all models. The next one is refused with 503. "
        "Enough for a burst; small enough that the last one is served before its client gives up.",
        env="OLLAMA_MAX_QUEUE",
        minimum=1,
        maximum=1_000_000,
        reloadable=True,
    )
    models_loaded_max: int = setting(
        kinds.COUNT,
        0,
        "Models that may be in memory at the same time. 0 is three for each GPU, or three "
        "without a GPU.",
        env="OLLAMA_MAX_LOADED_MODELS",
        minimum=0,
        maximum=10_000,
    )
    start_timeout_s: float = setting(
        kinds.SECONDS,
        60.0,
        "How long a runner may take to start before it loads anything. A start takes about a "
        "second; a machine that swaps needs more.",
        minimum=1,
    )
    load_timeout_s: float = setting(
        kinds.PATIENCE,
        300.0,
        "How long loading a model may go on without progress. 0 or negative is without end, for "
        "models on slow network disks.",
        env="OLLAMA_LOAD_TIMEOUT",
    )
    starvation_s: float = setting(
        kinds.SECONDS,
        30.0,
        "How long a request waits for room before the busy models in its way are ordered to "
        "finish and leave. Without it, steady traffic for one model would starve another.",
    )
    drain_timeout_s: float = setting(
        kinds.SECONDS,
        600.0,
        "How long a model that is ordered to leave may still finish its answers. Then it is "
        "stopped.",
    )
    reclaim_timeout_s: float = setting(
        kinds.SECONDS,
        5.0,
        "How long to wait for the memory of a runner that has ended. Drivers free memory some "
        "time after the process is gone: too short, and the next model is placed badly; too long, "
        "and a leak in the driver stops all loading.",
    )
    heal_attempts_max: int = setting(
        kinds.COUNT,
        2,
        "How often a request goes on with another runner when its own dies in the middle of the "
        "answer. 0 ends it with an error at the first time.",
        minimum=0,
        maximum=100,
        reloadable=True,
    )
    restart_failures_max: int = setting(
        kinds.COUNT,
        3,
        "Failures of one model's runner within `restart_window_s` after which it is not "
        "restarted for a while.",
        minimum=1,
        maximum=1000,
    )
    restart_window_s: float = setting(
        kinds.SECONDS,
        120.0,
        "The time over which failures of a model's runner are counted.",
    )
    cooling_s: float = setting(
        kinds.SECONDS,
        30.0,
        "How long a model whose runner failed too often is refused with 503, so that a broken "
        "model does not keep the machine busy loading it.",
    )
    restart_delay_s: float = setting(
        kinds.SECONDS,
        1.0,
        "How long a model is not started again after its second failure within "
        "`restart_window_s`, while its requests wait; the first one is forgiven at once. Each "
        "further failure doubles it.",
        maximum=3600,
    )
    restart_delay_max_s: float = setting(
        kinds.SECONDS,
        30.0,
        "What that delay grows to at most.",
        maximum=3600,
    )
    min_residence_s: float = setting(
        kinds.SECONDS,
        10.0,
        "How long a model that was just loaded is spared when others need its memory, unless "
        "nothing else makes room. Without it, models that take turns would be loaded again and "
        "again.",
        maximum=86400,
        reloadable=True,
    )
    ageing_s: float = setting(
        kinds.SECONDS,
        30.0,
        "A request that has waited this long counts as one priority higher, after twice as long "
        "as two higher, so that low priorities are served in the end.",
        minimum=0.1,
        maximum=86400,
        reloadable=True,
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RunnerConfig:
    """How a runner, the process that holds one model, computes and when it is stopped."""

    n_slots: int = setting(
        kinds.COUNT,
        0,
        "Requests that one model answers at the same time. 0 is automatic, which is 4. Each one "
        "has a context of its own, which costs memory.",
        env="OLLAMA_NUM_PARALLEL",
        minimum=0,
        maximum=N_SLOTS_MAX,
    )
    n_ctx: int = setting(
        kinds.COUNT,
        0,
        "Tokens of context that each request gets, unless the request or the model says "
        "otherwise. 0 is automatic, which is 4096.",
        env="OLLAMA_CONTEXT_LENGTH",
        minimum=0,
        maximum=N_CTX_MAX,
    )
    n_batch: int = setting(
        kinds.COUNT,
        0,
        "Tokens that are computed in one step at most. 0 is automatic. More makes long prompts "
        "faster, costs memory and lets other requests wait longer for their next token.",
        minimum=0,
        maximum=1 << 20,
    )
    n_threads: int = setting(
        kinds.COUNT,
        0,
        "Threads that a model computes with on the CPU. 0 is the number of physical cores; more "
        "than that is usually slower.",
        minimum=0,
        maximum=N_THREADS_MAX,
    )
    kv_type: KvType = setting(  # noqa: RUF009 - it is a field()
        kinds.one_of(*typing.get_args(KvType)),
        "f16",
        "How the context is stored. `q8_0` halves its memory with little loss, `q4_0` quarters "
        "it with some; both need flash attention.",
        env="OLLAMA_KV_CACHE_TYPE",
    )
    flash_attention: FlashAttention = setting(  # noqa: RUF009 - it is a field()
        kinds.one_of(*typing.get_args(FlashAttention), booleans=True),
        "auto",
        "Whether attention is computed in the way that needs less memory. `auto` uses it where "
        "the model and the device can.",
        env="OLLAMA_FLASH_ATTENTION",
    )
    use_mmap: bool | None = setting(
        kinds.MAYBE_SWITCH,
        None,
        "Whether model files are mapped into memory instead of read. `auto` maps them where that "
        "is faster. Mapped files can be dropped from memory when it is short, and must then be "
        "read again.",
    )
    ask_patience_s: float = setting(
        kinds.SECONDS,
        5.0,
        "How long a runner that is asked to end may take before it gets a signal.",
    )
    terminate_patience_s: float = setting(
        kinds.SECONDS,
        3.0,
        "How long a runner may take after that signal (SIGTERM) before it is killed.",
    )
    stall_timeout_s: float = setting(
        kinds.SECONDS,
        120.0,
        "How long a runner that has work may make no progress before it is taken for hung and "
        "stopped. One step of a large model on a slow CPU can take many seconds.",
        minimum=1,
    )
    log_lines_kept: int = setting(
        kinds.COUNT,
        200,
        "The last lines that a runner has written, kept to explain a crash.",
        minimum=1,
        maximum=100_000,
    )
    spare: bool = setting(
        kinds.SWITCH,
        True,
        "Whether one started runner without a model stands by, so that the next load does not "
        "wait for a process to start.",
    )
    spare_memory_max_bytes: int = setting(
        kinds.BYTES,
        256 * MIB,
        "Memory of its own that this spare runner may take; one that takes more is stopped, and "
        "none is kept any more. On a CPU it takes about 25 MiB. Libraries are not counted, which "
        "all runners share.",
        maximum=BYTES_MAX,
    )
    isolation: IsolationMode = setting(  # noqa: RUF009 - it is a field()
        kinds.one_of(*typing.get_args(IsolationMode)),
        "auto",
        "Whether a runner gives up what computing does not need: files other than its model and "
        "its libraries, the network, other programs. `auto` uses what the kernel offers, and the "
        "log says at the start what that is. `off` is for looking for the cause of a failure, and "
        "for CUDA's multi-process service, whose connection is refused otherwise.",
    )
    core_dumps: bool = setting(
        kinds.SWITCH,
        False,
        "Whether a runner that crashes may leave an image of its memory, which holds prompts and "
        "answers.",
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class GpuConfig:
    """Which devices are used, and how much of their memory may be planned with."""

    enabled: bool = setting(
        kinds.SWITCH,
        True,
        "Whether GPUs are looked for and used. They may come at any time: a driver that is loaded "
        "after the start is found within half a minute.",
    )
    visible: str = setting(
        kinds.TEXT,
        "",
        "The GPUs that may be used: UUIDs or their beginnings, or numbers as `nvidia-smi` shows "
        "them, with commas between; `-1` is none. Empty means all. MIG instances have UUIDs of "
        "their own, and the number of their GPU.",
        env="CUDA_VISIBLE_DEVICES",
    )
    answer_timeout_s: float = setting(
        kinds.SECONDS,
        20.0,
        "How long the GPUs' driver may take to answer before it is taken for hung; the daemon "
        "goes on meanwhile, and without GPUs if that lasts. The first answer initialises every "
        "GPU, which takes seconds for each where the driver's persistence mode is off.",
        minimum=0.1,
        maximum=3600,
    )
    recovery_s: float = setting(
        kinds.SECONDS,
        300.0,
        "How long a GPU that was faulty must look well before models are put on it again. Each "
        "further fault within a day doubles it.",
        maximum=86400,
    )
    overhead_bytes: int = setting(
        kinds.BYTES,
        0,
        "Memory of each GPU that is never planned with, for other programs on it.",
        env="OLLAMA_GPU_OVERHEAD",
        maximum=BYTES_MAX,
    )
    host_headroom_bytes: int = setting(
        kinds.BYTES,
        512 * MIB,
        "Main memory that is never planned with, for the rest of the system.",
        maximum=BYTES_MAX,
    )
    host_memory_max_bytes: int = setting(
        kinds.BYTES,
        0,
        "Main memory that models may use together. 0 is all that the machine, or the control "
        "group that the daemon runs in, has.",
        maximum=BYTES_MAX,
    )
    budgets: DeviceShares = setting(  # noqa: RUF009 - it is a field()
        configdevices.DEVICE_SHARES,
        DeviceShares(),
        "The memory of single devices that models may use together. What is not listed is all "
        "that the device has.",
    )
    headroom: DeviceShares = setting(  # noqa: RUF009 - it is a field()
        configdevices.DEVICE_SHARES,
        DeviceShares(),
        "The memory of single devices that is never planned with, within their budgets. What is "
        "not listed has `host_headroom_bytes` or `overhead_bytes`.",
    )
    memory_period_s: float = setting(
        kinds.SECONDS,
        2.0,
        "How often the memory in use is read. More often notices other programs sooner and costs "
        "a little CPU time.",
        minimum=0.1,
        maximum=3600,
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class StoreConfig:
    """Where models are kept on disk."""

    models_path: Path = dataclasses.field(
        metadata={
            kinds.METADATA_KEY: Setting(
                kind=kinds.PATH,
                doc="The folder that holds the models. It may be one that Ollama has filled.",
                env="OLLAMA_MODELS",
                flag="--models",
                default_doc="`models` in the service's state folder (`/var/lib/ollamad/models`), "
                "or else `~/.local/share/ollamad/models`",
            )
        }
    )
    prune: bool = setting(
        kinds.SWITCH,
        True,
        "Whether files that no model uses any more are removed at the start. The variable has "
        "the opposite sense: `OLLAMA_NOPRUNE=1` keeps them.",
        env="OLLAMA_NOPRUNE",
        from_env=kinds.inverted_switch,
    )
    embedded_model: bool = setting(
        kinds.SWITCH,
        True,
        "Whether the small model that comes with the daemon, where it is installed, is offered, "
        "so that a first start has something to answer with.",
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class AdminConfig:
    """The admin door: where its socket is, and who may use it."""

    enabled: bool = setting(
        kinds.SWITCH,
        True,
        "Whether there is an admin socket, which `ollamactl status`, `top`, `evict` and others "
        "talk to.",
    )
    socket_path: Path = setting(  # noqa: RUF009 - it is a field()
        kinds.PATH,
        SYSTEM_SOCKET,
        "The admin socket. Its folder is made if it is missing, and must not be writable for "
        "everybody. A socket that the service manager passes under the name `admin` is used "
        "instead.",
        env=SOCKET_VARIABLE,
        flag="--admin-socket",
        default_doc="`admin.sock` in the service's runtime folder, else in "
        "`$XDG_RUNTIME_DIR/ollamad`, else for root in `/run/ollamad`, or else in "
        "`~/.local/state/ollamad`",
    )
    look_group: str = setting(
        kinds.TEXT,
        READ_GROUP,
        "The group whose members may look: status, devices, runners, queue, events. The socket "
        "is given to it, so those who may change things must be members, too.",
    )
    change_group: str = setting(
        kinds.TEXT,
        CHANGE_GROUP,
        "The group whose members may also change things: evict, restart, pin, drain, reload. "
        "Root and the daemon's own user always may.",
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LogConfig:
    """What is logged, and in which form."""

    level: LogLevel = setting(  # noqa: RUF009 - it is a field()
        kinds.one_of(*typing.get_args(LogLevel)),
        "info",
        "The least important messages that are logged. Prompts and answers are never logged. "
        "`OLLAMA_DEBUG=1` sets `debug`.",
        env="OLLAMA_DEBUG",
        from_env=kinds.debug_level,
        flag="--log-level",
        reloadable=True,
    )
    format: LogFormat = setting(  # noqa: RUF009 - it is a field()
        kinds.one_of(*typing.get_args(LogFormat)),
        "auto",
        "The form of the log on standard error: `text` for people, `json` with one object a "
        "line, `journal` for systemd's journal with its own fields. `auto` is `journal` in a "
        "service, `text` on a terminal, and otherwise `json`.",
        flag="--log-format",
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """All settings, gathered. Only the composition root sees this."""

    http: HttpConfig = dataclasses.field(default_factory=HttpConfig)
    scheduling: SchedulingConfig = dataclasses.field(default_factory=SchedulingConfig)
    runner: RunnerConfig = dataclasses.field(default_factory=RunnerConfig)
    gpu: GpuConfig = dataclasses.field(default_factory=GpuConfig)
    store: StoreConfig
    admin: AdminConfig = dataclasses.field(default_factory=AdminConfig)
    log: LogConfig = dataclasses.field(default_factory=LogConfig)
    models: PolicyBook = dataclasses.field(default_factory=PolicyBook)
    """What is laid down for single models. See `ollamad.modelconfig`."""

    def value(self, key: str) -> Any:
        """Return the value of `section.field`, of that field's type."""
        section, _, name = key.partition(".")
        return getattr(getattr(self, section), name)


MODELS: Final = "models"
"""The section that is not made of settings but of a table for each model."""

SECTIONS: Final[Mapping[str, type[Any]]] = MappingProxyType(
    {name: cls for name, cls in typing.get_type_hints(Config).items() if name != MODELS}
)
"""The class of each section of settings, by its name."""

SETTINGS: Final[Mapping[str, Setting]] = MappingProxyType(
    {
        f"{section}.{field.name}": field.metadata[kinds.METADATA_KEY]
        for section, cls in SECTIONS.items()
        for field in dataclasses.fields(cls)
    }
)
"""Every setting by its key, `section.field`, in the order of the classes."""


def config_from(values: Mapping[str, Any], models: PolicyBook | None = None) -> Config:
    """Return the config that has *values* (by key, checked), and defaults where they say nothing.

    `store.models_path` has no default here and must be among them.
    """
    sections = {
        section: cls(
            **{
                field.name: values[key]
                for field in dataclasses.fields(cls)
                if (key := f"{section}.{field.name}") in values
            }
        )
        for section, cls in SECTIONS.items()
    }
    return Config(**sections, models=models or PolicyBook())


def changed_keys(old: Config, new: Config) -> tuple[str, ...]:
    """Return the keys of the settings that differ: what a reload has to look at.

    Policies of models, which a reload always applies, are `models` together.
    """
    keys = [key for key in SETTINGS if old.value(key) != new.value(key)]
    return (*keys, MODELS) if old.models != new.models else tuple(keys)
