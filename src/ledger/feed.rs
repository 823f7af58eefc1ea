//! Tells those who follow the ledger how far each stream has come.
//!
//! Only the newest size of a stream is kept, so a follower that falls behind costs no memory and never blocks the writer.

use std::collections::BTreeMap;

use parking_lot::{Condvar, Mutex};

use super::world::World;
use crate::domain::id::TenantId;
use crate::store::StreamAppend;

/// Sizes of streams that a follower has not looked at yet.
#[derive(Debug, Default)]
pub struct CommitFeed {
    news: Mutex<News>,
    arrived: Condvar,
}

#[derive(Debug, Default)]
struct News {
    sizes: BTreeMap<TenantId, u64>,
    is_over: bool,
}

impl CommitFeed {
    /// A feed that first tells of every stream there is.
    #[must_use]
    pub(super) fn starting_from(world: &World) -> Self {
        let sizes = world.streams().map(|(tenant, stream)| (tenant.clone(), stream.head.size)).collect();
        Self { news: Mutex::new(News { sizes, is_over: false }), arrived: Condvar::new() }
    }

    /// Adds a commit.
    pub(super) fn announce(&self, appends: &[StreamAppend]) {
        let mut news = self.news.lock();
        for append in appends {
            news.sizes.insert(append.tenant.clone(), append.head.size);
        }
        self.arrived.notify_one();
    }

    /// Says that there will be no more commits.
    pub(super) fn end(&self) {
        self.news.lock().is_over = true;
        self.arrived.notify_one();
    }

    /// Waits for commits and takes the new sizes; `None` once all was taken and no more will come.
    pub fn next(&self) -> Option<BTreeMap<TenantId, u64>> {
        let mut news = self.news.lock();
        while news.sizes.is_empty() && !news.is_over {
            self.arrived.wait(&mut news);
        }
        (!news.sizes.is_empty()).then(|| std::mem::take(&mut news.sizes))
    }
}
