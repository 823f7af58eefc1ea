//! Events of a stream, each bounded in size before it is put together.

use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt as _};
use rmcp::transport::streamable_http_client::SseError;
use sse_stream::{Sse, SseStream};

use crate::outbound::client::OutboundError;

/// Why a stream of events ends.
#[derive(Debug, thiserror::Error)]
pub(super) enum StreamFault {
    /// An event is larger than allowed.
    #[error("an event is larger than allowed")]
    TooLarge,
    /// The connection broke.
    #[error("{0}")]
    Broken(OutboundError),
}

/// Reads events of at most `len_max` bytes each.
pub(super) fn events(
    pieces: impl Stream<Item = Result<Bytes, OutboundError>> + Send + 'static,
    len_max: usize,
) -> BoxStream<'static, Result<Sse, SseError>> {
    let mut meter = Meter { len_max, event_len: 0, line_len: 0, ended_by_return: false };
    let metered = pieces.scan(false, move |has_ended, piece| {
        let piece = match piece {
            _ if *has_ended => None,
            Ok(piece) if meter.admits(&piece) => Some(Ok(piece)),
            Ok(_) => Some(Err(StreamFault::TooLarge)),
            Err(error) => Some(Err(StreamFault::Broken(error))),
        };
        *has_ended |= matches!(piece, Some(Err(_)));
        std::future::ready(piece)
    });
    SseStream::from_bytes_stream(metered).boxed()
}

/// Whether a stream ended because an event was too large.
pub(super) fn is_too_large(error: &SseError) -> bool {
    matches!(error, SseError::Body(error) if matches!(error.downcast_ref(), Some(StreamFault::TooLarge)))
}

/// Counts the bytes of the event that is being received. An empty line ends it.
struct Meter {
    len_max: usize,
    event_len: usize,
    line_len: usize,
    ended_by_return: bool,
}

impl Meter {
    /// Whether all events within these further bytes are small enough.
    fn admits(&mut self, bytes: &[u8]) -> bool {
        for &byte in bytes {
            // A line ends with a line feed, a carriage return, or both.
            let is_second_half = byte == b'\n' && self.ended_by_return;
            self.ended_by_return = byte == b'\r';
            match byte {
                _ if is_second_half => {}
                b'\n' | b'\r' if self.line_len == 0 => self.event_len = 0,
                b'\n' | b'\r' => self.line_len = 0,
                _ => {
                    self.line_len += 1;
                    self.event_len += 1;
                    if self.event_len > self.len_max {
                        return false;
                    }
                }
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;

    async fn read(pieces: &[&str], len_max: usize) -> Vec<Result<Option<String>, bool>> {
        let pieces: Vec<_> =
            pieces.iter().map(|piece| Ok(Bytes::copy_from_slice(piece.as_bytes()))).collect();
        let read = events(stream::iter(pieces), len_max);
        read.map(|event| event.map(|event| event.data).map_err(|error| is_too_large(&error))).collect().await
    }

    #[tokio::test]
    async fn each_event_is_bounded_however_it_is_cut() {
        let data = |text: &str| Ok(Some(text.to_owned()));
        assert_eq!(read(&["data: 1234\n\ndata: 5678\n\n"], 10).await, [data("1234"), data("5678")]);
        assert_eq!(
            read(&["data: 1234\r\n\r\nda", "ta: 5678\r", "\n\r\n"], 10).await,
            [data("1234"), data("5678")]
        );
        assert_eq!(read(&["data: 1234\r\rdata: 5678\r\r"], 10).await, [data("1234"), data("5678")]);
        assert_eq!(read(&["data: 1234\n\n", "data: 56789\n\n"], 10).await, [data("1234"), Err(true)]);
        assert_eq!(read(&["data: 1", "2", "3", "4", "5", "6"], 10).await, [Err(true)]);
        assert_eq!(
            read(&["data: 1\ndata: 2\n\n"], 10).await,
            [Err(true)],
            "lines of one event count together"
        );
    }

    #[tokio::test]
    async fn a_broken_connection_is_no_large_event() {
        let pieces = stream::iter([Ok(Bytes::from_static(b"data: 1")), Err(OutboundError::Broken)]);
        let read: Vec<_> = events(pieces, 100).collect().await;
        assert!(matches!(&read[..], [Err(error)] if !is_too_large(error)), "{read:?}");
    }
}
