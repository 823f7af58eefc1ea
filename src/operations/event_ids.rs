//! The ids under which receivers know events: 32 hex digits, the same for every attempt and receiver, for ever.
//!
//! An id is made from the tenant and the event's position in its stream, and gives the position back: its second half is a
//! digest of both, its first half the position, masked with a digest of the second. So no two events of a tenant share an
//! id, ids of different tenants do not meet by more than chance, and none of them counts up.

use data_encoding::HEXLOWER;

use crate::domain::id::TenantId;

/// BLAKE3 key-derivation context of the second half.
const TAG_CONTEXT: &str = "haldir webhook event id v1 tag";
/// BLAKE3 key-derivation context of what masks the first half.
const MASK_CONTEXT: &str = "haldir webhook event id v1 mask";

/// The id of the event at this place.
#[must_use]
pub fn event_id(tenant: &TenantId, seq: u64) -> String {
    let tag = tag_of(tenant, seq);
    let masked = seq ^ mask_of(tenant, tag);
    HEXLOWER.encode(&[masked.to_be_bytes(), tag].concat())
}

/// The place of the event with this id; `None` when it is no id of this tenant's.
#[must_use]
pub fn seq_of(tenant: &TenantId, event_id: &str) -> Option<u64> {
    let bytes: [u8; 16] = HEXLOWER.decode(event_id.as_bytes()).ok()?.try_into().ok()?;
    let (masked, tag) = bytes.split_first_chunk::<8>()?;
    let tag: [u8; 8] = tag.try_into().ok()?;
    let seq = u64::from_be_bytes(*masked) ^ mask_of(tenant, tag);
    (tag_of(tenant, seq) == tag).then_some(seq)
}

fn tag_of(tenant: &TenantId, seq: u64) -> [u8; 8] {
    digest(TAG_CONTEXT, tenant, seq.to_be_bytes())
}

fn mask_of(tenant: &TenantId, tag: [u8; 8]) -> u64 {
    u64::from_be_bytes(digest(MASK_CONTEXT, tenant, tag))
}

/// The last eight bytes of what is digested are `rest`, so that no tenant's name runs into it.
fn digest(context: &str, tenant: &TenantId, rest: [u8; 8]) -> [u8; 8] {
    let whole = blake3::derive_key(context, &[tenant.as_str().as_bytes(), &rest].concat());
    let mut digest = [0; 8];
    digest.copy_from_slice(&whole[..8]);
    digest
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_event_has_an_id_of_its_own_that_leads_back_to_it() {
        let tenants = ["t", "t0", "9e881bd609994b5e"].map(|name| TenantId::parse(name).unwrap());
        let mut seen = BTreeSet::new();
        for tenant in &tenants {
            for seq in (0..1000).chain([u64::MAX - 1, u64::MAX]) {
                let id = event_id(tenant, seq);
                assert_eq!(id.len(), 32);
                assert_eq!(seq_of(tenant, &id), Some(seq));
                assert!(tenants.iter().all(|other| other == tenant || seq_of(other, &id).is_none()));
                assert!(seen.insert(id));
            }
        }
    }

    #[test]
    fn ids_never_change() {
        let tenant = TenantId::parse("9e881bd609994b5e").unwrap();
        assert_eq!(event_id(&tenant, 7), "411b5ee9655f537c4b8f83047b315da3");
    }

    #[test]
    fn what_is_no_id_leads_nowhere() {
        let tenant = TenantId::parse("t").unwrap();
        let id = event_id(&tenant, 7);
        for text in ["", "7", &id[1..], &id.to_uppercase(), &"0".repeat(32), &id.replace(&id[..1], "é")] {
            assert_eq!(seq_of(&tenant, text), None, "{text}");
        }
    }
}
