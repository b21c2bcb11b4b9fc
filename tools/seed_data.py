"""Load the demo data, or a volume to measure with: the same as `reos seed`.

.venv/bin/python tools/seed_data.py
.venv/bin/python tools/seed_data.py --scale 20x5000
"""

from __future__ import annotations

import sys

from reos.__main__ import main

if __name__ == "__main__":
    sys.exit(main(["seed", *sys.argv[1:]]))
