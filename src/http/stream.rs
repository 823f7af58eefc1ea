//! Answers that are written while they are read: what is sent waits for the reader, and never fills the memory.

use std::fmt::Display;

use actix_web::web::Bytes;
use futures_util::{Stream, stream};
use tokio::sync::mpsc;

/// Chunks that wait for a slow reader.
const CHUNKS_AHEAD: usize = 4;
/// Bytes gathered before they are sent.
const CHUNK_LEN: usize = 64 * 1024;

/// A body that consists of these blocks. After an error the connection breaks off, so that the reader sees that the answer
/// is incomplete.
pub(super) fn body<E: Display + Send + 'static>(
    blocks: impl Iterator<Item = Result<Vec<u8>, E>> + Send + 'static,
) -> impl Stream<Item = std::io::Result<Bytes>> {
    let (chunks, received) = mpsc::channel(CHUNKS_AHEAD);
    // Reading blocks, and waits for the reader: it has a thread of its own until the reader is done or gone.
    tokio::task::spawn_blocking(move || send_chunks(blocks, &chunks));
    stream::unfold(received, async |mut received| Some((received.recv().await?, received)))
}

fn send_chunks<E: Display>(
    blocks: impl Iterator<Item = Result<Vec<u8>, E>>,
    chunks: &mpsc::Sender<std::io::Result<Bytes>>,
) {
    let mut chunk = Vec::with_capacity(CHUNK_LEN * 2);
    for block in blocks {
        match block {
            Ok(block) => chunk.extend_from_slice(&block),
            Err(error) => {
                tracing::error!(%error, "an answer broke off");
                let _ = chunks.blocking_send(Err(std::io::Error::other(error.to_string())));
                return;
            }
        }
        if chunk.len() >= CHUNK_LEN
            && chunks.blocking_send(Ok(Bytes::from(std::mem::take(&mut chunk)))).is_err()
        {
            return;
        }
        if chunks.is_closed() {
            return;
        }
    }
    if !chunk.is_empty() {
        let _ = chunks.blocking_send(Ok(Bytes::from(chunk)));
    }
}
