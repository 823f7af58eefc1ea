//! Idempotency keys: what a caller sends becomes two keyed digests, and nothing else of it is kept.

use serde::Serialize;
use zeroize::Zeroizing;

use super::OperationError;
use crate::domain::replays::Idempotency;

/// Characters of an idempotency key.
pub const IDEMPOTENCY_KEY_CHARS_MAX: usize = 255;

/// The installation's secret under which idempotency keys and requests are digested, so that a ledger gives away neither.
#[derive(Clone)]
pub struct RetrySecret(Zeroizing<[u8; 32]>);

/// One request that is to be carried out once.
#[derive(Debug, Clone)]
pub struct Retry {
    /// What the ledger records.
    pub idempotency: Idempotency,
    /// A key that only a retry of the same request can derive again, for what must be kept sealed until then.
    pub sealing_key: Zeroizing<[u8; 32]>,
}

impl RetrySecret {
    /// Takes 32 random bytes.
    #[must_use]
    pub fn new(secret: [u8; 32]) -> Self {
        Self(Zeroizing::new(secret))
    }

    /// Digests an idempotency key for a caller's scope and an endpoint, and the request that came with it.
    ///
    /// `scope` keeps callers apart: the tenant's id, or a digest of the bootstrap token. `request` is the validated
    /// request, so that spelling defaults out makes no difference.
    ///
    /// # Errors
    ///
    /// [`OperationError::Invalid`] when the key is too long.
    pub fn digest(
        &self,
        scope: &str,
        endpoint: &str,
        key: &str,
        request: &impl Serialize,
    ) -> Result<Retry, OperationError> {
        if key.chars().count() > IDEMPOTENCY_KEY_CHARS_MAX {
            let reason = format!("expected at most {IDEMPOTENCY_KEY_CHARS_MAX} characters");
            return Err(OperationError::invalid("Idempotency-Key", reason));
        }
        let request =
            serde_json::to_vec(request).map_err(|error| OperationError::Internal(error.to_string()))?;
        let parts = [scope.as_bytes(), endpoint.as_bytes(), key.as_bytes()];
        Ok(Retry {
            idempotency: Idempotency {
                key: self.keyed("idempotency key", &parts),
                fingerprint: self.keyed("idempotency fingerprint", &[&request]),
            },
            sealing_key: Zeroizing::new(self.keyed("idempotency sealing key", &parts)),
        })
    }

    /// A salt that comes from what is salted, so that the same text is always salted in the same way.
    #[must_use]
    pub fn salt_of(&self, text: &str) -> [u8; 16] {
        let mut salt = [0; 16];
        salt.copy_from_slice(&self.keyed("approval details salt", &[text.as_bytes()])[..16]);
        salt
    }

    /// What shows that a link to a tenant's request for an approval was made here.
    #[must_use]
    pub fn link_mac(&self, tenant: &str, approval_id: &str) -> [u8; 32] {
        self.keyed("approval link", &[tenant.as_bytes(), approval_id.as_bytes()])
    }

    /// What shows that a state that a client of the proxy brings back was given to it.
    #[must_use]
    pub fn request_state_mac(&self, parts: &[&str]) -> [u8; 32] {
        let parts: Vec<&[u8]> = parts.iter().map(|part| part.as_bytes()).collect();
        self.keyed("request state", &parts)
    }

    /// What stands in place of a value that is not written down, so that the same value is known as the same.
    #[must_use]
    pub fn redaction_mac(&self, value: &str) -> [u8; 32] {
        self.keyed("redacted value", &[value.as_bytes()])
    }

    fn keyed(&self, purpose: &str, parts: &[&[u8]]) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        for part in [purpose.as_bytes()].iter().chain(parts) {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        *hasher.finalize().as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scope_endpoint_key_and_request_all_count() {
        let secret = RetrySecret::new([1; 32]);
        let digest = |scope, endpoint, key, request: &str| {
            secret.digest(scope, endpoint, key, &request).unwrap().idempotency
        };
        let first = digest("t1", "/v1/audit", "k", "a");
        assert_eq!(first, digest("t1", "/v1/audit", "k", "a"));
        for (scope, endpoint, key) in [
            ("t2", "/v1/audit", "k"),
            ("t1", "/v1/sessions", "k"),
            ("t1", "/v1/audit", "l"),
            ("t", "1/v1/audit", "k"),
        ] {
            assert_ne!(first.key, digest(scope, endpoint, key, "a").key);
        }
        assert_ne!(first.fingerprint, digest("t1", "/v1/audit", "k", "b").fingerprint);
        assert_ne!(
            first.key,
            RetrySecret::new([2; 32]).digest("t1", "/v1/audit", "k", &"a").unwrap().idempotency.key
        );
        assert!(secret.digest("t1", "/v1/audit", &"k".repeat(256), &"a").is_err());
    }
}
