//! `/v1/ledger`.

use std::sync::Arc;

use actix_web::web::Bytes;
use actix_web::{HttpResponse, web};
use futures_util::stream;
use tokio::sync::mpsc;

use super::caller::{AuditRead, Authorized};
use super::error::ApiError;
use crate::operations::export::ExportLines;
use crate::operations::{App, OperationError};

/// Chunks that wait for a slow reader.
const CHUNKS_AHEAD: usize = 4;
/// Bytes gathered before they are sent.
const CHUNK_LEN: usize = 64 * 1024;

/// Exports the tenant's whole stream: every entry's exact bytes, one JSON line each. See ledger-format.md.
#[utoipa::path(
    get, path = "/v1/ledger/export", operation_id = "get_export_ledger", tag = "watch",
    responses((
        status = 200, description = "JSON lines", body = String, content_type = "application/x-ndjson",
    )),
)]
pub(super) async fn export(
    app: web::Data<Arc<App>>,
    caller: Authorized<AuditRead>,
) -> Result<HttpResponse, ApiError> {
    let head = app.ledger.read().stream(&caller.tenant).map(|stream| stream.head);
    let head = head.ok_or(OperationError::NotFound("tenant"))?;
    let store = Arc::clone(app.ledger.store());
    let lines = ExportLines::new(store, caller.tenant.clone(), head, app.ledger.public_key());
    let (chunks, received) = mpsc::channel(CHUNKS_AHEAD);
    // Reading blocks, and waits for the reader: it has a thread of its own until the reader is done or gone.
    tokio::task::spawn_blocking(move || send_chunks(lines, &chunks));
    let body = stream::unfold(received, async |mut received| Some((received.recv().await?, received)));
    let disposition = format!("attachment; filename=\"haldir-ledger-{}.jsonl\"", caller.tenant);
    Ok(HttpResponse::Ok()
        .content_type("application/x-ndjson; charset=utf-8")
        .insert_header(("Content-Disposition", disposition))
        .insert_header(("X-Accel-Buffering", "no"))
        .streaming(body))
}

fn send_chunks(lines: ExportLines, chunks: &mpsc::Sender<std::io::Result<Bytes>>) {
    let mut chunk = Vec::with_capacity(CHUNK_LEN * 2);
    for line in lines {
        match line {
            Ok(line) => {
                chunk.extend_from_slice(line.as_bytes());
                chunk.push(b'\n');
            }
            Err(error) => {
                // The connection breaks off without the last line, and so shows that the export is incomplete.
                tracing::error!(%error, "a ledger export broke off");
                let _ = chunks.blocking_send(Err(std::io::Error::other(error)));
                return;
            }
        }
        if chunk.len() >= CHUNK_LEN
            && chunks.blocking_send(Ok(Bytes::from(std::mem::take(&mut chunk)))).is_err()
        {
            return;
        }
    }
    let _ = chunks.blocking_send(Ok(Bytes::from(chunk)));
}
