//! The arguments of a call: held against the tool's schema, and made into a request.
//!
//! They stay the text that was written, so that an amount reaches the REST edge with the digits that the client gave it. What
//! the schema cannot say, the REST edge checks.

use std::collections::BTreeMap;

use rmcp::model::JsonObject;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value};

use super::catalogue::{Face, Tool};
use super::message::WrittenArguments;
use super::rest::Request;
use super::schema::IDEMPOTENCY_KEY;
use crate::http::query::percent_encoded;

/// The arguments of a call, by name.
#[derive(Debug, Default)]
pub struct Arguments(BTreeMap<String, Box<RawValue>>);

impl Arguments {
    /// Those that were written, or else those that the SDK read.
    #[must_use]
    pub fn new(written: Option<&WrittenArguments>, read: Option<JsonObject>) -> Self {
        if let Some(WrittenArguments(text)) = written
            && let Ok(arguments) = serde_json::from_str(text.get())
        {
            return Self(arguments);
        }
        let raw = |(name, value)| Some((name, to_raw_value(&value).ok()?));
        Self(read.unwrap_or_default().into_iter().filter_map(raw).collect())
    }

    /// The request that a call comes down to.
    ///
    /// # Errors
    ///
    /// A sentence, for the first argument that is missing or wrong.
    pub fn request(mut self, tool: &Tool, face: Face) -> Result<Request, String> {
        self.call_synonyms_by_name(tool);
        let schema = &tool.listed(face).input_schema;
        self.check(schema)?;
        let operation = &tool.operation;
        let mut request = Request::get(self.path(tool)?);
        request.method = operation.method;
        for (argument, header) in tool.entry.headers {
            if let Some(value) = self.0.remove(*argument) {
                request.headers.push((header, in_header(argument, &value)?));
            }
        }
        if operation.is_retryable
            && let Some(key) = self.0.remove(IDEMPOTENCY_KEY)
        {
            request.headers.push(("Idempotency-Key", in_header(IDEMPOTENCY_KEY, &key)?));
        }
        if operation.has_body {
            request.body = Some(serde_json::to_string(&self.0).map_err(|error| error.to_string())?);
        }
        Ok(request)
    }

    fn call_synonyms_by_name(&mut self, tool: &Tool) {
        for (given, meant) in tool.entry.synonyms {
            if let Some(value) = self.0.remove(*given) {
                self.0.entry((*meant).to_owned()).or_insert(value);
            }
        }
    }

    fn check(&self, schema: &Map<String, Value>) -> Result<(), String> {
        for name in
            schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
        {
            if !self.0.contains_key(name) {
                return Err(missing(name));
            }
        }
        let properties = schema.get("properties").and_then(Value::as_object);
        for (name, schema) in properties.into_iter().flatten() {
            if let Some(written) = self.0.get(name) {
                let value =
                    serde_json::from_str(written.get()).map_err(|error| format!("'{name}': {error}"))?;
                check_value(&value, schema).map_err(|why| format!("'{name}': {why}"))?;
            }
        }
        Ok(())
    }

    /// The path, with the arguments that belong into it and into the query string.
    fn path(&mut self, tool: &Tool) -> Result<String, String> {
        let operation = &tool.operation;
        let mut path = operation.template.clone();
        for name in &operation.in_path {
            let value = self.0.remove(name).ok_or_else(|| missing(name))?;
            let value = as_text(&value);
            // Those would lead to another path than the operation's.
            if ["", ".", ".."].contains(&value.as_str()) {
                return Err(format!("'{name}': '{value}' names nothing"));
            }
            path = path.replace(&format!("{{{name}}}"), &percent_encoded(&value));
        }
        let mut separator = '?';
        for name in &operation.in_query {
            if let Some(value) = self.0.remove(name) {
                path.push(separator);
                path.push_str(name);
                path.push('=');
                path.push_str(&percent_encoded(&as_text(&value)));
                separator = '&';
            }
        }
        Ok(path)
    }
}

fn missing(name: &str) -> String {
    format!("'{name}' is a required property")
}

/// A text's content; the JSON of anything else.
fn as_text(value: &RawValue) -> String {
    serde_json::from_str(value.get()).unwrap_or_else(|_| value.get().to_owned())
}

fn in_header(argument: &str, value: &RawValue) -> Result<String, String> {
    let text = as_text(value);
    if text.chars().any(char::is_control) {
        return Err(format!("'{argument}': control characters are not allowed"));
    }
    Ok(text)
}

/// Holds a value against the parts of a schema that arguments have.
fn check_value(value: &Value, schema: &Value) -> Result<(), String> {
    let types: Vec<&str> = match &schema["type"] {
        Value::String(one) => vec![one],
        Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
        _ => return Ok(()),
    };
    if !types.iter().any(|expected| is_of_type(value, expected)) {
        let expected = types.iter().map(|it| format!("'{it}'")).collect::<Vec<_>>().join(", ");
        return Err(format!("{} is not of type {expected}", shown(value)));
    }
    if schema["enum"].as_array().is_some_and(|allowed| !allowed.contains(value)) {
        return Err(format!("{} is not one of {}", shown(value), schema["enum"]));
    }
    if let Some(number) = value.as_f64() {
        if let Some(least) = schema["minimum"].as_f64().filter(|least| number < *least) {
            return Err(format!("{value} is less than the minimum of {least}"));
        }
        if let Some(most) = schema["maximum"].as_f64().filter(|most| number > *most) {
            return Err(format!("{value} is greater than the maximum of {most}"));
        }
    }
    if let Value::Array(items) = value {
        return items.iter().try_for_each(|item| check_value(item, &schema["items"]));
    }
    Ok(())
}

fn is_of_type(value: &Value, expected: &str) -> bool {
    match expected {
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "number" => value.is_number(),
        "integer" => value.as_f64().is_some_and(|number| number.fract() == 0.0),
        "array" => value.is_array(),
        "object" => value.is_object(),
        "null" => value.is_null(),
        _ => true,
    }
}

/// A value as errors repeat it: what a text says may be secret.
fn shown(value: &Value) -> String {
    match value {
        Value::String(_) => "a text".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::catalogue::catalogue;
    use super::*;

    fn request(tool: &str, arguments: &str, face: Face) -> Result<Request, String> {
        let written = WrittenArguments(RawValue::from_string(arguments.to_owned()).unwrap());
        Arguments::new(Some(&written), None).request(catalogue().find(tool).unwrap(), face)
    }

    fn over_http(tool: &str, arguments: &str) -> Result<Request, String> {
        request(tool, arguments, Face::Http)
    }

    #[test]
    fn arguments_go_where_the_operation_reads_them() {
        let asked = over_http("haldir_get_session", r#"{"session_id":"ses_a/b c"}"#).unwrap();
        assert_eq!((asked.method, asked.path.as_str()), ("GET", "/v1/sessions/ses_a%2Fb%20c"));
        let asked =
            over_http("haldir_get_secret", r#"{"name":"a/b","session_id":"ses_1","version":2}"#).unwrap();
        assert_eq!(asked.path, "/v1/secrets/a%2Fb?version=2");
        assert_eq!(asked.headers, [("X-Session-ID", "ses_1".to_owned())]);
        let trail = r#"{"flagged":true,"limit":5,"agent_id":"a&b"}"#;
        let asked = over_http("haldir_query_audit_trail", trail).unwrap();
        assert_eq!(asked.path, "/v1/audit?agent_id=a%26b&flagged=true&limit=5");
        let asked = over_http("getAuditTrail", r#"{"flagged_only":true}"#).unwrap();
        assert_eq!(asked.path, "/v1/audit?flagged=true");
        let asked = over_http("haldir_revoke_session", r#"{"session_id":"ses_1","cascade":true}"#).unwrap();
        assert_eq!((asked.method, asked.path.as_str()), ("DELETE", "/v1/sessions/ses_1?cascade=true"));
        let approval = over_http("haldir_get_approval_status", r#"{"approval_id":"apr_1"}"#).unwrap();
        assert_eq!(approval.path, "/v1/approvals/apr_1");
    }

    #[test]
    fn bodies_keep_the_digits_and_what_is_not_described() {
        let payment =
            r#"{"session_id":"ses_1","amount":0.10000000000000000001,"memo":"x","idempotency_key":"k1"}"#;
        let asked = over_http("haldir_authorize_payment", payment).unwrap();
        assert_eq!((asked.method, asked.path.as_str()), ("POST", "/v1/payments/authorize"));
        assert_eq!(
            asked.body.as_deref(),
            Some(r#"{"amount":0.10000000000000000001,"memo":"x","session_id":"ses_1"}"#)
        );
        assert_eq!(asked.headers, [("Idempotency-Key", "k1".to_owned())]);
        let read = serde_json::json!({ "session_id": "ses_1", "amount": 999_999.123_456_789_f64 });
        let asked = Arguments::new(None, read.as_object().cloned());
        let asked =
            asked.request(catalogue().find("haldir_authorize_payment").unwrap(), Face::Stdio).unwrap();
        assert!(asked.body.unwrap().contains("999999.123456789"));
    }

    #[test]
    fn what_the_schema_forbids_is_refused() {
        for (tool, arguments, why) in [
            ("haldir_create_session", "{}", "'agent_id' is a required property"),
            ("haldir_create_session", r#"{"agent_id":7}"#, "'agent_id': 7 is not of type 'string'"),
            (
                "haldir_create_session",
                r#"{"agent_id":"a","ttl":true}"#,
                "'ttl': true is not of type 'integer'",
            ),
            ("haldir_create_session", r#"{"agent_id":"a","ttl":1.5}"#, "'ttl': 1.5 is not of type 'integer'"),
            (
                "haldir_create_session",
                r#"{"agent_id":"a","scopes":[1]}"#,
                "'scopes': 1 is not of type 'string'",
            ),
            (
                "haldir_create_session",
                r#"{"agent_id":"a","spend_limit":null}"#,
                "'spend_limit': null is not of type 'number'",
            ),
            (
                "haldir_authorize_payment",
                r#"{"session_id":"s","amount":"5"}"#,
                "'amount': a text is not of type 'number'",
            ),
            (
                "haldir_authorize_payment",
                r#"{"session_id":"s","amount":-5}"#,
                "'amount': -5 is less than the minimum of 0.01",
            ),
            ("haldir_get_session", r#"{"session_id":".."}"#, "'session_id': '..' names nothing"),
            ("haldir_get_session", r#"{"session_id":""}"#, "'session_id': '' names nothing"),
            ("haldir_get_secret", r#"{"name":"a"}"#, "'session_id' is a required property"),
            (
                "haldir_get_secret",
                r#"{"name":"a","session_id":"a\nb"}"#,
                "'session_id': control characters are not allowed",
            ),
            ("haldir_get_approval_status", "{}", "'request_id' is a required property"),
        ] {
            assert_eq!(over_http(tool, arguments).unwrap_err(), why, "{tool} {arguments}");
        }
        let action = r#"{"session_id":"s","action":"a"}"#;
        assert!(request("haldir_log_audit_action", action, Face::Http).is_ok());
        assert_eq!(
            request("haldir_log_audit_action", action, Face::Stdio).unwrap_err(),
            "'tool' is a required property"
        );
    }
}
