//! How long a proof takes, from the view on disk and over HTTP.

use std::path::Path;

use haldir::format::proof::{consistency_path, inclusion_path};
use haldir::store::embedded::EmbeddedPages;
use haldir::views::tree::TreeNodes;

use crate::measure::{latency_row, random_below, times};
use crate::server::Server;
use crate::stock::head;

/// Proofs made for each row.
const PROOF_COUNT: u64 = 2000;

/// Proves random entries and sizes.
pub(crate) fn run(dir: &Path) {
    let (tenant, head) = head(dir);
    let pages = EmbeddedPages::open(&dir.join("views")).expect("no server runs");
    let nodes = TreeNodes::new(&pages, &tenant, head.size);
    let inclusion = times(PROOF_COUNT, |round| {
        inclusion_path(&nodes, random_below(head.size, round), head.size).expect("the view is sound");
    });
    latency_row("inclusion path, view on disk", inclusion);
    let consistency = times(PROOF_COUNT, |round| {
        let first = 1 + random_below(head.size - 1, round);
        consistency_path(&nodes, first, head.size).expect("the view is sound");
    });
    latency_row("consistency path, view on disk", consistency);
    drop(pages);

    let server = Server::start(dir);
    let get = |name: &str, path: &dyn Fn(u64) -> String| {
        let answers = times(PROOF_COUNT, |round| {
            server.get(&path(random_below(head.size - 1, round)));
        });
        latency_row(name, answers);
    };
    get("GET /healthz, for comparison", &|_| "/healthz".to_owned());
    get("GET /v1/audit/inclusion-proof/{seq}", &|seq| format!("/v1/audit/inclusion-proof/{seq}"));
    get("GET /v1/ledger/proof/{seq}", &|seq| format!("/v1/ledger/proof/{seq}"));
    get("GET /v1/audit/consistency-proof", &|seq| {
        format!("/v1/audit/consistency-proof?first={}&second={}", seq + 1, head.size)
    });
}
