//! The bytes of a sealed value. See "Sealed values" in ledger-format.md, which is normative.
//!
//! A value is encrypted under a data key of its own, and the data key is wrapped under a master key. The head, which holds the
//! wrapped key, is made anew when the master key changes; the body never changes, and its digest is the value's name for ever.

use aes_gcm_siv::aead::{Aead as _, KeyInit as _, Payload};
use aes_gcm_siv::{Aes256GcmSiv, Nonce};
use zeroize::Zeroizing;

use super::ring::{KeyRing, MasterKey, MasterKeyId};
use super::{Digest, Drawer, Place, VaultError};
use crate::domain::id::TenantId;
use crate::ledger::random::Random;

const MAGIC: &[u8; 4] = b"HDLV";
const VERSION: u8 = 1;
const NONCE_LEN: usize = 12;
const TAG_LEN: usize = 16;
const DATA_KEY_LEN: usize = 32;

// Head: everything that a change of the master key replaces.
const VERSION_AT: usize = MAGIC.len();
const KEY_ID_AT: usize = VERSION_AT + 1;
const WRAP_NONCE_AT: usize = KEY_ID_AT + 8;
const WRAPPED_KEY_AT: usize = WRAP_NONCE_AT + NONCE_LEN;
const HEAD_LEN: usize = WRAPPED_KEY_AT + DATA_KEY_LEN + TAG_LEN;
const _: () = assert!(HEAD_LEN == 73, "see ledger-format.md");

// Body, from the end of the head on: where the value belongs, and the value.
const DRAWER_AT: usize = 0;
const NAME_LEN_AT: usize = DRAWER_AT + 1;
const NAME_AT: usize = NAME_LEN_AT + size_of::<u16>();

/// First bytes of what is authenticated with a value, and with a wrapped key.
const VALUE_DOMAIN: &[u8] = b"haldir vault v1 value\n";
const DATA_KEY_DOMAIN: &[u8] = b"haldir vault v1 data key\n";
/// BLAKE3 key-derivation context of a sealed value's digest.
const DIGEST_CONTEXT: &str = "haldir vault v1 sealed value digest";

/// Bytes by which a sealed value's ciphertext is longer than the value.
pub(super) const CIPHERTEXT_EXTRA_LEN: usize = TAG_LEN;

/// The bytes of a sealed value, taken apart; nothing of it is authenticated yet.
pub(super) struct Sealed<'a> {
    key_id: MasterKeyId,
    wrap_nonce: [u8; NONCE_LEN],
    wrapped_key: &'a [u8],
    body: &'a [u8],
    drawer: Drawer,
    name: &'a str,
    nonce: [u8; NONCE_LEN],
    ciphertext: &'a [u8],
}

/// Seals a value: the bytes to keep, and the digest of their body.
pub(super) fn seal(
    place: &Place,
    value: &[u8],
    primary: &MasterKey,
    random: &dyn Random,
) -> Result<(Vec<u8>, Digest), VaultError> {
    let data_key: Zeroizing<[u8; DATA_KEY_LEN]> = Zeroizing::new(random.bytes());
    let nonce: [u8; NONCE_LEN] = random.bytes();
    let name_len = u16::try_from(place.name.len()).map_err(|_| VaultError::NameTooLong)?;
    let aad = value_aad(place);
    let ciphertext = Aes256GcmSiv::new(&(*data_key).into())
        .encrypt(&Nonce::from(nonce), Payload { msg: value, aad: &aad })
        .map_err(|_| VaultError::Damaged)?;
    let body =
        [&[place.drawer.code()][..], &name_len.to_le_bytes(), place.name.as_bytes(), &nonce, &ciphertext]
            .concat();
    let digest = digest_of(&body);
    let mut bytes = head(place, &digest, &data_key, primary, random)?;
    bytes.extend_from_slice(&body);
    Ok((bytes, digest))
}

/// Wraps a data key.
fn head(
    place: &Place,
    digest: &Digest,
    data_key: &[u8; DATA_KEY_LEN],
    primary: &MasterKey,
    random: &dyn Random,
) -> Result<Vec<u8>, VaultError> {
    let nonce: [u8; NONCE_LEN] = random.bytes();
    let aad = data_key_aad(place, digest, primary.id());
    let wrapped = Aes256GcmSiv::new(&(*primary.bytes()).into())
        .encrypt(&Nonce::from(nonce), Payload { msg: data_key, aad: &aad })
        .map_err(|_| VaultError::Damaged)?;
    Ok([&MAGIC[..], &[VERSION], &primary.id().0, &nonce, &wrapped].concat())
}

impl<'a> Sealed<'a> {
    /// Takes bytes apart.
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (head, body) = bytes.split_at_checked(HEAD_LEN)?;
        if head[..VERSION_AT] != *MAGIC || head[VERSION_AT] != VERSION {
            return None;
        }
        let drawer = Drawer::from_code(*body.get(DRAWER_AT)?)?;
        let name_len = u16::from_le_bytes(body.get(NAME_LEN_AT..NAME_AT)?.try_into().ok()?);
        let name_end = NAME_AT + usize::from(name_len);
        let name = str::from_utf8(body.get(NAME_AT..name_end)?).ok()?;
        let (nonce, ciphertext) = body[name_end..].split_first_chunk::<NONCE_LEN>()?;
        Some(Self {
            key_id: MasterKeyId(head[KEY_ID_AT..WRAP_NONCE_AT].try_into().ok()?),
            wrap_nonce: head[WRAP_NONCE_AT..WRAPPED_KEY_AT].try_into().ok()?,
            wrapped_key: &head[WRAPPED_KEY_AT..],
            body,
            drawer,
            name,
            nonce: *nonce,
            ciphertext,
        })
    }

    /// The master key that wraps it.
    pub(super) const fn key_id(&self) -> MasterKeyId {
        self.key_id
    }

    /// Where it says that it belongs. True only if it opens there.
    pub(super) fn place(&self, tenant: &TenantId) -> Place {
        Place { tenant: tenant.clone(), drawer: self.drawer, name: self.name.to_owned() }
    }

    /// The digest of its body.
    pub(super) fn digest(&self) -> Digest {
        digest_of(self.body)
    }

    /// Opens it, if it is the value with this digest and belongs to this place.
    pub(super) fn open(
        &self,
        place: &Place,
        digest: &Digest,
        ring: &KeyRing,
    ) -> Result<Zeroizing<Vec<u8>>, VaultError> {
        let data_key = self.unwrap_key(place, digest, ring)?;
        let aad = value_aad(place);
        Aes256GcmSiv::new(&(*data_key).into())
            .decrypt(&Nonce::from(self.nonce), Payload { msg: self.ciphertext, aad: &aad })
            .map(Zeroizing::new)
            .map_err(|_| VaultError::Damaged)
    }

    /// The same value with its data key wrapped by the primary master key.
    pub(super) fn rewrap(
        &self,
        tenant: &TenantId,
        digest: &Digest,
        ring: &KeyRing,
        random: &dyn Random,
    ) -> Result<Vec<u8>, VaultError> {
        let place = self.place(tenant);
        let data_key = self.unwrap_key(&place, digest, ring)?;
        let mut bytes = head(&place, digest, &data_key, ring.primary(), random)?;
        bytes.extend_from_slice(self.body);
        Ok(bytes)
    }

    fn unwrap_key(
        &self,
        place: &Place,
        digest: &Digest,
        ring: &KeyRing,
    ) -> Result<Zeroizing<[u8; DATA_KEY_LEN]>, VaultError> {
        if self.digest() != *digest {
            return Err(VaultError::Damaged);
        }
        let key = ring.find(self.key_id).ok_or(VaultError::KeyMissing(self.key_id))?;
        let aad = data_key_aad(place, digest, key.id());
        let data_key = Aes256GcmSiv::new(&(*key.bytes()).into())
            .decrypt(&Nonce::from(self.wrap_nonce), Payload { msg: self.wrapped_key, aad: &aad })
            .map(Zeroizing::new)
            .map_err(|_| VaultError::Damaged)?;
        data_key.as_slice().try_into().map(Zeroizing::new).map_err(|_| VaultError::Damaged)
    }
}

/// What is authenticated with a value: where it belongs, each part with its length before it.
fn value_aad(place: &Place) -> Vec<u8> {
    let mut aad = VALUE_DOMAIN.to_vec();
    push_place(&mut aad, place);
    aad
}

/// What is authenticated with a wrapped key: the key that wraps it, where the value belongs, and which value it is.
fn data_key_aad(place: &Place, digest: &Digest, key_id: MasterKeyId) -> Vec<u8> {
    let mut aad = DATA_KEY_DOMAIN.to_vec();
    aad.extend_from_slice(&key_id.0);
    push_place(&mut aad, place);
    aad.extend_from_slice(digest);
    aad
}

fn push_place(aad: &mut Vec<u8>, place: &Place) {
    aad.push(place.drawer.code());
    for part in [place.tenant.as_str(), &place.name] {
        aad.extend_from_slice(&(part.len() as u64).to_le_bytes());
        aad.extend_from_slice(part.as_bytes());
    }
}

fn digest_of(body: &[u8]) -> Digest {
    blake3::derive_key(DIGEST_CONTEXT, body)
}

#[cfg(test)]
mod tests {
    use crate::vault::tests::{Counting, key, place, ring};

    use super::*;

    #[test]
    fn a_value_opens_in_its_place_alone() {
        let there = place("t", Drawer::Secret, "a");
        let ring = ring(1, &[]);
        let (bytes, digest) = seal(&there, b"value", ring.primary(), &Counting::default()).unwrap();
        let sealed = Sealed::parse(&bytes).unwrap();
        assert_eq!(*sealed.open(&there, &digest, &ring).unwrap(), b"value");
        assert_eq!(sealed.place(&there.tenant), there);
        for elsewhere in [
            place("u", Drawer::Secret, "a"),
            place("t", Drawer::Webhook, "a"),
            place("t", Drawer::Secret, "b"),
            place("ta", Drawer::Secret, ""),
        ] {
            assert_eq!(sealed.open(&elsewhere, &digest, &ring).unwrap_err(), VaultError::Damaged);
        }
        assert_eq!(sealed.open(&there, &[0; 32], &ring).unwrap_err(), VaultError::Damaged);
    }

    #[test]
    fn no_byte_of_it_can_be_another() {
        let there = place("t", Drawer::Secret, "a");
        let ring = ring(1, &[]);
        let (bytes, digest) = seal(&there, b"value", ring.primary(), &Counting::default()).unwrap();
        for at in 0..bytes.len() {
            let mut altered = bytes.clone();
            altered[at] ^= 1;
            let opened = Sealed::parse(&altered).map(|sealed| sealed.open(&there, &digest, &ring));
            assert!(opened.is_none_or(|opened| opened.is_err()), "byte {at}");
            let cut = Sealed::parse(&bytes[..at]).map(|sealed| sealed.open(&there, &digest, &ring));
            assert!(cut.is_none_or(|opened| opened.is_err()), "cut at {at}");
        }
    }

    #[test]
    fn another_master_key_changes_the_head_alone() {
        let there = place("t", Drawer::Webhook, "7");
        let random = Counting::default();
        let (before, digest) = seal(&there, b"value", &key(1), &random).unwrap();
        let both = ring(2, &[1]);
        let after = Sealed::parse(&before).unwrap().rewrap(&there.tenant, &digest, &both, &random).unwrap();
        assert_eq!(before[HEAD_LEN..], after[HEAD_LEN..]);
        let sealed = Sealed::parse(&after).unwrap();
        assert_eq!(sealed.key_id(), key(2).id());
        assert_eq!(*sealed.open(&there, &digest, &ring(2, &[])).unwrap(), b"value");
        let old = sealed.open(&there, &digest, &ring(1, &[]));
        assert_eq!(old.unwrap_err(), VaultError::KeyMissing(key(2).id()));
    }

    #[test]
    fn the_vector_of_the_document() {
        let (bytes, digest) =
            seal(&place("tenant1", Drawer::Secret, "stripe_key"), b"sk_test", &key(1), &Counting::default())
                .unwrap();
        let hex = data_encoding::HEXLOWER.encode(&bytes);
        let document = include_str!("../../ledger-format.md");
        assert!(document.contains(&hex), "sealed_value = {hex}");
        let hex = data_encoding::HEXLOWER.encode(&digest);
        assert!(document.contains(&hex), "sealed_value_digest = {hex}");
    }
}
