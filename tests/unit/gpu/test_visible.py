from __future__ import annotations

import pytest

from ollamad.gpu.devices import DeviceFacts, DeviceId, DeviceKind
from ollamad.gpu.visible import only_visible


def a_gpu(uuid: str, index: int, parent: str | None = None) -> DeviceFacts:
    return DeviceFacts(
        device=DeviceId(uuid),
        name="a GPU",
        capacity_bytes=1,
        kind=DeviceKind.CUDA,
        index=index,
        parent=DeviceId(parent) if parent else None,
    )


GPUS = [
    a_gpu("GPU-aa11", 0),
    a_gpu("GPU-aa22", 1),
    a_gpu("MIG-1", 2, parent="GPU-bb"),
    a_gpu("MIG-2", 2, parent="GPU-bb"),
]


@pytest.mark.parametrize(
    ("text", "visible"),
    [
        ("", "GPU-aa11 GPU-aa22 MIG-1 MIG-2"),
        (" , ", "GPU-aa11 GPU-aa22 MIG-1 MIG-2"),
        ("1", "GPU-aa22"),
        ("1, 0", "GPU-aa11 GPU-aa22"),
        ("GPU-aa", "GPU-aa11 GPU-aa22"),
        ("gpu-AA22", "GPU-aa22"),
        ("MIG-2", "MIG-2"),
        ("2", "MIG-1 MIG-2"),
        ("GPU-bb", "MIG-1 MIG-2"),
        ("-1", ""),
        ("none", ""),
        ("0,-1,1", "GPU-aa11"),
        ("7", ""),
        ("GPU-zz", ""),
    ],
)
def test_the_gpus_that_are_named_are_visible(text: str, visible: str) -> None:
    is_visible = only_visible(text)

    assert [gpu.device for gpu in GPUS if is_visible(gpu)] == visible.split()
