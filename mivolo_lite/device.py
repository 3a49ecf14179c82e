"""Devices by name, tried before they are needed."""

import torch

from mivolo_lite.errors import UserError, first_line


def usable_device(name: str, option: str) -> torch.device:
    """The device of a name, once it has computed something.

    Args:
        name: as torch names devices.
        option: what says the name, for the error.

    Raises:
        UserError: there is no such device here, or it computes nothing.
    """
    try:
        torch.device(name)
    except RuntimeError:  # which lists devices of all makers
        raise UserError(f"{option} {name}: not usable here (no such device); try cpu") from None
    try:
        probe = torch.ones(1, device=name)
        probe.item()  # of a device that computes nothing, such as meta, an error
        return probe.device
    except (RuntimeError, AssertionError, ImportError) as error:
        reason = first_line(error).partition(". ")[0]
        raise UserError(f"{option} {name}: not usable here ({reason}); try cpu") from None
