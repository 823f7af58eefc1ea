"""What the tests stand on: a server for the whole run, servers of one's own, and a fresh tenant each.

Every server is stopped and verified when its user is done with it: `haldir audit verify` must find
nothing wrong, and the export of every tenant must satisfy the independent verifier in `tools`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis.configuration import set_hypothesis_home_dir

from harness import Server, Tenant, running

# What hypothesis remembers between runs has no place among the sources.
set_hypothesis_home_dir(Path(tempfile.gettempdir()) / "haldir-hypothesis")


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The server that most tests share. Each test has tenants of its own on it."""
    with running(Server(tmp_path_factory.mktemp("shared"))) as shared:
        yield shared


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Starts servers that belong to one test, which may restart or starve them."""
    with ExitStack() as stack:
        count = 0

        def start(**options: Any) -> Server:
            nonlocal count
            count += 1
            return stack.enter_context(running(Server(tmp_path / f"server-{count}", **options)))

        yield start


@pytest.fixture
def tenant(server: Server) -> Tenant:
    """A fresh tenant on the shared server."""
    return server.found_tenant()


@pytest.fixture
def stranger(server: Server) -> Tenant:
    """Another tenant on the shared server, who must not see anything of the first."""
    return server.found_tenant()
