//! How deliveries are signed: as the contract says, and beside it as "Standard Webhooks" says.

use data_encoding::{BASE64, BASE64URL_NOPAD, HEXLOWER};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use zeroize::Zeroizing;

/// A hook's secret: 32 random bytes, shown as 43 characters of URL-safe base64.
pub struct WebhookSecret(Zeroizing<[u8; 32]>);

impl WebhookSecret {
    /// Takes 32 random bytes.
    #[must_use]
    pub fn new(bytes: Zeroizing<[u8; 32]>) -> Self {
        Self(bytes)
    }

    /// Reads what [`WebhookSecret::bytes`] gave.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(|bytes| Self(Zeroizing::new(bytes)))
    }

    /// The secret as it is kept.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &*self.0
    }

    /// The secret as receivers configure it.
    #[must_use]
    pub fn text(&self) -> Zeroizing<String> {
        Zeroizing::new(BASE64URL_NOPAD.encode(&*self.0))
    }

    /// The same for libraries of Standard Webhooks.
    #[must_use]
    pub fn standard_text(&self) -> Zeroizing<String> {
        Zeroizing::new(format!("whsec_{}", BASE64.encode(&*self.0)))
    }

    /// `X-Haldir-Signature` of a body sent at `timestamp`.
    #[must_use]
    pub fn signature(&self, timestamp: u64, body: &[u8]) -> String {
        signature(self.text().as_bytes(), timestamp, body)
    }

    /// One signature of `webhook-signature`.
    #[must_use]
    pub fn standard_signature(&self, event_id: &str, timestamp: u64, body: &[u8]) -> String {
        let begin = format!("{event_id}.{timestamp}.");
        format!("v1,{}", BASE64.encode(&mac(&*self.0, &[begin.as_bytes(), body])))
    }
}

/// The contract's signature: HMAC-SHA256 under the text of the secret, over the timestamp, a dot and the body.
fn signature(secret: &[u8], timestamp: u64, body: &[u8]) -> String {
    let begin = format!("{timestamp}.");
    format!("sha256={}", HEXLOWER.encode(&mac(secret, &[begin.as_bytes(), body])))
}

fn mac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_that_of_the_contracts_vector() {
        let body = br#"{"event":"anomaly","agent_id":"bot-1"}"#;
        assert_eq!(
            signature(b"my-shared-secret", 1_700_000_000, body),
            "sha256=e6bad31e361847abfecfd5ed6bb7a21d85ca8f4bc199f70391137b65c822165a"
        );
    }

    #[test]
    fn the_standard_signature_is_that_of_the_specifications_vector() {
        // https://www.standardwebhooks.com, and the test suites of its libraries.
        let key = BASE64.decode(b"MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let begin = "msg_p5jXN8AQM9LWM0D4loKWxJek.1614265330.";
        let mac = mac(&key, &[begin.as_bytes(), br#"{"test": 2432232314}"#]);
        assert_eq!(BASE64.encode(&mac), "g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn a_secret_has_43_characters_and_survives_being_kept() {
        let secret = WebhookSecret::new(Zeroizing::new([0xfb; 32]));
        assert_eq!(secret.text().len(), 43);
        assert_eq!(*WebhookSecret::parse(secret.bytes()).unwrap().text(), *secret.text());
        assert!(secret.standard_text().starts_with("whsec_"));
        assert!(WebhookSecret::parse(b"short").is_none());
    }
}
