//! The one source of randomness.

use parking_lot::Mutex;

/// Gives bytes that nobody can guess.
pub trait Random: Send + Sync {
    /// Fills `bytes`.
    fn fill(&self, bytes: &mut [u8]);
}

impl dyn Random + '_ {
    /// `LEN` random bytes.
    #[must_use]
    pub fn bytes<const LEN: usize>(&self) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        self.fill(&mut bytes);
        bytes
    }
}

/// Bytes that are taken from the operating system at once. A system call for each id would cost more than the id.
const POOL_LEN: usize = 1024;

/// The operating system's random source, read in small pools that are overwritten as they are used.
pub struct OsRandom {
    pool: Mutex<Pool>,
}

struct Pool {
    bytes: [u8; POOL_LEN],
    used: usize,
}

impl Default for OsRandom {
    fn default() -> Self {
        Self { pool: Mutex::new(Pool { bytes: [0; POOL_LEN], used: POOL_LEN }) }
    }
}

impl Random for OsRandom {
    fn fill(&self, bytes: &mut [u8]) {
        let pool = &mut *self.pool.lock();
        for chunk in bytes.chunks_mut(POOL_LEN) {
            if pool.used + chunk.len() > POOL_LEN {
                getrandom::fill(&mut pool.bytes)
                    .expect("without the system's random source nothing is safe to issue");
                pool.used = 0;
            }
            let taken = &mut pool.bytes[pool.used..pool.used + chunk.len()];
            chunk.copy_from_slice(taken);
            taken.fill(0);
            pool.used += chunk.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_byte_is_given_twice() {
        let random = OsRandom::default();
        let random: &dyn Random = &random;
        let ids: std::collections::BTreeSet<[u8; 24]> = (0..10_000).map(|_| random.bytes()).collect();
        assert_eq!(ids.len(), 10_000);
        let mut long = vec![0; 3 * POOL_LEN + 1];
        random.fill(&mut long);
        assert!(long.chunks(64).all(|chunk| chunk.iter().any(|&byte| byte != 0)));
    }
}
