"""`python tools/verify_ledger …`: the folder as a program."""

import sys
from pathlib import Path

# Python looks for modules in this folder; the package is found in the one above it.
sys.path[0] = str(Path(__file__).resolve().parents[1])

try:
    from verify_ledger.cli import main
except ImportError as missing:
    print(f"could not check: {missing}", file=sys.stderr)
    sys.exit(2)

sys.exit(main())
