//! Signs and records a checkpoint of every stream that has grown, now and then, so that its past is nailed down even if nobody
//! asks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::operations::App;

/// Signs checkpoints every `interval`, until told to end.
pub async fn run(app: Arc<App>, interval: Duration, mut end: oneshot::Receiver<()>) {
    let mut signed = BTreeMap::new();
    let mut ticks = tokio::time::interval(interval);
    // The first tick comes at once, and a start is no reason to sign.
    ticks.tick().await;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = &mut end => return,
        }
        let grown: Vec<_> = {
            let world = app.ledger.read();
            let streams = world.streams().map(|(tenant, stream)| (tenant.clone(), stream.head.size));
            streams.filter(|(tenant, size)| signed.get(tenant) != Some(size)).collect()
        };
        for (tenant, _) in grown {
            match app.ledger.checkpoint(&tenant).await {
                Ok(kept) => {
                    signed.insert(tenant, kept.size);
                }
                Err(error) => tracing::warn!(%tenant, %error, "no checkpoint was signed"),
            }
        }
    }
}
