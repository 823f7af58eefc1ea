//! Asks others and lets the caller read the answer as it comes.
//!
//! For those who speak a protocol over HTTP and bound each of its answers by its own time and size. The guard is the same as
//! for everybody.

use bytes::Bytes;
use futures_util::Stream;
use http::{HeaderMap, Method};
use reqwest::Response;

use super::client::{Client, OutboundError};
use super::guard::{Target, TargetHost};

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct Unanswered {
    /// What went wrong.
    pub why: OutboundError,
    /// Whether it is certain that nothing of the request was sent.
    pub is_unsent: bool,
}

/// Why the rest of an answer is not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unread {
    /// It is longer than wanted.
    #[error("the answer is longer than allowed")]
    TooLong,
    /// It broke off.
    #[error("{0}")]
    Broken(OutboundError),
}

/// An answer whose body has not been read yet.
pub struct Exchange {
    response: Response,
}

impl Client {
    /// Sends a request and waits for status and headers. Only the connection is bounded in time: the caller bounds the rest.
    ///
    /// # Errors
    ///
    /// [`Unanswered`].
    pub async fn exchange(
        &self,
        method: Method,
        url: &str,
        headers: HeaderMap,
        body: Option<Vec<u8>>,
    ) -> Result<Exchange, Unanswered> {
        let unsafe_url = |why| Unanswered { why: OutboundError::Unsafe(why), is_unsent: true };
        let target = Target::parse(url).map_err(unsafe_url)?;
        if let TargetHost::Address(address) = target.host {
            // The connector asks for no address that stands in the URL: it would never be looked at otherwise.
            self.names().check(address).map_err(unsafe_url)?;
        }
        let mut request = self.http().request(method, target.url).headers(headers);
        if let Some(body) = body {
            request = request.body(body);
        }
        let sent = request.send().await;
        let response = sent.map_err(|error| Unanswered {
            why: OutboundError::of(&error),
            is_unsent: error.is_connect() || error.is_builder(),
        })?;
        Ok(Exchange { response })
    }
}

impl Exchange {
    /// The HTTP status.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.response.status().as_u16()
    }

    /// The value of a header, if it is text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }

    /// The whole body, unless it is longer than `len_max` bytes: then no more than that is read.
    ///
    /// # Errors
    ///
    /// [`Unread`].
    pub async fn body(mut self, len_max: usize) -> Result<Vec<u8>, Unread> {
        let announced = self.response.content_length();
        if announced.is_some_and(|len| usize::try_from(len).is_ok_and(|len| len > len_max)) {
            return Err(Unread::TooLong);
        }
        let mut body = Vec::new();
        let broken = |error: reqwest::Error| Unread::Broken(OutboundError::of(&error));
        while let Some(chunk) = self.response.chunk().await.map_err(broken)? {
            if chunk.len() > len_max - body.len() {
                return Err(Unread::TooLong);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    /// The body, piece by piece.
    pub fn pieces(self) -> impl Stream<Item = Result<Bytes, OutboundError>> + Send + 'static {
        futures_util::stream::unfold(Some(self.response), |response| async move {
            let mut response = response?;
            match response.chunk().await {
                Ok(Some(chunk)) => Some((Ok(chunk), Some(response))),
                Ok(None) => None,
                Err(error) => Some((Err(OutboundError::of(&error)), None)),
            }
        })
    }
}
