"""A LangChain agent under Haldir, with the published client and real LangChain tools.

The agent has three tools: it may search, it may send e-mail for money, and it may not delete
records. Each tool is wrapped as the guides do it: ask for permission, pay, run, log. The tests
follow that agent through its work, over its budget, and past the end of its session.
"""

from __future__ import annotations

import re
import time
from itertools import pairwise
from typing import Any

import pytest
from haldir import HaldirAuthError, HaldirClient, HaldirNotFoundError, HaldirPermissionError
from langchain_core.tools import BaseTool, StructuredTool
from pydantic import BaseModel, ConfigDict

from harness import Tenant

AGENT = "langchain-researcher"
MAIL_PRICE = 29.99


class ScopeMissingError(Exception):
    """The wrapped tool was not run, because its session does not hold the tool's scope."""


class GovernedTool(BaseTool):
    """A LangChain tool that another one hides behind, and that runs it only if Haldir agrees."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    inner: BaseTool
    haldir: HaldirClient
    session_id: str
    scope: str
    price: float = 0.0

    @classmethod
    def around(cls, inner: BaseTool, **terms: Any) -> GovernedTool:
        return cls(name=inner.name, description=inner.description, args_schema=inner.args_schema, inner=inner, **terms)

    def _run(self, **arguments: Any) -> Any:
        if not self.haldir.check_permission(self.session_id, self.scope)["allowed"]:
            raise ScopeMissingError(f"{self.name} needs {self.scope}")
        if self.price:
            self.haldir.authorize_payment(self.session_id, self.price, description=self.name)
        result = self.inner.invoke(arguments)
        self.haldir.log_action(
            self.session_id,
            tool=self.name,
            action="tool_call",
            cost_usd=self.price,
            details={"input": arguments, "output": result},
        )
        return result


class Agent(BaseModel):
    """The agent's session, its three tools, and what they did to the world."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    haldir: HaldirClient
    session: dict[str, Any]
    mails_sent: list[str] = []
    records_deleted: list[int] = []

    @property
    def session_id(self) -> str:
        return self.session["session_id"]

    def use(self, tool: str, **arguments: Any) -> Any:
        return self.tools()[tool].invoke(arguments)

    def tools(self) -> dict[str, BaseTool]:
        def search(query: str) -> str:
            """Looks something up."""
            return f"three results for {query}"

        def send_email(to: str, subject: str) -> str:
            """Sends an e-mail, which costs money."""
            self.mails_sent.append(to)
            return f"sent {subject!r} to {to}"

        def delete_record(number: int) -> str:
            """Deletes a record for good."""
            self.records_deleted.append(number)
            return f"deleted {number}"

        terms = [(search, "read", 0.0), (send_email, "send_email", MAIL_PRICE), (delete_record, "delete", 0.0)]
        governed = (
            GovernedTool.around(
                StructuredTool.from_function(function),
                haldir=self.haldir,
                session_id=self.session_id,
                scope=scope,
                price=price,
            )
            for function, scope, price in terms
        )
        return {tool.name: tool for tool in governed}


@pytest.fixture
def agent(tenant: Tenant) -> Agent:
    haldir = tenant.client()
    session = haldir.create_session(AGENT, scopes=["read", "send_email", "spend:100"], spend_limit=100.00, ttl=1800)
    return Agent(haldir=haldir, session=session)


def test_the_session_is_what_was_asked_for(agent: Agent) -> None:
    session = agent.session
    assert re.fullmatch(r"ses_[A-Za-z0-9_-]{32}", session["session_id"])
    assert session["agent_id"] == AGENT
    assert session["scopes"] == ["read", "send_email", "spend"], "the amount in spend:100 is a limit, not a scope"
    assert session["spend_limit"] == 100.0
    assert session["ttl"] == 1800
    assert abs(session["expires_at"] - (time.time() + 1800)) < 120


def test_tools_within_the_scopes_run_and_answer_langchain(agent: Agent) -> None:
    assert agent.use("search", query="lembas") == "three results for lembas"
    assert agent.use("send_email", to="a@example.com", subject="hello") == "sent 'hello' to a@example.com"
    assert agent.mails_sent == ["a@example.com"]


def test_a_tool_whose_scope_is_missing_never_runs(agent: Agent) -> None:
    with pytest.raises(ScopeMissingError):
        agent.use("delete_record", number=7)
    assert agent.records_deleted == []
    assert agent.haldir.get_audit_trail(session_id=agent.session_id)["count"] == 0, "it did nothing, so nothing is told"


def test_a_charge_over_the_budget_is_refused_before_the_tool_runs(agent: Agent) -> None:
    for number in range(3):
        agent.use("send_email", to=f"{number}@example.com", subject="offer")
    with pytest.raises(HaldirPermissionError, match=r"(?i)budget") as refused:
        agent.use("send_email", to="3@example.com", subject="offer")

    assert refused.value.status_code == 403
    assert refused.value.body["authorized"] is False
    assert agent.mails_sent == ["0@example.com", "1@example.com", "2@example.com"]
    session = agent.haldir.get_session(agent.session_id)
    assert session["spent"] == 89.97, "three mails, and nothing for the fourth"
    assert session["remaining_budget"] == 10.03
    assert session["is_valid"] is True


def test_the_trail_tells_the_work_newest_first_in_an_unbroken_chain(agent: Agent) -> None:
    agent.use("search", query="lembas")
    agent.use("send_email", to="a@example.com", subject="Grüße ✉")
    agent.use("search", query="")

    trail = agent.haldir.get_audit_trail(session_id=agent.session_id)
    assert trail["count"] == 3
    assert [entry["tool"] for entry in trail["entries"]] == ["search", "send_email", "search"]
    mail = trail["entries"][1]
    assert mail["details"] == {
        "input": {"to": "a@example.com", "subject": "Grüße ✉"},
        "output": "sent 'Grüße ✉' to a@example.com",
    }
    assert mail["action"] == "tool_call"
    assert mail["cost_usd"] == MAIL_PRICE
    assert mail["session_id"] == agent.session_id
    assert mail["agent_id"] == AGENT
    assert mail["flagged"] is False and mail["flag_reason"] == ""

    for newer, older in pairwise(trail["entries"]):
        assert newer["timestamp"] > older["timestamp"]
        assert newer["prev_hash"] == older["entry_hash"]
    for entry in trail["entries"]:
        assert re.fullmatch("aud_[A-Za-z0-9_-]{22}", entry["entry_id"])
        assert re.fullmatch("[0-9a-f]{64}", entry["entry_hash"])
    assert trail["entries"][-1]["prev_hash"] == "", "the tenant's first action has nothing before it"


def test_spend_is_what_the_tools_cost(agent: Agent) -> None:
    agent.use("search", query="lembas")
    agent.use("send_email", to="a@example.com", subject="1")
    agent.use("send_email", to="b@example.com", subject="2")

    spend = agent.haldir.get_spend(session_id=agent.session_id)
    assert spend["total_usd"] == 59.98
    assert spend["action_count"] == 3
    assert spend["by_tool"] == {"search": 0.0, "send_email": 59.98}


def test_a_logged_cost_does_not_touch_the_budget(agent: Agent) -> None:
    agent.haldir.log_action(agent.session_id, tool="search", action="tool_call", cost_usd=99.0)
    assert agent.haldir.get_session(agent.session_id)["remaining_budget"] == 100.0


def test_revoking_ends_the_session_for_every_call(agent: Agent) -> None:
    assert agent.haldir.revoke_session(agent.session_id) == {"revoked": True, "session_id": agent.session_id}

    assert agent.haldir.check_permission(agent.session_id, "read")["allowed"] is False
    with pytest.raises(HaldirNotFoundError):
        agent.haldir.get_session(agent.session_id)
    with pytest.raises(HaldirAuthError):
        agent.haldir.authorize_payment(agent.session_id, 1.0)
    with pytest.raises(HaldirAuthError):
        agent.haldir.log_action(agent.session_id, tool="search", action="tool_call")
    with pytest.raises(ScopeMissingError):
        agent.use("search", query="lembas")

    assert agent.haldir.revoke_session(agent.session_id)["revoked"] is True, "revoking again changes nothing"
