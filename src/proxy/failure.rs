//! Why a call has no result.

use rmcp::model::ErrorData;
use serde_json::Value;

/// Why a call has no result, sorted by what is known about its effect.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum CallError {
    /// It is certain that nothing reached the upstream.
    #[error("the upstream was not reached: {0}")]
    NotSent(String),
    /// The connection broke after the request was on its way: what came of it is not known.
    #[error("the connection to the upstream broke before it answered: {0}")]
    Lost(String),
    /// There was no answer in time: what came of it is not known.
    #[error("the upstream did not answer in time")]
    TimedOut,
    /// The answer is larger than allowed, and was not read to its end.
    #[error("the upstream's answer is larger than allowed")]
    TooLarge,
    /// Somebody called it off.
    #[error("the call was cancelled")]
    Cancelled,
    /// The upstream answered with an HTTP status and no message of the protocol.
    #[error("the upstream answered with HTTP status {0}")]
    Status(u16),
    /// The upstream answered, and not as the protocol says.
    #[error("the upstream's answer cannot be used: {0}")]
    Malformed(String),
    /// The upstream answered with an error of the protocol.
    #[error("the upstream refused: {message} ({code})")]
    Refused {
        /// The code.
        code: i32,
        /// The message.
        message: String,
        /// Whatever the upstream adds.
        data: Option<Value>,
    },
}

/// Characters of an upstream's error message that are kept.
const MESSAGE_CHARS_MAX: usize = 2000;

impl CallError {
    /// Whether it is certain that the upstream did nothing.
    #[must_use]
    pub const fn is_unsent(&self) -> bool {
        matches!(self, Self::NotSent(_))
    }

    /// Whether the upstream answered, if only to refuse.
    #[must_use]
    pub const fn is_answer(&self) -> bool {
        matches!(self, Self::Status(_) | Self::Malformed(_) | Self::Refused { .. } | Self::TooLarge)
    }

    /// What the upstream refused with.
    pub(super) fn refused(error: ErrorData) -> Self {
        let message = error.message.chars().take(MESSAGE_CHARS_MAX).collect();
        Self::Refused { code: error.code.0, message, data: error.data }
    }

    /// What an upstream that does not know a method refuses with.
    pub(super) fn unknown_method(method: &str) -> Self {
        Self::refused(ErrorData::new(rmcp::model::ErrorCode::METHOD_NOT_FOUND, method.to_owned(), None))
    }
}
