//! Query strings. Unknown parameters are ignored; of a repeated one the first counts.

use std::collections::BTreeMap;
use std::future::{Ready, ready};
use std::ops::RangeInclusive;

use actix_web::dev::Payload;
use actix_web::{FromRequest, HttpRequest, web};

use super::error::ApiError;
use crate::domain::time::Timestamp;
use crate::operations::OperationError;
use crate::operations::past::AsOf;

/// The parameters of a query string.
#[derive(Debug, Default)]
pub struct Query(BTreeMap<String, String>);

impl FromRequest for Query {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let pairs = web::Query::<Vec<(String, String)>>::from_query(request.query_string());
        ready(match pairs {
            Ok(pairs) => {
                let mut parameters = BTreeMap::new();
                for (name, value) in pairs.into_inner() {
                    parameters.entry(name).or_insert(value);
                }
                Ok(Self(parameters))
            }
            Err(error) => Err(OperationError::invalid("query", error.to_string()).into()),
        })
    }
}

impl Query {
    /// A text; an empty one counts as absent.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<String> {
        self.0.get(name).filter(|value| !value.is_empty()).cloned()
    }

    /// Whether a parameter is exactly `true`.
    #[must_use]
    pub fn is_true(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(|value| value == "true")
    }

    /// A moment: seconds since the epoch, or an ISO 8601 time. See [`Timestamp::parse`].
    ///
    /// # Errors
    ///
    /// [`OperationError::Invalid`] for anything else.
    pub fn time(&self, name: &str) -> Result<Option<Timestamp>, OperationError> {
        let Some(value) = self.text(name) else {
            return Ok(None);
        };
        let expected = "expected unix seconds or an ISO 8601 time, such as 2026-11-21T08:02:08Z";
        Timestamp::parse(&value).map(Some).ok_or_else(|| OperationError::invalid(name, expected))
    }

    /// A moment of the past: `as_of` with a time or `seq:<number>`.
    ///
    /// # Errors
    ///
    /// [`OperationError::Invalid`] for anything else.
    pub fn as_of(&self) -> Result<Option<AsOf>, OperationError> {
        let expected = "expected unix seconds, an ISO 8601 time or seq:N";
        let parse =
            |text: String| AsOf::parse(&text).ok_or_else(|| OperationError::invalid("as_of", expected));
        self.text("as_of").map(parse).transpose()
    }

    /// A whole number of any size.
    ///
    /// # Errors
    ///
    /// [`OperationError::Invalid`] for anything else.
    pub fn whole(&self, name: &str) -> Result<Option<u64>, OperationError> {
        let wrong = |_| OperationError::invalid(name, "expected a whole number");
        self.text(name).map(|value| value.parse().map_err(wrong)).transpose()
    }

    /// A whole number that must be there.
    ///
    /// # Errors
    ///
    /// [`OperationError::InvalidArgument`] when it is missing, or anything else.
    pub fn argument(&self, name: &'static str) -> Result<u64, OperationError> {
        let missing =
            || OperationError::InvalidArgument { field: name, reason: "expected a whole number".to_owned() };
        self.optional_argument(name)?.ok_or_else(missing)
    }

    /// A whole number that may be there.
    ///
    /// # Errors
    ///
    /// [`OperationError::InvalidArgument`] for anything else.
    pub fn optional_argument(&self, name: &'static str) -> Result<Option<u64>, OperationError> {
        let wrong =
            |_| OperationError::InvalidArgument { field: name, reason: "expected a whole number".to_owned() };
        self.text(name).map(|value| value.parse().map_err(wrong)).transpose()
    }

    /// A whole number.
    ///
    /// # Errors
    ///
    /// [`OperationError::Invalid`] for anything else, or outside the range.
    pub fn int(&self, name: &str, range: RangeInclusive<usize>) -> Result<Option<usize>, OperationError> {
        let Some(value) = self.text(name) else {
            return Ok(None);
        };
        let number = value.parse().ok().filter(|number| range.contains(number));
        let expected = || format!("expected int from {} to {}", range.start(), range.end());
        number.map(Some).ok_or_else(|| OperationError::invalid(name, expected()))
    }
}

/// A text as it stands in a path or a query string (RFC 3986).
#[must_use]
pub fn percent_encoded(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let encode =
        |byte: u8| if is_plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(encode).collect()
}
