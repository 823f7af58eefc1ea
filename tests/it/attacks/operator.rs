//! Attacks by whoever holds the signing key: everything is hashed, signed and linked as it should be, and still not what
//! Haldir would have written.

use haldir::domain::id::Actor;
use haldir::domain::money::Money;
use haldir::domain::time::Timestamp;
use haldir::domain::{Command, Event};
use haldir::format::entry::HEADER_LEN;
use haldir::operations::evidence::Verdict::{Incomplete, NotSound};

use super::world::*;
use super::{Attack, KNOWS_OURS};

/// A story whose next entry is decided as if the state were that of another.
fn forged(mut story: Story, state: &Story, actor: Actor, command: Command) -> Vec<u8> {
    story.forge(state, actor, command, |_| {});
    story.export().render()
}

pub(super) const ATTACKS: &[Attack] = &[
    (
        "option-byte.jsonl",
        "original.jsonl",
        KNOWS_OURS,
        "the operator writes another byte for a value that is there",
        || Story::honest().rewritten(2, |bytes| bytes[HEADER_LEN] = 2).export().render(),
        (NotSound, Some(2), "payload is malformed"),
    ),
    (
        "trailing-byte.jsonl",
        "original.jsonl",
        KNOWS_OURS,
        "the operator adds a byte to a payload",
        || Story::honest().rewritten(2, |bytes| bytes.push(0)).export().render(),
        (NotSound, Some(2), "payload is malformed"),
    ),
    (
        "unsorted-scopes.jsonl",
        "original.jsonl",
        KNOWS_OURS,
        "the operator writes a key's scopes in another order",
        || Story::honest().rewritten(6, swap_scopes).export().render(),
        (NotSound, Some(6), "payload is malformed"),
    ),
    (
        "payload-length.jsonl",
        "original.jsonl",
        KNOWS_OURS,
        "the header names another length",
        || Story::honest().rewritten(3, |bytes| bytes[HEADER_LEN - 4] ^= 1).export().render(),
        (NotSound, Some(3), "does not fit the entry"),
    ),
    (
        "kind.jsonl",
        "original.jsonl",
        KNOWS_OURS,
        "the header names another kind of event",
        || Story::honest().rewritten(3, |bytes| bytes[6] = 32).export().render(),
        (NotSound, Some(3), "payload is malformed"),
    ),
    (
        "tenant.jsonl",
        "original.jsonl",
        KNOWS_OURS,
        "the header names another tenant",
        || Story::honest().rewritten(3, |bytes| bytes[32..36].copy_from_slice(b"emca")).export().render(),
        (NotSound, Some(3), "belongs to tenant emca"),
    ),
    (
        "seq.jsonl",
        "original.jsonl",
        KNOWS_OURS,
        "the header names another place",
        || Story::honest().rewritten(3, |bytes| bytes[16] = 4).export().render(),
        (NotSound, Some(3), "says that it is entry 4"),
    ),
    (
        "overspent.jsonl",
        "original.jsonl",
        KNOWS_OURS,
        "the operator authorises more than the budget holds",
        || forged(Story::honest_until(7), &Story::honest_until(2), admin(), pay("s", "4", 7)),
        (
            NotSound,
            Some(7),
            "the rules do not give this decision: payment.authorized; they give payment.denied",
        ),
    ),
    (
        "overspent-unknown-rules.jsonl",
        "original.jsonl",
        KNOWS_OURS,
        "the same, as decided by rules that nobody knows",
        || {
            let mut story = Story::honest_until(7);
            story.forge(&Story::honest_until(2), admin(), pay("s", "4", 7), |recorded| recorded.rules = 2);
            story.export().render()
        },
        (Incomplete, None, "from seq 7 on, decisions follow rules that this program does not know"),
    ),
    (
        "debited-too-little.jsonl",
        "original.jsonl",
        KNOWS_OURS,
        "the operator debits less than was paid",
        || {
            let mut story = Story::honest_until(2);
            story.forge(&Story::honest_until(2), admin(), pay("s", "3", 1), |recorded| {
                if let Event::PaymentAuthorized(payment) = &mut recorded.event {
                    payment.remaining = Some(Money::parse("4").unwrap());
                }
            });
            story.export().render()
        },
        (NotSound, Some(2), "they give payment.authorized with other content"),
    ),
    (
        "paid-when-revoked.jsonl",
        "original.jsonl",
        KNOWS_OURS,
        "the operator lets a revoked session pay",
        || forged(Story::honest_until(9), &Story::honest_until(8), admin(), pay("s", "1", 7)),
        (NotSound, Some(9), "payment.authorized; they give payment.denied"),
    ),
    (
        "opened-twice.jsonl",
        "original.jsonl",
        KNOWS_OURS,
        "the operator opens a session again, and so gives it a fresh budget",
        || forged(Story::honest_until(5), &Story::honest_until(1), admin(), open("s")),
        (NotSound, Some(5), "a refusal: a session with this id exists"),
    ),
    (
        "granted-by-revoked-key.jsonl",
        "original.jsonl",
        KNOWS_OURS,
        "the operator lets a revoked API key mint another",
        || {
            let before = Story::honest();
            let mut story = Story::honest();
            story.tell(admin(), revoke_key("A"));
            forged(story, &before, admin(), mint("C", &["*"]))
        },
        (NotSound, Some(11), "a refusal: "),
    ),
    (
        "granted-too-much.jsonl",
        "original.jsonl",
        KNOWS_OURS,
        "the operator lets an API key give away what it may not do itself",
        || {
            let mut story = Story::honest();
            story.forge(&Story::honest(), admin(), mint("C", &["*"]), |recorded| {
                recorded.actor = Actor::Key(api_key("B"));
            });
            story.export().render()
        },
        (NotSound, Some(10), "key.minted; they give access.denied"),
    ),
    (
        "time-backwards.jsonl",
        "original.jsonl",
        KNOWS_OURS,
        "the operator dates an entry back",
        || {
            let mut story = Story::honest();
            story.forge(&Story::honest(), admin(), act("t", 3), |recorded| {
                recorded.at = Timestamp::from_micros(1_700_000_000_000_000);
            });
            story.export().render()
        },
        (NotSound, Some(10), "is not later than the entry before it"),
    ),
];

/// Writes the two scopes of the second API key the other way round.
fn swap_scopes(bytes: &mut Vec<u8>) {
    let text = |word: &str| [&(word.len() as u64).to_le_bytes(), word.as_bytes()].concat();
    let (one, other) = (text("audit:read"), text("sessions:read"));
    let sorted = [one.clone(), other.clone()].concat();
    let at = bytes.windows(sorted.len()).position(|window| window == sorted).unwrap();
    bytes.splice(at..at + sorted.len(), [other, one].concat());
}
