"""Devices by name, tested before use."""

import torch

from mivolo_lite.errors import UserError, first_line


def usable_device(name: str, option: str) -> torch.device:
    """The device of a name, after a test computation.

    Args:
        name: torch's name of the device.
        option: the option with the name, for the error.

    Raises:
        UserError: the device does not exist or cannot compute.
    """
    try:
        torch.device(name)
    except RuntimeError:  # which lists devices of all makers
        raise UserError(f"{option} {name}: not usable here (no such device); try cpu") from None
    try:
        probe = torch.ones(1, device=name)
        probe.item()  # an error for a device that cannot compute, such as meta
        return probe.device
    except (RuntimeError, AssertionError, ImportError) as error:
        reason = first_line(error).partition(". ")[0]
        raise UserError(f"{option} {name}: not usable here ({reason}); try cpu") from None
