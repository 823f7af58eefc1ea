"""The self-check that is published with the Python client, run as its users run it.

It asks three questions: is a revoked session over, is a retry carried out once, and can what was
written be read and verified. It answers with its exit code.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from harness import PATIENCE_S, Tenant


def test_the_published_self_check_passes(tenant: Tenant, tmp_path: Path) -> None:
    # An empty directory and home: the self-check would otherwise look for a database file to tamper with.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HALDIR")}
    check = subprocess.run(
        [sys.executable, "-m", "haldir_probes", "--base", tenant.server.base_url, "--key", tenant.key],
        cwd=tmp_path,
        env=kept | {"HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert check.returncode == 0, check.stdout + check.stderr
    assert check.stdout.count("PASS") == 3, check.stdout
