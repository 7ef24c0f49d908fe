"""Which device torch works on."""

import torch

from enrich.errors import UsageError


def find_device(name: str) -> torch.device:
    """The device `name`: auto (CUDA where there is one), cpu, cuda or cuda:N.

    Raises:
        UsageError: there is no such device.
    """
    here = torch.cuda.is_available()
    try:
        found = torch.device(("cuda" if here else "cpu") if name == "auto" else name)
    except RuntimeError:
        raise UsageError(f"--device {name}: use auto, cpu, cuda or cuda:N") from None
    if found.type not in ("cpu", "cuda") or (
        found.type == "cuda" and (found.index or 0) >= (torch.cuda.device_count() if here else 0)
    ):
        raise UsageError(f"--device {name} is not here; use auto or cpu")
    return found
