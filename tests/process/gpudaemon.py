"""The daemon on a machine whose driver is a fake: what steers it is the sign that it is there."""

from __future__ import annotations

import os
from pathlib import Path

from ollamad.__main__ import main
from ollamad.gpu import monitor
from tests.fakes.nvml.steering import VARIABLE

if __name__ == "__main__":
    vars(monitor)["DRIVER_SIGNS"] = (Path(os.environ[VARIABLE]),)
    main()
