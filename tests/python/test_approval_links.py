"""The link of a notification, and the page behind it, where a person decides."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from harness import Server, Tenant, created, found
from receiver import Receiver

StartServer = Callable[..., Server]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as it:
        yield it


@pytest.fixture
def asking(start_server: StartServer) -> Tenant:
    """A tenant whose payments over 10 need two deciders."""
    tenant = start_server(options=["--allow-private-outbound"]).found_tenant()
    rule = {"type": "spend_over", "threshold": 10, "required_approvals": 2}
    created(tenant.post("/v1/approvals/rules", json=rule))
    return tenant


class Page:
    """The page behind the link that a receiver was told of."""

    def __init__(self, tenant: Tenant, receiver: Receiver) -> None:
        events = ["approval_requested", "approval_decided"]
        created(tenant.post("/v1/webhooks", json={"url": receiver.url, "events": events}))
        self.session = tenant.open_session(scopes=["spend:100"])
        payment = {"session_id": self.session, "amount": 60, "description": "<b>hosting</b> & more"}
        answer = tenant.post("/v1/payments/authorize", json=payment)
        assert answer.status_code == 402
        self.request_id = answer.json()["approval_request_id"]
        told = receiver.wait_for(1)[0].json()
        assert told["request_id"] == self.request_id
        assert told["approve_url"].startswith(tenant.server.base_url + "/approvals/")
        self.url = told["approve_url"]
        self.token = parse_qs(urlsplit(self.url).query)["token"][0]

    def post(self, **form: str) -> httpx.Response:
        return httpx.post(self.url.split("?")[0], data={"token": self.token} | form)


def title(answer: httpx.Response) -> str:
    found_title = re.search("<h1>(.*?)</h1>", answer.text)
    assert found_title, answer.text
    return found_title.group(1)


def actors(tenant: Tenant, kind: str) -> list[Any]:
    events = found(tenant.get("/v1/ledger/events?limit=200"))["events"]
    return [event["actor"] for event in events if event["kind"] == kind]


def test_following_the_link_shows_everything_and_decides_nothing(
    asking: Tenant, receiver: Receiver
) -> None:
    page = Page(asking, receiver)
    answer = httpx.get(page.url)
    assert answer.status_code == 200
    assert "&lt;b&gt;hosting&lt;/b&gt; &amp; more" in answer.text
    assert "<b>hosting" not in answer.text
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert found(asking.get(f"/v1/approvals/{page.request_id}"))["status"] == "pending"


def test_a_link_counts_once_and_somebody_else_decides_with_it(asking: Tenant, receiver: Receiver) -> None:
    page = Page(asking, receiver)
    first = page.post(verdict="approve", name="Ann", note="fine")
    assert (first.status_code, title(first)) == (200, "Approved; others must approve too")
    assert page.post(verdict="approve", name="Bob").status_code == 409
    assert actors(asking, "approval.granted") == ["approval-link"]
    decided = found(asking.post(f"/v1/approvals/{page.request_id}/approve", json={"decided_by": "bob"}))
    assert decided["approved"] is True
    assert page.post(verdict="deny", name="Ann").status_code == 409
    told = receiver.wait_for(2)[1].json()
    assert (told["event"], told["status"], told["decided_by"]) == ("approval_decided", "approved", "bob")
    seen = found(asking.get(f"/v1/approvals/{page.request_id}"))
    assert seen["approved_by"] == ["link", "bob"]


def test_a_link_denies_too(asking: Tenant, receiver: Receiver) -> None:
    page = Page(asking, receiver)
    answer = page.post(verdict="deny", name="Ann")
    assert (answer.status_code, title(answer)) == (200, "Denied")
    assert actors(asking, "approval.denied") == ["approval-link"]


@pytest.mark.parametrize(
    "form",
    [
        {"verdict": "maybe"},
        {"verdict": ""},
        {"verdict": "approve", "name": "x" * 129},
        {"verdict": "approve", "note": "x" * 2001},
        {"verdict": "approve", "name": "a\x00b"},
    ],
)
def test_a_form_that_says_nothing_clear_decides_nothing(
    asking: Tenant, receiver: Receiver, form: dict[str, str]
) -> None:
    page = Page(asking, receiver)
    assert page.post(**form).status_code == 400
    assert found(asking.get(f"/v1/approvals/{page.request_id}"))["status"] == "pending"


def test_the_token_of_one_request_is_none_of_another(asking: Tenant, receiver: Receiver) -> None:
    page = Page(asking, receiver)
    wanted = {"session_id": page.session, "action": "delete"}
    other = created(asking.post("/v1/approvals/request", json=wanted))["request_id"]
    url = page.url.split("?")[0].replace(page.request_id, other)
    for token in (page.token, page.token[:-1], page.token.split(".")[1], "", "x.y"):
        for answer in (
            httpx.get(url, params={"token": token}),
            httpx.post(url, data={"token": token, "verdict": "approve", "name": "Eve"}),
        ):
            assert (answer.status_code, title(answer)) == (403, "This link is not valid")
    assert found(asking.get(f"/v1/approvals/{other}"))["status"] == "pending"
