"""Parts of an NVIDIA card (MIG), by the library of its driver (NVML), through nvidia-ml-py.

Source: https://docs.nvidia.com/deploy/nvml-api/group__nvmlMultiInstanceGPU.html.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from tinamou.errors import PrepareError
from tinamou.late import dataclass
from tinamou.units import Size

__all__ = ["Instance", "Profile", "create", "destroy", "instances", "profiles"]

_PACKAGE = "pip install nvidia-ml-py (or tinamou[nvidia])"


@dataclass(frozen=True)
class Profile:
    """A size of a part: the driver's number of it, its name (``3g.20gb``), how many more of it there can be and at most,
    its memory, and how many of the card's slices of processors it takes."""

    number: int
    name: str
    free: int
    most: int
    memory: Size
    slices: int


@dataclass(frozen=True)
class Instance:
    """A part that there is (GPU instance): its number, and that of its profile."""

    number: int
    profile: int


def profiles(address: str) -> list[Profile]:
    """The sizes a card can be divided into now. Raises PrepareError where it cannot, or there is no driver."""
    with _library() as nvml, _told(nvml, address):
        card = _card(nvml, address)
        return [_profile(nvml, card, info) for info in _offered(nvml, card)]


def instances(address: str) -> list[Instance]:
    """The parts that a card has now. Raises PrepareError."""
    with _library() as nvml, _told(nvml, address):
        card = _card(nvml, address)
        found = []
        for info in _offered(nvml, card):
            count = nvml.c_uint(0)
            made = (nvml.c_nvmlGpuInstance_t * info.instanceCount)()
            nvml.nvmlDeviceGetGpuInstances(card, info.id, made, nvml.byref(count))
            found += [Instance(nvml.nvmlGpuInstanceGetInfo(one).id, info.id) for one in made[: count.value]]
        return sorted(found, key=lambda one: one.number)


def create(address: str, profile: int) -> int:
    """Make a part of that profile, and tell its number. Raises PrepareError with the driver's reason."""
    with _library() as nvml, _told(nvml, address):
        made = nvml.nvmlDeviceCreateGpuInstance(_card(nvml, address), profile)
        return int(nvml.nvmlGpuInstanceGetInfo(made).id)


def destroy(address: str, number: int) -> None:
    """Remove a part; the driver refuses one that is in use. Raises PrepareError."""
    with _library() as nvml, _told(nvml, address):
        nvml.nvmlGpuInstanceDestroy(nvml.nvmlDeviceGetGpuInstanceById(_card(nvml, address), number))


@contextlib.contextmanager
def _library() -> Iterator[Any]:
    try:
        import pynvml
    except ImportError as error:
        raise PrepareError("parts of NVIDIA cards need a library", why=str(error), fix=_PACKAGE) from error
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        fix = "install NVIDIA's driver and its libnvidia-ml.so.1; see nvidia-smi"
        raise PrepareError("NVIDIA's driver does not answer", why=str(error), fix=fix) from error
    try:
        yield pynvml
    finally:
        pynvml.nvmlShutdown()


@contextlib.contextmanager
def _told(nvml: Any, address: str) -> Iterator[None]:
    try:
        yield
    except nvml.NVMLError as error:
        raise PrepareError(
            f"{address} is not divided", why=str(error), fix="see nvidia-smi -q, and nvidia-smi mig -lgip"
        ) from error


def _card(nvml: Any, address: str) -> Any:
    """The driver's handle of a card on which division is switched on. Raises PrepareError."""
    card = nvml.nvmlDeviceGetHandleByPciBusId(address.encode())
    now, pending = nvml.nvmlDeviceGetMigMode(card)
    if now == nvml.NVML_DEVICE_MIG_ENABLE:
        return card
    fix = "reset the card or restart the host: it is on from then" if pending else f"nvidia-smi -i {address} -mig 1"
    raise PrepareError(f"{address} is not divided", why="division (MIG) is off", fix=fix)


def _offered(nvml: Any, card: Any) -> Iterator[Any]:
    for number in range(nvml.NVML_GPU_INSTANCE_PROFILE_COUNT):
        try:
            yield nvml.nvmlDeviceGetGpuInstanceProfileInfo(card, number)
        except nvml.NVMLError as error:
            if error.value not in (nvml.NVML_ERROR_NOT_SUPPORTED, nvml.NVML_ERROR_INVALID_ARGUMENT):
                raise


def _profile(nvml: Any, card: Any, info: Any) -> Profile:
    free = nvml.nvmlDeviceGetGpuInstanceRemainingCapacity(card, info.id)
    name = info.name if isinstance(info.name, str) else info.name.decode(errors="replace")
    return Profile(
        info.id, name.removeprefix("MIG "), free, info.instanceCount, Size(info.memorySizeMB << 20), info.sliceCount
    )
