"""Devices: which can be computed on, and what a record calls them."""

import platform

import torch
import xarray as xr

from ..errors import InputError


def usable(name: str, choices: str) -> torch.device:
    """The device of this name; InputError, which offers `choices`, if it cannot be computed on."""
    try:
        found = torch.device(name)
        torch.zeros(1, device=found)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"Device {name!r} cannot be used here ({str(error).splitlines()[0]}); choose {choices}.") from error
    return found


def called(device: torch.device) -> str:
    """What a record calls this device."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu ({platform.machine()})"


def of_record(record: xr.DataTree) -> torch.device:
    """The kind of device that a record was made on."""
    return torch.device("cpu" if record.attrs["device"].startswith("cpu") else "cuda")
