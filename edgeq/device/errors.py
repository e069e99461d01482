"""What goes wrong with a device: all of them are `UnavailableError`, exit code 4.

::

    UnavailableError
    └── DeviceError          the device refused, lacks something, or answers what cannot be
        └── LinkLost         the connection or the agent went away: worth another try
"""

from __future__ import annotations

from edgeq.errors import UnavailableError

__all__ = ["DeviceError", "LinkLost"]


class DeviceError(UnavailableError):
    """The device cannot or does not do it."""


class LinkLost(DeviceError):  # noqa: N818 (named for what happened)
    """The connection or the agent went away in the middle."""
