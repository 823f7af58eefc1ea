//! Certificates of signing keys by a root key that is kept offline. See "Root keys" in ledger-format.md.
//!
//! One line of text: `haldir-key-certificate-v1`, the root's public key, the signing key's public key and the root's
//! signature, all in hex, with a space between.

use data_encoding::HEXLOWER;

use super::chain::{PublicKey, SIGNATURE_LEN, Signer};

/// The first word of a certificate.
const FORM: &str = "haldir-key-certificate-v1";

/// A root key's word that a signing key is the installation's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyCertificate {
    /// Who says so.
    pub root: PublicKey,
    /// Of which key.
    pub subject: PublicKey,
    /// The signature.
    pub signature: [u8; SIGNATURE_LEN],
}

impl KeyCertificate {
    /// Certifies a key.
    #[must_use]
    pub fn sign(root: &Signer, subject: PublicKey) -> Self {
        Self { root: root.public_key(), subject, signature: root.sign_key(subject) }
    }

    /// Whether the root key signed it.
    #[must_use]
    pub fn is_signed(&self) -> bool {
        self.root.has_signed_key(self.subject, &self.signature)
    }

    /// The line, without a line end.
    #[must_use]
    pub fn line(&self) -> String {
        let hex = |bytes: &[u8]| HEXLOWER.encode(bytes);
        let (root, subject) = (hex(&self.root.to_bytes()), hex(&self.subject.to_bytes()));
        format!("{FORM} {root} {subject} {}", hex(&self.signature))
    }

    /// Reads a line; `None` when it is not a certificate. Its signature is not looked at.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let form = words.next()?;
        let mut bytes = || HEXLOWER.decode(words.next()?.as_bytes()).ok();
        let (root, subject, signature) = (bytes()?, bytes()?, bytes()?);
        let certificate = Self {
            root: PublicKey::from_bytes(&root.try_into().ok()?)?,
            subject: PublicKey::from_bytes(&subject.try_into().ok()?)?,
            signature: signature.try_into().ok()?,
        };
        (form == FORM && words.next().is_none()).then_some(certificate)
    }
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;

    use super::*;

    #[test]
    fn a_certificate_is_of_one_key_by_one_root() {
        let [root, other] = [[1; 32], [2; 32]].map(|key| Signer::new(SigningKey::from_bytes(&key)));
        let certificate = KeyCertificate::sign(&root, other.public_key());
        assert!(certificate.is_signed());
        assert_eq!(KeyCertificate::parse(&certificate.line()), Some(certificate.clone()));
        assert!(!KeyCertificate { subject: root.public_key(), ..certificate.clone() }.is_signed());
        assert!(!KeyCertificate { root: other.public_key(), ..certificate.clone() }.is_signed());
        let line = certificate.line();
        for bad in [&line[1..], &line[..line.len() - 1], &format!("{line} "), &line.to_uppercase()] {
            assert_eq!(KeyCertificate::parse(bad), None, "{bad}");
        }
    }
}
