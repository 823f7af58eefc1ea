//! How long a look into the past takes.

use std::path::Path;

use haldir::ledger::past::stream_at;
use haldir::store::SnapshotStore as _;
use haldir::store::snapshots::SnapshotFiles;

use crate::measure::{latency_row, random_below, row, times};
use crate::server::Server;
use crate::stock::{head, open_store};

/// Moments that are looked at.
const LOOK_COUNT: u64 = 20;

/// Looks at random moments.
pub(crate) fn run(dir: &Path) {
    let (tenant, head) = head(dir);
    let snapshots = SnapshotFiles::new(&dir.join("snapshots"));
    let sizes = snapshots.sizes(&tenant).expect("the directory can be read");
    let steps = std::iter::once(&0).chain(&sizes).zip(&sizes).map(|(one, other)| other - one);
    let longest = steps.max().unwrap_or(head.size);
    row("snapshots", &format!("{}, at most {longest} entries apart", sizes.len()));
    let size = |round| 1 + random_below(head.size, round);

    let store = open_store(dir);
    let session = {
        let first = stream_at(&store, &snapshots, &tenant, head.size.min(1000)).expect("the ledger is sound");
        let first = first.expect("the stream has entries").tenant;
        let (id, _) = first.sessions.newest_first().last().expect("agents opened sessions first");
        id.to_string()
    };
    let looks = times(LOOK_COUNT, |round| {
        stream_at(&store, &snapshots, &tenant, size(round)).expect("the ledger is sound");
    });
    latency_row("the state after a random entry", looks);
    drop(store);

    let server = Server::start(dir);
    let looks = times(LOOK_COUNT, |round| {
        server.get(&format!("/v1/sessions/{session}?as_of=seq:{}", 1000.max(size(round)) - 1));
    });
    latency_row("GET /v1/sessions/{id}?as_of=seq:N", looks);
    let looks = times(LOOK_COUNT, |_| {
        server.get(&format!("/v1/sessions/{session}"));
    });
    latency_row("GET /v1/sessions/{id}", looks);
}
