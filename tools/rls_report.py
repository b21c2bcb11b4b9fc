"""The row-security report without the `reos` program: the same as `reos rls`."""

import sys

from reos.__main__ import main

if __name__ == "__main__":
    sys.exit(main(["rls", *sys.argv[1:]]))
