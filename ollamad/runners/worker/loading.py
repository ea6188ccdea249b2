"""From a plan to llama.cpp's parameters: how the weights are loaded and the context is made.

Everything a plan says is put into effect here or refused here; nothing is dropped in silence.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from ollamad.runners.protocol import FailureCode, LoadPlan, RopeOverrides
from ollamad.runners.worker.bindings import buffer_log, ggml, llama
from ollamad.runners.worker.engine import EngineRefused

_KV_TYPES: Final = {"f32": 0, "f16": 1, "q4_0": 2, "q8_0": 8, "bf16": 30}
"""Numbers of ggml's types."""
_FLASH_ATTENTION: Final = {"auto": -1, "off": 0, "on": 1}
"""Numbers of llama.cpp's choices."""
_ROPE_SCALING: Final = {"none": 0, "linear": 1, "yarn": 2, "longrope": 3}
_LOAD_MODES: Final = {(False, False): 0, (True, False): 1, (False, True): 2, (True, True): 3}
"""By use of mmap and of mlock."""
_SPLIT_MODE_NONE: Final = 0
_CPU_DEVICE: Final = "cpu"


def load_model(
    plan: LoadPlan, on_progress: Callable[[float], None], *, is_dry: bool = False
) -> Any:
    """Return llama.cpp's model, for a dry run without its weights. Raises EngineRefused."""
    if plan.adapter_paths:
        raise EngineRefused(FailureCode.BAD_REQUEST, "models with LoRA adapters cannot be run yet")
    if not Path(plan.model_path).is_file():
        raise EngineRefused(FailureCode.NOT_FOUND, f"no such file: {plan.model_path}")

    @llama.llama_progress_callback  # type: ignore[untyped-decorator]
    def progress(fraction: float, _data: object) -> bool:
        on_progress(fraction)
        return True  # Returning false would abort the load; a runner is stopped from outside.

    buffer_log.clear()
    params = llama.llama_model_default_params()
    params.n_gpu_layers = plan.n_gpu_layers
    # Simulating a mapped or locked file ends in a failed assertion.
    is_mapped, is_locked = plan.use_mmap and not is_dry, plan.use_mlock and not is_dry
    params.load_mode = _LOAD_MODES[is_mapped, is_locked]
    params.no_alloc = is_dry
    params.main_gpu = plan.main_gpu
    # llama.cpp keeps these pointers only while it loads, and so do the names here.
    split = _tensor_split(plan)
    if split is not None:
        params.tensor_split = ctypes.cast(split, ctypes.POINTER(ctypes.c_float))
    overrides = _tensor_overrides(plan)
    if overrides is not None:
        params.tensor_buft_overrides = ctypes.cast(overrides, type(params.tensor_buft_overrides))
    params.progress_callback = progress
    model = llama.llama_model_load_from_file(plan.model_path.encode(), params)
    if not model:
        raise EngineRefused(
            FailureCode.NOT_A_MODEL,
            "llama.cpp cannot load this file: it is damaged, or of an architecture or type that "
            "this version does not know",
        )
    return model


def _tensor_split(plan: LoadPlan) -> Any:
    if not plan.tensor_split:
        return None
    n_max = int(llama.llama_max_devices())
    if len(plan.tensor_split) > n_max or min(plan.tensor_split) < 0:
        raise EngineRefused(
            FailureCode.BAD_REQUEST,
            f"tensor_split takes at most {n_max} numbers, none of them negative",
        )
    return (ctypes.c_float * n_max)(*plan.tensor_split)


def _tensor_overrides(plan: LoadPlan) -> Any:
    """Return llama.cpp's list of patterns and buffer types, ended by an empty entry."""
    if not plan.tensor_overrides:
        return None
    entry = llama.llama_model_tensor_buft_override
    entries = (entry * (len(plan.tensor_overrides) + 1))()
    for slot, override in zip(entries, plan.tensor_overrides, strict=False):
        slot.pattern = override.pattern.encode()
        slot.buft = _buffer_type(override.device)
    return entries


def _buffer_type(device: str) -> int:
    library = ggml()
    if device.lower() == _CPU_DEVICE:
        library.ggml_backend_cpu_buffer_type.restype = ctypes.c_void_p
        return int(library.ggml_backend_cpu_buffer_type())
    library.ggml_backend_dev_by_name.restype = ctypes.c_void_p
    library.ggml_backend_dev_by_name.argtypes = [ctypes.c_char_p]
    found = library.ggml_backend_dev_by_name(device.encode())
    if not found:
        raise EngineRefused(
            FailureCode.BAD_REQUEST, f'tensor_overrides: there is no compute device "{device}"'
        )
    library.ggml_backend_dev_buffer_type.restype = ctypes.c_void_p
    library.ggml_backend_dev_buffer_type.argtypes = [ctypes.c_void_p]
    return int(library.ggml_backend_dev_buffer_type(found))


def open_context(model: Any, plan: LoadPlan, *, n_seq_max: int) -> Any:
    """Return llama.cpp's context for generating by *plan*. Raises EngineRefused."""
    params = context_params(plan)
    params.n_ctx = plan.n_ctx * plan.n_slots
    params.n_batch = plan.n_batch
    params.n_ubatch = min(plan.n_ubatch or plan.n_batch, plan.n_batch)
    params.n_seq_max = n_seq_max
    params.swa_full = plan.swa_full
    return make_context(
        model, params, f"no room for a context of {plan.n_slots} times {plan.n_ctx} tokens"
    )


def context_params(plan: LoadPlan) -> Any:
    """Return what every context of *plan* has; its sizes are the caller's. Raises EngineRefused."""
    params = llama.llama_context_default_params()
    params.kv_unified = True
    params.n_threads = params.n_threads_batch = plan.n_threads
    params.type_k = params.type_v = _KV_TYPES[plan.kv_type]
    params.flash_attn_type = _FLASH_ATTENTION[plan.flash_attention]
    params.no_perf = True
    _apply_rope(params, plan.rope)
    return params


def make_context(model: Any, params: Any, no_room: str) -> Any:
    """Return the context, or raise EngineRefused, which begins with *no_room*."""
    context = llama.llama_init_from_model(model, params)
    if not context:
        raise EngineRefused(
            FailureCode.OUT_OF_MEMORY,
            f"{no_room}, or it cannot be made with these settings (see the log); "
            "try a smaller num_ctx",
        )
    return context


def _apply_rope(params: Any, rope: RopeOverrides) -> None:
    if rope.scaling is not None:
        if rope.scaling not in _ROPE_SCALING:
            raise EngineRefused(
                FailureCode.BAD_REQUEST,
                f'rope_scaling is "{rope.scaling}": choose one of {", ".join(_ROPE_SCALING)}',
            )
        params.rope_scaling_type = _ROPE_SCALING[rope.scaling]
    for field, value in (
        ("rope_freq_base", rope.frequency_base),
        ("rope_freq_scale", rope.frequency_scale),
        ("yarn_ext_factor", rope.yarn_ext_factor),
        ("yarn_attn_factor", rope.yarn_attn_factor),
        ("yarn_beta_fast", rope.yarn_beta_fast),
        ("yarn_beta_slow", rope.yarn_beta_slow),
        ("yarn_orig_ctx", rope.yarn_orig_ctx),
    ):
        if value is not None:
            setattr(params, field, value)
