"""Add an Admin to an organisation, which is made when it is missing: the same as `reos create-admin`.

.venv/bin/python tools/create_admin.py EMAIL PASSWORD ORGANISATION
"""

from __future__ import annotations

import sys

from reos.__main__ import main

if __name__ == "__main__":
    sys.exit(main(["create-admin", *sys.argv[1:]]))
