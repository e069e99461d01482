"""``python -m edgeq.device.agent``, for a checkout; a device runs the zip of `edgeq.device.package`."""

from __future__ import annotations

from edgeq.device.agent.serve import main

if __name__ == "__main__":
    main()
