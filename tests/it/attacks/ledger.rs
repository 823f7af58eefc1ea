//! Attacks on ledger exports.

use data_encoding::BASE64;
use haldir::format::entry::HEADER_LEN;
use haldir::format::merkle::leaf_hash;
use haldir::operations::evidence::Verdict::{
    Equivocation, Incomplete, NotSound, Sound, Truncated, UnnamedKey,
};
use serde_json::json;

use super::world::*;
use super::{Attack, KNOWS_NEXT, KNOWS_OURS, KNOWS_ROOT, Knows, Original, pin_5, pin_10};

pub(super) const ORIGINALS: &[Original] = &[
    ("original.jsonl", KNOWS_OURS, || Story::honest().export().render(), Sound),
    ("original-rotated.jsonl", KNOWS_OURS, || Story::rotated().export().render(), Sound),
    ("original-certified.jsonl", KNOWS_ROOT, || certified().render(), Sound),
    ("original-range.jsonl", KNOWS_OURS, || Story::honest().range(5, 10).render(), Incomplete),
];

/// Certificates of both keys by the root that the auditor trusts.
fn certified() -> Export {
    let mut export = Story::rotated().export();
    export.header["certificates"] = json!([certificate(ROOT, OURS).line(), certificate(ROOT, NEXT).line()]);
    export
}

fn whole() -> Export {
    Story::honest().export()
}

/// The first seven entries, closed by a line that is right but for who signed it.
fn seven() -> Export {
    Story::honest_until(7).export()
}

/// Ten entries and two more by the same key.
fn longer() -> Story {
    let mut story = Story::honest();
    story.tell(admin(), act("t", 3));
    story.tell(admin(), act("t", 4));
    story
}

const KNOWS_PIN: Knows = Knows { pins: &[pin_10], ..KNOWS_OURS };

pub(super) const ATTACKS: &[Attack] = &[
    (
        "truncated-unsigned.jsonl",
        "original.jsonl",
        KNOWS_OURS,
        "leaves out the last entries, and writes a last line without a checkpoint",
        || {
            seven().but(|it| {
                it.header["stream_size"] = json!(7);
                it.end.as_object_mut().unwrap().remove("checkpoint");
            })
        },
        (Incomplete, None, "no signed checkpoint says that the stream ended here"),
    ),
    (
        "truncated-self-signed.jsonl",
        "original.jsonl",
        KNOWS_OURS,
        "leaves out the last entries, closes with a checkpoint of their own key, and offers that key in the header",
        || {
            seven().but(|it| {
                it.header["public_keys"] = json!([named(OURS), named(STRANGER)]);
                it.end["checkpoint"] = json!(Story::honest().checkpoint_by(STRANGER, 7));
            })
        },
        (UnnamedKey, None, "the closing checkpoint is signed by key "),
    ),
    (
        "truncated-foreign-key.jsonl",
        "original.jsonl",
        KNOWS_OURS,
        "the same, but without offering the key",
        || seven().but(|it| it.end["checkpoint"] = json!(Story::honest().checkpoint_by(STRANGER, 7))),
        (NotSound, Some(7), "the closing checkpoint is not signed by a key of this stream"),
    ),
    (
        "truncated-old-checkpoint.jsonl",
        "original.jsonl",
        KNOWS_OURS,
        "leaves out the last entries, and keeps the checkpoint of all",
        || seven().but(|it| it.end["checkpoint"] = json!(Story::honest().checkpoint(10))),
        (NotSound, Some(7), "the closing checkpoint is of size 10"),
    ),
    (
        "truncated-entries-only.jsonl",
        "original.jsonl",
        KNOWS_OURS,
        "leaves out the last entries, and keeps the last line",
        || whole().but(|it| it.lines.truncate(7)),
        (NotSound, Some(7), "the stream ends here, but is known to hold 10 entries"),
    ),
    (
        "truncated-file.jsonl",
        "original.jsonl",
        KNOWS_OURS,
        "cuts the file off in the middle of a line",
        || {
            let mut bytes = whole().render();
            bytes.truncate(bytes.len() * 2 / 3);
            bytes
        },
        (Incomplete, None, "it breaks off after "),
    ),
    (
        "rolled-back.jsonl",
        "original.jsonl",
        KNOWS_PIN,
        "hands over the stream as it was before, with the genuine checkpoint of then",
        || seven().render(),
        (Truncated, None, "the stream held 10 entries when a pinned checkpoint was signed, and 7 are here"),
    ),
    (
        "forked.jsonl",
        "original.jsonl",
        KNOWS_PIN,
        "the operator shows another history, rightly decided, signed and closed",
        || Story::of(ACME, OURS, "2").export().render(),
        (Equivocation, None, "the pinned checkpoint of size 10 is of another history"),
    ),
    (
        "swapped.jsonl",
        "original.jsonl",
        KNOWS_OURS,
        "swaps two entries",
        || whole().but(|it| it.lines.swap(4, 5)),
        (NotSound, Some(4), "says that it is entry 5"),
    ),
    (
        "left-out.jsonl",
        "original.jsonl",
        KNOWS_OURS,
        "leaves out an entry in the middle",
        || {
            whole().but(|it| {
                it.lines.remove(4);
            })
        },
        (NotSound, Some(4), "says that it is entry 5"),
    ),
    (
        "spliced-tenant.jsonl",
        "original.jsonl",
        KNOWS_OURS,
        "puts in the entry of another tenant of the same installation",
        || whole().but(|it| it.lines[5] = Story::of(EMCA, OURS, "3").export().lines.remove(5)),
        (NotSound, Some(5), "belongs to tenant emca"),
    ),
    (
        "spliced-fork.jsonl",
        "original.jsonl",
        KNOWS_OURS,
        "goes on with entries that the same key signed in another history",
        || {
            whole().but(|it| {
                it.lines.splice(6.., Story::of(ACME, OURS, "2").export().lines[6..].to_vec()).for_each(drop);
            })
        },
        (NotSound, Some(6), "does not follow the entry before it"),
    ),
    (
        "other-tenant.jsonl",
        "original.jsonl",
        KNOWS_OURS,
        "hands over the stream of another tenant",
        || Story::of(EMCA, OURS, "3").export().render(),
        (NotSound, Some(0), "belongs to tenant emca"),
    ),
    (
        "replayed-tail.jsonl",
        "original.jsonl",
        KNOWS_OURS,
        "repeats the last entries at the end",
        || whole().but(|it| it.lines.extend_from_within(7..)),
        (NotSound, Some(10), "says that it is entry 7"),
    ),
    (
        "unsigned-tail.jsonl",
        "original.jsonl",
        KNOWS_OURS,
        "adds entries behind those that the last line and its checkpoint speak of",
        || longer().export().but(|it| it.end = whole().end),
        (NotSound, Some(12), "the stream does not end in the entry it is known to end in"),
    ),
    (
        "smaller-checkpoint.jsonl",
        "original.jsonl",
        KNOWS_OURS,
        "closes with a checkpoint of a smaller size",
        || longer().export().but(|it| it.end["checkpoint"] = whole().end["checkpoint"].clone()),
        (NotSound, Some(12), "the closing checkpoint is of size 10"),
    ),
    (
        "after-the-end.jsonl",
        "original.jsonl",
        KNOWS_OURS,
        "adds an entry behind the last line",
        || [whole().render(), longer().export().lines[10].clone().into_bytes(), b"\n".to_vec()].concat(),
        (NotSound, Some(10), "something follows the last line"),
    ),
    (
        "checkpoint-of-another-tenant.jsonl",
        "original.jsonl",
        KNOWS_OURS,
        "closes with the checkpoint of another tenant",
        || whole().but(|it| it.end["checkpoint"] = json!(Story::of(EMCA, OURS, "3").checkpoint(10))),
        (NotSound, Some(10), "the closing checkpoint is of another tenant"),
    ),
    (
        "checkpoint-of-a-fork.jsonl",
        "original.jsonl",
        KNOWS_OURS,
        "closes with the checkpoint of another history",
        || whole().but(|it| it.end["checkpoint"] = json!(Story::of(ACME, OURS, "2").checkpoint(10))),
        (NotSound, Some(10), "the closing checkpoint has another root than the entries"),
    ),
    (
        "wrong-key.jsonl",
        "original.jsonl",
        KNOWS_OURS,
        "signs the whole stream with a key of their own",
        || Story::of(ACME, STRANGER, "3").export().render(),
        (UnnamedKey, None, "from seq 0 on, which you did not name"),
    ),
    (
        "wrong-key-right-name.jsonl",
        "original.jsonl",
        KNOWS_OURS,
        "signs with a key of their own under the name of the right one",
        || {
            let mut story = Story::of(ACME, STRANGER, "3");
            let at = story.entries[0].len() - 72;
            story.entries[0][at..][..8].copy_from_slice(&signer(OURS).id().0);
            story.export().but(|it| it.header["public_keys"] = json!([named(OURS)]))
        },
        (NotSound, Some(0), "the signature is wrong"),
    ),
    (
        "signature-swapped.jsonl",
        "original.jsonl",
        KNOWS_OURS,
        "gives an entry the signature of another",
        || {
            let mut story = Story::honest();
            let signature = story.entries[3][story.entries[3].len() - 64..].to_vec();
            let at = story.entries[4].len() - 64;
            story.entries[4][at..].copy_from_slice(&signature);
            story.export().render()
        },
        (NotSound, Some(4), "the signature is wrong"),
    ),
    (
        "resealed.jsonl",
        "original-rotated.jsonl",
        KNOWS_OURS,
        "seals a changed history with the key that took over, from the first entry on",
        || Story::of(ACME, NEXT, "2").export().render(),
        (UnnamedKey, None, "from seq 0 on, which you did not name"),
    ),
    (
        "resealed-pinned.jsonl",
        "original-rotated.jsonl",
        Knows { keys: &[OURS, NEXT], pins: &[pin_5], ..KNOWS_NEXT },
        "the same, for an auditor who trusts both keys and kept a checkpoint",
        || Story::of(ACME, NEXT, "2").export().render(),
        (Equivocation, None, "the pinned checkpoint of size 5 is of another history"),
    ),
    (
        "resealed-pinned-by-unknown.jsonl",
        "original-rotated.jsonl",
        Knows { pins: &[pin_5], ..KNOWS_NEXT },
        "the same, for an auditor who forgot whose checkpoint it was",
        || Story::of(ACME, NEXT, "2").export().but(|it| it.header["public_keys"] = json!([named(NEXT)])),
        (NotSound, Some(5), "is of another history, and signed by a key that is not known"),
    ),
    (
        "old-key.jsonl",
        "original-rotated.jsonl",
        KNOWS_OURS,
        "signs an entry with the key that was handed on",
        || {
            let mut story = Story::rotated();
            story.key = OURS;
            story.tell(admin(), act("s", 7));
            story.export().render()
        },
        (NotSound, Some(10), "but at this place key "),
    ),
    (
        "old-key-closes.jsonl",
        "original-rotated.jsonl",
        KNOWS_OURS,
        "leaves out the last entries, and closes with the stolen key that was handed on",
        || {
            Story::rotated().range(0, 8).but(|it| {
                it.header["stream_size"] = json!(8);
                it.end["checkpoint"] = json!(Story::rotated().checkpoint_by(OURS, 8));
            })
        },
        (NotSound, Some(8), "the closing checkpoint is not signed by a key of this stream"),
    ),
    (
        "rotated-by-thief.jsonl",
        "original-certified.jsonl",
        KNOWS_ROOT,
        "hands the stream to a key of their own with the stolen one",
        || {
            let mut story = Story::honest_until(5);
            story.rotate(STRANGER);
            story.tell(admin(), act("s", 3));
            story.export().but(|it| it.header["certificates"] = certified().header["certificates"].clone())
        },
        (UnnamedKey, None, "from seq 6 on, which you did not name"),
    ),
    (
        "other-root.jsonl",
        "original-certified.jsonl",
        KNOWS_ROOT,
        "certifies the keys with a root of their own",
        || {
            Story::rotated().export().but(|it| {
                it.header["certificates"] =
                    json!([certificate(OTHER_ROOT, OURS).line(), certificate(OTHER_ROOT, NEXT).line()]);
            })
        },
        (UnnamedKey, None, "from seq 0 on, which you did not name"),
    ),
    (
        "forged-certificate.jsonl",
        "original-certified.jsonl",
        KNOWS_ROOT,
        "puts the right root's name on a certificate that it did not sign",
        || {
            Story::rotated().export().but(|it| {
                let forge = |key| {
                    let mut certificate = certificate(OTHER_ROOT, key);
                    certificate.root = public(ROOT);
                    certificate.line()
                };
                it.header["certificates"] = json!([forge(OURS), forge(NEXT)]);
            })
        },
        (UnnamedKey, None, "from seq 0 on, which you did not name"),
    ),
    (
        "payload-altered.jsonl",
        "original.jsonl",
        KNOWS_OURS,
        "changes an amount in the bytes of an entry",
        || {
            let mut bytes = Story::honest().entries[2].clone();
            bytes[HEADER_LEN + 100] ^= 1;
            whole().but(|it| {
                it.lines[2] =
                    it.lines[2].replace(&BASE64.encode(&Story::honest().entries[2]), &BASE64.encode(&bytes));
            })
        },
        (NotSound, Some(2), "hash does not match the content"),
    ),
    (
        "label-amount.jsonl",
        "original.jsonl",
        KNOWS_OURS,
        "changes what a line says of its entry, not the entry",
        || {
            whole()
                .but(|it| it.lines[2] = it.lines[2].replace("\"amount_usd\":\"3.0\"", "\"amount_usd\":\"1\""))
        },
        (NotSound, Some(2), "mislabelled"),
    ),
    (
        "label-seq.jsonl",
        "original.jsonl",
        KNOWS_OURS,
        "numbers a line wrongly",
        || whole().but(|it| it.lines[3] = it.lines[3].replace("\"seq\":3", "\"seq\":4")),
        (NotSound, Some(3), "mislabelled"),
    ),
    (
        "label-twice.jsonl",
        "original.jsonl",
        KNOWS_OURS,
        "says what happened twice, wrongly for those who believe the first",
        || {
            whole().but(|it| {
                it.lines[2] =
                    it.lines[2].replacen("\"event\":{", "\"event\":{\"amount_usd\":\"1\"},\"event\":{", 1);
            })
        },
        (NotSound, Some(2), "stands twice"),
    ),
    (
        "label-twice-inside.jsonl",
        "original.jsonl",
        KNOWS_OURS,
        "the same with one amount in what happened",
        || {
            whole().but(|it| {
                it.lines[2] = it.lines[2].replacen("\"event\":{", "\"event\":{\"amount_usd\":\"1\",", 1);
            })
        },
        (NotSound, Some(2), "stands twice"),
    ),
    (
        "entry-twice.jsonl",
        "original.jsonl",
        KNOWS_OURS,
        "puts two entries on one line",
        || {
            whole().but(|it| {
                let other = BASE64.encode(&Story::honest().entries[3]);
                it.lines[2] =
                    it.lines[2].replacen("\"entry\":", &format!("\"entry\":\"{other}\",\"entry\":"), 1);
            })
        },
        (NotSound, Some(2), "stands twice"),
    ),
    (
        "range-peaks.jsonl",
        "original-range.jsonl",
        KNOWS_OURS,
        "makes up what came before the range",
        || Story::honest().range(5, 10).but(|it| it.header["peaks"][0] = it.header["peaks"][1].clone()),
        (NotSound, Some(10), "the root is not that of the entries"),
    ),
    (
        "range-peaks-and-root.jsonl",
        "original-range.jsonl",
        KNOWS_OURS,
        "makes up what came before the range, and the root to it",
        || {
            let forged = Story::of(ACME, OURS, "2").range(5, 10);
            Story::honest().range(5, 10).but(|it| {
                it.header["peaks"] = forged.header["peaks"].clone();
                let mut tree = tree_of(&Story::of(ACME, OURS, "2").entries[..5]);
                Story::honest().entries[5..].iter().for_each(|it| tree.push(leaf_hash(it)));
                it.end["root"] = json!(tree.root().to_string());
            })
        },
        (NotSound, Some(10), "the closing checkpoint has another root than the entries"),
    ),
    (
        "range-prev.jsonl",
        "original-range.jsonl",
        KNOWS_OURS,
        "names another entry before the range",
        || Story::honest().range(5, 10).but(|it| it.header["prev"] = json!("00".repeat(32))),
        (NotSound, Some(5), "does not follow the entry before it"),
    ),
    (
        "range-pinned.jsonl",
        "original-range.jsonl",
        KNOWS_PIN,
        "hands over a range of another history",
        || Story::of(ACME, OURS, "2").range(5, 10).render(),
        (Equivocation, None, "the pinned checkpoint of size 10 is of another history"),
    ),
];
