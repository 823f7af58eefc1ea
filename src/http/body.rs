//! JSON bodies, read strictly: UTF-8, one object, no key twice at any depth, bounded nesting, numbers as they are written.
//!
//! Numbers stay text until a field says what it is, so that an amount of money is never a binary float.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use actix_web::dev::Payload;
use actix_web::web::BytesMut;
use actix_web::{FromRequest, HttpRequest, web};
use futures_util::StreamExt as _;
use futures_util::future::LocalBoxFuture;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use zeroize::{Zeroize as _, Zeroizing};

use super::error::{ApiError, BODY_LEN_MAX};
use crate::domain::money::Money;
use crate::operations::OperationError;

/// How long a client may take to send a body, so that slow ones do not hold connections for ever.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// Objects and lists within each other at most.
const DEPTH_MAX: usize = 64;

/// The fields of a request body. An empty body has none.
#[derive(Debug, Default)]
pub struct Fields(BTreeMap<String, Box<RawValue>>);

/// One field of a body, present or not.
#[derive(Debug, Clone, Copy)]
pub struct Field<'body> {
    name: &'static str,
    raw: Option<&'body str>,
}

impl FromRequest for Fields {
    type Error = ApiError;
    type Future = LocalBoxFuture<'static, Result<Self, ApiError>>;

    fn from_request(_: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let payload = payload.take();
        Box::pin(async move {
            let mut bytes = read_whole(payload).await?;
            let parsed = Self::parse(&bytes);
            bytes.as_mut().zeroize();
            Ok(parsed?)
        })
    }
}

/// The fields of a form that a page was sent with. Of a repeated one the last counts.
#[derive(Debug, Default)]
pub struct Form(BTreeMap<String, String>);

impl Form {
    /// A field's text; empty when it is absent.
    #[must_use]
    pub fn text(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }
}

impl FromRequest for Form {
    type Error = ApiError;
    type Future = LocalBoxFuture<'static, Result<Self, ApiError>>;

    fn from_request(_: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let payload = payload.take();
        Box::pin(async move {
            let bytes = read_whole(payload).await?;
            let malformed = || invalid("body", "expected a form");
            let text = str::from_utf8(&bytes).map_err(|_| malformed())?;
            let pairs = web::Query::<Vec<(String, String)>>::from_query(text).map_err(|_| malformed())?;
            Ok(Self(pairs.into_inner().into_iter().collect()))
        })
    }
}

/// The whole body.
///
/// # Errors
///
/// [`ApiError`] when it is too large, incomplete, or does not arrive in time.
pub async fn read_whole(payload: Payload) -> Result<BytesMut, ApiError> {
    let read = tokio::time::timeout(BODY_TIMEOUT, read_chunks(payload)).await;
    read.map_err(|_| ApiError::BodyTimeout)?
}

async fn read_chunks(mut payload: Payload) -> Result<BytesMut, ApiError> {
    let mut bytes = BytesMut::new();
    while let Some(chunk) = payload.next().await {
        let chunk = chunk.map_err(|_| invalid("body", "expected a complete request body"))?;
        if bytes.len() + chunk.len() > BODY_LEN_MAX {
            return Err(ApiError::PayloadTooLarge);
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

impl Fields {
    /// Reads a body.
    ///
    /// # Errors
    ///
    /// [`OperationError::Invalid`] for the field, or for `body`.
    pub fn parse(bytes: &[u8]) -> Result<Self, OperationError> {
        if bytes.trim_ascii().is_empty() {
            return Ok(Self::default());
        }
        let text = str::from_utf8(bytes)
            .map_err(|error| OperationError::invalid("body", format!("expected UTF-8: {error}")))?;
        let TopLevel(fields) = serde_json::from_str(text)
            .map_err(|error| OperationError::invalid("body", format!("expected a JSON object: {error}")))?;
        for (name, raw) in &fields {
            check_strictly(raw.get())
                .map_err(|error| OperationError::invalid(&shown(name), format!("malformed JSON: {error}")))?;
        }
        Ok(Self(fields))
    }

    /// The field with this name.
    #[must_use]
    pub fn field(&self, name: &'static str) -> Field<'_> {
        Field { name, raw: self.0.get(name).map(|raw| raw.get()) }
    }
}

/// A body may hold a secret: what was read is overwritten.
impl Drop for Fields {
    fn drop(&mut self) {
        for (_, raw) in std::mem::take(&mut self.0) {
            Box::<str>::from(raw).into_string().zeroize();
        }
    }
}

/// A field's name as errors repeat it: short and without control characters.
fn shown(name: &str) -> String {
    name.chars().filter(|character| !character.is_control()).take(64).collect()
}

fn invalid(field: &str, reason: impl Into<String>) -> OperationError {
    OperationError::invalid(field, reason)
}

impl<'body> Field<'body> {
    fn invalid(self, reason: impl Into<String>) -> OperationError {
        invalid(self.name, reason)
    }

    /// The field's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.name
    }

    /// Treats an explicit `null` as absent.
    #[must_use]
    pub fn or_null(self) -> Self {
        Self { raw: self.raw.filter(|raw| *raw != "null"), ..self }
    }

    /// The value's JSON text.
    #[must_use]
    pub fn raw(self) -> Option<&'body str> {
        self.raw
    }

    /// The value with sorted keys and without spaces. Numbers stay as they are written: read as floats, two that differ
    /// could become the same.
    ///
    /// # Errors
    ///
    /// [`OperationError::Invalid`].
    pub fn canonical(self) -> Result<Option<String>, OperationError> {
        let text = self.raw.map(canonical).transpose();
        text.map_err(|error| self.invalid(format!("expected JSON: {error}")))
    }

    /// The value, which must be there.
    ///
    /// # Errors
    ///
    /// [`OperationError::Invalid`] when it is not.
    pub fn required<T>(self, value: Result<Option<T>, OperationError>) -> Result<T, OperationError> {
        value?.ok_or_else(|| self.invalid("required field is missing"))
    }

    /// A text of at most `chars_max` characters without control characters.
    ///
    /// # Errors
    ///
    /// [`OperationError::Invalid`].
    pub fn text(self, chars_max: usize) -> Result<Option<String>, OperationError> {
        self.checked_text(chars_max, char::is_control)
    }

    /// A text of at most `chars_max` characters that may have several lines.
    ///
    /// # Errors
    ///
    /// [`OperationError::Invalid`].
    pub fn lines(self, chars_max: usize) -> Result<Option<String>, OperationError> {
        self.checked_text(chars_max, |it| it.is_control() && !matches!(it, '\n' | '\r' | '\t'))
    }

    /// A text of any length and content, in memory that is overwritten when it is dropped.
    ///
    /// # Errors
    ///
    /// [`OperationError::Invalid`].
    pub fn concealed(self) -> Result<Option<Zeroizing<String>>, OperationError> {
        let Some(raw) = self.raw else {
            return Ok(None);
        };
        parse_text(raw).map(Zeroizing::new).map(Some).ok_or_else(|| self.invalid("expected str"))
    }

    fn checked_text(
        self,
        chars_max: usize,
        is_illegal: impl Fn(char) -> bool,
    ) -> Result<Option<String>, OperationError> {
        let Some(raw) = self.raw else {
            return Ok(None);
        };
        let text = parse_text(raw).ok_or_else(|| self.invalid("expected str"))?;
        if text.chars().count() > chars_max {
            return Err(self.invalid(format!("expected str of at most {chars_max} characters")));
        }
        if text.chars().any(is_illegal) {
            return Err(self.invalid("expected str without control characters"));
        }
        Ok(Some(text))
    }

    /// A whole number written without fraction or exponent.
    ///
    /// # Errors
    ///
    /// [`OperationError::Invalid`].
    pub fn int(self, range: RangeInclusive<u64>) -> Result<Option<u64>, OperationError> {
        let Some(raw) = self.raw else {
            return Ok(None);
        };
        let digits = raw.strip_prefix('-').unwrap_or(raw);
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(self.invalid("expected int"));
        }
        let expected = || self.invalid(format!("expected int from {} to {}", range.start(), range.end()));
        let value = if raw == "-0" { 0 } else { raw.parse().map_err(|_| expected())? };
        if range.contains(&value) { Ok(Some(value)) } else { Err(expected()) }
    }

    /// An amount of money.
    ///
    /// # Errors
    ///
    /// [`OperationError::Invalid`].
    pub fn money(self, range: RangeInclusive<Money>) -> Result<Option<Money>, OperationError> {
        let Some(raw) = self.raw else {
            return Ok(None);
        };
        if !is_number(raw) {
            return Err(self.invalid("expected float"));
        }
        self.money_in(raw, range).map(Some)
    }

    /// An amount of money that may also be a numeric text or a truth value (0 or 1), as the contract has it for costs.
    ///
    /// # Errors
    ///
    /// [`OperationError::Invalid`].
    pub fn lenient_money(self, range: RangeInclusive<Money>) -> Result<Option<Money>, OperationError> {
        let Some(raw) = self.raw else {
            return Ok(None);
        };
        let text = match raw {
            "true" => "1".to_owned(),
            "false" => "0".to_owned(),
            _ if is_number(raw) => raw.to_owned(),
            _ => parse_text(raw).ok_or_else(|| self.invalid("expected float"))?.trim().to_owned(),
        };
        self.money_in(&text, range).map(Some)
    }

    fn money_in(self, text: &str, range: RangeInclusive<Money>) -> Result<Money, OperationError> {
        let amount = Money::parse(text).map_err(|error| self.invalid(format!("expected float: {error}")))?;
        if !range.contains(&amount) {
            let (least, most) = (range.start(), range.end());
            return Err(self.invalid(format!("expected float from {least} to {most}")));
        }
        Ok(amount)
    }

    /// A list of texts.
    ///
    /// # Errors
    ///
    /// [`OperationError::Invalid`].
    pub fn texts(self) -> Result<Option<Vec<String>>, OperationError> {
        let Some(raw) = self.raw else {
            return Ok(None);
        };
        if !raw.starts_with('[') {
            return Err(self.invalid("expected list"));
        }
        serde_json::from_str(raw).map(Some).map_err(|_| self.invalid("expected list of str"))
    }
}

fn is_number(raw: &str) -> bool {
    raw.starts_with(|first: char| first.is_ascii_digit() || first == '-')
}

fn parse_text(raw: &str) -> Option<String> {
    serde_json::from_str(raw).ok()
}

fn canonical(raw: &str) -> Result<String, serde_json::Error> {
    if raw.starts_with('{') {
        let members: BTreeMap<String, Box<RawValue>> = serde_json::from_str(raw)?;
        let members = members.iter().map(|(name, value)| {
            Ok::<_, serde_json::Error>(format!(
                "{}:{}",
                serde_json::to_string(name)?,
                canonical(value.get())?
            ))
        });
        return Ok(format!("{{{}}}", members.collect::<Result<Vec<_>, _>>()?.join(",")));
    }
    if raw.starts_with('[') {
        let values: Vec<Box<RawValue>> = serde_json::from_str(raw)?;
        let values = values.iter().map(|value| canonical(value.get()));
        return Ok(format!("[{}]", values.collect::<Result<Vec<_>, _>>()?.join(",")));
    }
    if raw.starts_with('"') {
        return serde_json::to_string(&serde_json::from_str::<String>(raw)?);
    }
    Ok(raw.to_owned())
}

/// The fields of the outermost object, each with its text.
struct TopLevel(BTreeMap<String, Box<RawValue>>);

impl<'de> Deserialize<'de> for TopLevel {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = BTreeMap<String, Box<RawValue>>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(BTreeMap::new())
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = BTreeMap::new();
                while let Some((name, value)) = map.next_entry::<String, Box<RawValue>>()? {
                    let again = shown(&name);
                    if fields.insert(name, value).is_some() {
                        return Err(A::Error::custom(format_args!("key {again:?} stands there twice")));
                    }
                }
                Ok(fields)
            }
        }
        deserializer.deserialize_any(Object).map(Self)
    }
}

/// Walks a value and refuses what can be read in two ways, or not at all.
fn check_strictly(raw: &str) -> Result<(), serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_str(raw);
    Strict { depth: 1 }.deserialize(&mut deserializer)?;
    deserializer.end()
}

#[derive(Clone, Copy)]
struct Strict {
    depth: usize,
}

impl Strict {
    fn deeper<E: serde::de::Error>(self) -> Result<Self, E> {
        if self.depth == DEPTH_MAX {
            return Err(E::custom(format_args!("nested deeper than {DEPTH_MAX}")));
        }
        Ok(Self { depth: self.depth + 1 })
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let inner = self.deeper()?;
        while seq.next_element_seed(inner)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let inner = self.deeper()?;
        let mut seen = BTreeSet::new();
        while let Some(key) = map.next_key::<String>()? {
            map.next_value_seed(inner)?;
            let again = shown(&key);
            if !seen.insert(key) {
                return Err(A::Error::custom(format_args!("key {again:?} stands there twice")));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field_of(body: &str) -> String {
        match Fields::parse(body.as_bytes()) {
            Err(OperationError::Invalid { field, .. }) => field,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused_by_field() {
        assert_eq!(field_of(r#"{"a":1,"a":2}"#), "body");
        assert_eq!(field_of(r#"{"details":{"x":[{"y":1,"y":2}]}}"#), "details");
        assert_eq!(field_of(r#"{"amount":1e400}"#), "amount");
        assert_eq!(field_of(r#"{"agent_id":"\ud800"}"#), "agent_id");
        assert_eq!(
            field_of(&format!(r#"{{"details":{}}}"#, "[".repeat(10_000) + &"]".repeat(10_000))),
            "details"
        );
        for body in ["[]", "0", "\"x\"", "{", "{\"a\":NaN}", "{} x", "nul"] {
            assert_eq!(field_of(body), "body", "{body}");
        }
        assert!(Fields::parse(b"{\"a\":\"\xff\"}").is_err());
        assert!(Fields::parse(b"  ").is_ok());
    }

    #[test]
    fn the_canonical_form_changes_the_spelling_and_no_value() {
        let body = br#"{"d": {"b" : [ 1.0, 1e2 ,100000000000000000000001, {"z":null, "\u0061":"\u00e9\/\n"} ], "a":{ } } }"#;
        let fields = Fields::parse(body).unwrap();
        let expected = r#"{"a":{},"b":[1.0,1e2,100000000000000000000001,{"a":"é/\n","z":null}]}"#;
        assert_eq!(fields.field("d").canonical(), Ok(Some(expected.to_owned())));
        assert_eq!(fields.field("absent").canonical(), Ok(None));
    }

    #[test]
    fn fields_are_read_strictly() {
        let fields = Fields::parse(
            br#"{"s":"x","i":10,"f":1.5,"neg":-1,"b":true,"n":null,"l":["a"],"mixed":[1],"big":99999999999999999999}"#,
        )
        .unwrap();
        let any = Money::ZERO..=Money::INPUT_MAX;
        assert_eq!(fields.field("s").text(1), Ok(Some("x".to_owned())));
        assert_eq!(fields.field("absent").text(1), Ok(None));
        assert!(fields.field("s").text(0).is_err());
        assert_eq!(fields.field("i").int(0..=10), Ok(Some(10)));
        for not_int in ["s", "f", "b", "n", "l", "neg", "big"] {
            assert!(
                fields
                    .field(match not_int {
                        "s" => "s",
                        "f" => "f",
                        "b" => "b",
                        "n" => "n",
                        "l" => "l",
                        "neg" => "neg",
                        _ => "big",
                    })
                    .int(0..=100)
                    .is_err(),
                "{not_int}"
            );
        }
        assert_eq!(fields.field("i").money(any.clone()), Ok(Some(Money::parse("10").unwrap())));
        assert!(fields.field("b").money(any.clone()).is_err());
        assert!(fields.field("s").money(any.clone()).is_err());
        assert_eq!(fields.field("b").lenient_money(any.clone()), Ok(Some(Money::parse("1").unwrap())));
        assert!(fields.field("n").lenient_money(any).is_err());
        assert_eq!(fields.field("l").texts(), Ok(Some(vec!["a".to_owned()])));
        assert!(fields.field("mixed").texts().is_err());
        assert_eq!(fields.field("n").or_null().text(1), Ok(None));
    }
}
