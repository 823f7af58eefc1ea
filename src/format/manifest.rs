//! The signature over the manifest of an export. See "Export manifest" in ledger-format.md.
//!
//! A manifest is one line of text that ends in `}`. Its signature is added as the last member, so that the text that was
//! signed is found again without understanding any of it.

use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};

use super::chain::{KEY_ID_LEN, KeyId, PublicKey, SIGNATURE_LEN};

/// First bytes of what is signed.
const SIGNATURE_DOMAIN: &[u8] = b"haldir audit export v1\n";
/// Between the signed text without its last brace, and the signature.
const BEFORE_SIGNATURE: &str = r#","signature":""#;
/// After the signature.
const AFTER_SIGNATURE: &str = r#""}"#;

/// What a key signs of a manifest's text: the domain, the key id, and the SHA-256 of the text.
#[must_use]
pub fn signed_bytes(key_id: KeyId, text: &[u8]) -> Vec<u8> {
    let key_id: [u8; KEY_ID_LEN] = key_id.0;
    [SIGNATURE_DOMAIN, &key_id, &Sha256::digest(text)].concat()
}

/// Takes a signed manifest apart: the text that was signed, and the signature. `None` when the line does not end in a
/// signature.
#[must_use]
pub fn split(line: &str) -> Option<(String, [u8; SIGNATURE_LEN])> {
    let rest = line.strip_suffix(AFTER_SIGNATURE)?;
    let (rest, signature) = rest.split_at_checked(rest.len().checked_sub(2 * SIGNATURE_LEN)?)?;
    let signature = HEXLOWER.decode(signature.as_bytes()).ok()?.try_into().ok()?;
    let text = rest.strip_suffix(BEFORE_SIGNATURE)?;
    Some((format!("{text}}}"), signature))
}

/// Whether a key signed a manifest.
#[must_use]
pub fn is_signed_by(line: &str, key: PublicKey) -> bool {
    split(line).is_some_and(|(text, signature)| key.has_signed_manifest(text.as_bytes(), &signature))
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;

    use super::*;
    use crate::format::chain::{EntryHash, Signer};

    fn signed(signer: &Signer, text: &str) -> String {
        let signature = HEXLOWER.encode(&signer.sign_manifest(text.as_bytes()));
        let body = text.strip_suffix('}').unwrap();
        format!("{body},\"signature\":\"{signature}\"}}")
    }

    #[test]
    fn a_manifest_is_signed_by_its_key_and_no_other_and_not_after_a_change() {
        let signer = Signer::new(SigningKey::from_bytes(&[7; 32]));
        let other = Signer::new(SigningKey::from_bytes(&[8; 32]));
        let text = r#"{"type":"manifest","count":2}"#;
        let line = signed(&signer, text);
        assert_eq!(split(&line).unwrap().0, text);
        assert!(is_signed_by(&line, signer.public_key()));
        assert!(!is_signed_by(&line, other.public_key()));
        assert!(!is_signed_by(&line.replace(":2", ":3"), signer.public_key()));
        for at in 0..line.len() {
            let changed = |byte: u8| if byte == b'0' { b'1' } else { b'0' };
            let mut bytes = line.clone().into_bytes();
            bytes[at] = changed(bytes[at]);
            let changed = String::from_utf8(bytes).unwrap();
            assert!(!is_signed_by(&changed, signer.public_key()), "{changed}");
        }
    }

    #[test]
    fn what_does_not_end_in_a_signature_is_no_signed_manifest() {
        let line = signed(&Signer::new(SigningKey::from_bytes(&[7; 32])), r#"{"a":1}"#);
        for end in 0..line.len() {
            assert_eq!(split(&line[..end]), None, "{}", &line[..end]);
        }
        for line in [
            line.to_uppercase(),
            format!("{line}\n"),
            line.replace("signature", "signature_"),
            "é".repeat(99),
        ] {
            assert_eq!(split(&line), None, "{line}");
        }
    }

    #[test]
    fn a_signature_over_an_entry_is_none_over_a_manifest() {
        let signer = Signer::new(SigningKey::from_bytes(&[7; 32]));
        let text = [0x5a; 32];
        let of_entry = signer.sign(&EntryHash(text));
        let of_digest = signer.sign(&EntryHash(Sha256::digest(text).into()));
        for signature in [of_entry, of_digest] {
            assert!(!signer.public_key().has_signed_manifest(&text, &signature));
        }
        assert!(!signer.public_key().has_signed(&EntryHash(text), &signer.sign_manifest(&text)));
    }
}
