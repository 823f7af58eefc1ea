//! Reads of state, as it is or as it was. Every read of state takes a [`Moment`]; with [`AsOf`] it is one of the past.

use std::sync::Arc;

use serde::Serialize;
use utoipa::ToSchema;

use super::proofs::checkpoint_at;
use super::{App, OperationError, blocking};
use crate::domain::id::TenantId;
use crate::domain::sessions::{self, Session};
use crate::domain::time::Timestamp;
use crate::ledger::past::{size_at, stream_at};
use crate::ledger::world::Stream;

/// Which moment of the past.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AsOf {
    /// What was true at a time.
    Time(Timestamp),
    /// What was true after the entry with this seq.
    Seq(u64),
}

impl AsOf {
    /// Reads `seq:<number>`, or a time as [`Timestamp::parse`] does.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text.strip_prefix("seq:") {
            Some(seq) => seq.parse().ok().map(Self::Seq),
            None => Timestamp::parse(text).map(Self::Time),
        }
    }
}

/// A tenant's state at a moment.
#[derive(Debug, Clone)]
pub struct Moment {
    /// What was folded.
    pub stream: Arc<Stream>,
    /// The time by which sessions live or have expired.
    pub at: Timestamp,
    /// What a state of the past stands on; `None` for the present.
    pub standing: Option<Standing>,
}

/// What an answer about the past stands on.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Standing {
    /// The last entry that counts.
    pub seq: u64,
    /// The time by which sessions live or have expired.
    pub at: String,
    /// Entries up to it.
    pub size: u64,
    /// Hash of the last of them.
    pub head: String,
    /// Root of the tree over them.
    pub root: String,
    /// The same, signed: a C2SP checkpoint.
    pub checkpoint: String,
}

impl Moment {
    /// Whether a session could be used at this moment.
    #[must_use]
    pub fn standing_of(&self, session: &Session) -> sessions::Standing {
        self.stream.tenant.sessions.standing(session, self.at)
    }
}

impl App {
    /// The same as [`App::moment`], with the calls counted so far: what is told of them is recorded first, so that it is never
    /// told and then forgotten.
    ///
    /// # Errors
    ///
    /// As [`App::moment`].
    pub async fn metered_moment(
        self: &Arc<Self>,
        tenant: &TenantId,
        as_of: Option<AsOf>,
    ) -> Result<Moment, OperationError> {
        if as_of.is_none() {
            self.meter.record(self, tenant).await?;
        }
        self.moment(tenant, as_of).await
    }

    /// A tenant's state now, or at a moment of the past.
    ///
    /// # Errors
    ///
    /// [`OperationError::Invalid`] for a moment before the tenant's first entry or after its last, unless that is a time.
    pub async fn moment(
        self: &Arc<Self>,
        tenant: &TenantId,
        as_of: Option<AsOf>,
    ) -> Result<Moment, OperationError> {
        let now = self.ledger.clock().now();
        let stream = self.ledger.read().stream(tenant).cloned();
        let stream = stream.ok_or(OperationError::NotFound("tenant"))?;
        let Some(as_of) = as_of else {
            return Ok(Moment { stream, at: now, standing: None });
        };
        let size = stream.head.size;
        let past = match as_of {
            AsOf::Seq(seq) if seq >= size => {
                return Err(OperationError::invalid("as_of", format!("the last entry has seq {}", size - 1)));
            }
            AsOf::Time(at) if at > now => {
                return Err(OperationError::invalid("as_of", "that is in the future"));
            }
            as_of => {
                let (app, tenant) = (Arc::clone(self), tenant.clone());
                blocking(move || fold(&app, &tenant, size, as_of)).await?
            }
        };
        let before = || OperationError::invalid("as_of", "that is before the tenant's first entry");
        let past = past.ok_or_else(before)?;
        let at = if let AsOf::Time(at) = as_of { at } else { past.last_at };
        let checkpoint = checkpoint_at(self, tenant, past.head.size).await?;
        let standing = Standing {
            seq: past.head.size - 1,
            at: at.to_string(),
            size: past.head.size,
            head: past.head.hash.to_string(),
            root: past.tree.root().to_string(),
            checkpoint: checkpoint.note,
        };
        Ok(Moment { stream: Arc::new(past), at, standing: Some(standing) })
    }
}

fn fold(app: &App, tenant: &TenantId, size: u64, as_of: AsOf) -> Result<Option<Stream>, OperationError> {
    let store = &**app.ledger.store();
    let past_size = match as_of {
        AsOf::Seq(seq) => seq + 1,
        AsOf::Time(at) => size_at(store, tenant, size, at)?,
    };
    Ok(stream_at(store, &**app.ledger.snapshots(), tenant, past_size)?)
}
