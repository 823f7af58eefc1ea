"""A crew of three agents under Haldir: each with a session, a budget and a trail of its own.

The crew as a whole has a budget too. Haldir does not know the crew; whoever runs it adds up what
its members spent, as the guides do.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from haldir import HaldirClient, HaldirPermissionError

from harness import Tenant

CREW_BUDGET = 10.00


@dataclass
class Member:
    """One agent of the crew."""

    haldir: HaldirClient
    role: str
    session_id: str

    def work(self, task: str, price: float) -> None:
        """Pays for a task, does it and says so."""
        self.haldir.authorize_payment(self.session_id, price, description=task)
        self.haldir.log_action(
            self.session_id, tool=self.role, action="execute", cost_usd=price, details={"task": task}
        )

    def left(self) -> float:
        return self.haldir.get_session(self.session_id)["remaining_budget"]


@dataclass
class Crew:
    """Three members who share nothing but the tenant."""

    haldir: HaldirClient
    researcher: Member
    writer: Member
    editor: Member

    def members(self) -> list[Member]:
        return [self.researcher, self.writer, self.editor]

    def spent(self) -> float:
        """What the crew spent, to the tenth of a cent."""
        spends = [self.haldir.get_spend(session_id=member.session_id) for member in self.members()]
        return round(sum(spend["total_usd"] for spend in spends), 3)


@pytest.fixture
def crew(tenant: Tenant) -> Crew:
    haldir = tenant.client()

    def hire(role: str, budget: float) -> Member:
        session = haldir.create_session(role, scopes=["read", "execute", "spend"], spend_limit=budget, ttl=600)
        return Member(haldir, role, session["session_id"])

    return Crew(haldir, hire("researcher", 5.00), hire("writer", 3.00), hire("editor", 0.50))


def test_one_member_spending_leaves_the_other_budgets_alone(crew: Crew) -> None:
    crew.researcher.work("read the sources", 4.20)
    crew.writer.work("first draft", 0.013)
    assert [member.left() for member in crew.members()] == [0.8, 2.987, 0.5]


def test_a_member_without_money_stops_while_the_crew_goes_on(crew: Crew) -> None:
    crew.editor.work("first pass", 0.50)
    with pytest.raises(HaldirPermissionError, match=r"(?i)budget"):
        crew.editor.work("second pass", 0.01)
    crew.writer.work("second draft", 3.00)
    assert [member.left() for member in crew.members()] == [5.0, 0.0, 0.0]


def test_the_crew_budget_is_the_sum_of_what_the_members_spent(crew: Crew) -> None:
    crew.researcher.work("read the sources", 4.20)
    crew.researcher.work("read the footnotes", 0.8)
    crew.writer.work("first draft", 1.003)
    crew.editor.work("first pass", 0.1)

    assert crew.spent() == 6.103
    assert CREW_BUDGET - crew.spent() == pytest.approx(3.897)
    assert crew.haldir.get_spend() == {
        "total_usd": 6.103,
        "action_count": 4,
        "by_tool": {"researcher": 5.0, "writer": 1.003, "editor": 0.1},
    }, "the tenant's sum is the crew's, since nobody else works here"


def test_each_member_has_a_trail_and_a_sum_of_its_own(crew: Crew) -> None:
    for task in ["sources", "footnotes"]:
        crew.researcher.work(task, 0.5)
    crew.writer.work("draft", 0.25)

    told = {
        member.role: [
            (entry["agent_id"], entry["details"]["task"])
            for entry in crew.haldir.get_audit_trail(agent_id=member.role)["entries"]
        ]
        for member in crew.members()
    }
    assert told == {
        "researcher": [("researcher", "footnotes"), ("researcher", "sources")],
        "writer": [("writer", "draft")],
        "editor": [],
    }
    assert crew.haldir.get_spend(agent_id="researcher")["total_usd"] == 1.0
    assert crew.haldir.get_spend(agent_id="editor")["total_usd"] == 0
    assert crew.haldir.get_audit_trail()["count"] == 3, "one trail holds them all"


def test_dismissing_one_member_leaves_the_others_at_work(crew: Crew) -> None:
    crew.haldir.revoke_session(crew.writer.session_id)
    assert crew.haldir.check_permission(crew.writer.session_id, "execute")["allowed"] is False
    assert crew.haldir.check_permission(crew.editor.session_id, "execute")["allowed"] is True
    crew.editor.work("last pass", 0.1)
    assert crew.editor.left() == 0.4
