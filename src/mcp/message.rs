//! JSON-RPC messages before the SDK reads them: one message, no key twice at any depth, numbers as they were written.

use rmcp::model::{ClientJsonRpcMessage, ErrorData, JsonRpcError, RequestId};
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use crate::http::body::Fields;

/// The arguments of a tool call as the client wrote them, so that an amount of money is never a binary float.
#[derive(Debug, Clone)]
pub struct WrittenArguments(pub Box<RawValue>);

/// What has to be known of a message before the SDK reads it.
#[derive(Debug)]
pub(super) struct Checked {
    /// Whether it begins a session, where there are any.
    pub(super) is_initialize: bool,
    /// The arguments, if it calls a tool with some.
    pub(super) arguments: Option<WrittenArguments>,
}

/// Looks at a message.
///
/// # Errors
///
/// The answer to what is no message.
pub(super) fn check(bytes: &[u8]) -> Result<Checked, JsonRpcError> {
    let refused = |id, why: String| JsonRpcError::new(id, ErrorData::invalid_request(why, None));
    let unreadable = |why: &str| JsonRpcError::new(None, ErrorData::parse_error(why.to_owned(), None));
    let bytes = bytes.trim_ascii();
    if matches!(bytes, b"" | b"{}" | b"[]") {
        return Err(unreadable("expected a JSON-RPC message"));
    }
    if serde_json::from_slice::<IgnoredAny>(bytes).is_err() {
        return Err(unreadable("expected JSON"));
    }
    if bytes.starts_with(b"[") {
        return Err(refused(None, "expected one message, not a batch of them".to_owned()));
    }
    let fields = Fields::parse(bytes).map_err(|error| refused(None, error.to_string()))?;
    let id = fields.field("id").raw();
    let read_id = id.and_then(|id| serde_json::from_str::<RequestId>(id).ok());
    if id.is_some() && read_id.is_none() && fields.field("method").raw().is_some() {
        return Err(refused(None, "id: expected a text or a whole number".to_owned()));
    }
    if let Err(error) = serde_json::from_slice::<ClientJsonRpcMessage>(bytes) {
        return Err(refused(read_id, format!("expected a JSON-RPC message: {error}")));
    }
    let is_initialize = fields.field("method").raw() == Some("\"initialize\"");
    Ok(Checked { is_initialize, arguments: written_arguments(&fields) })
}

/// `params.arguments`, if there are any.
fn written_arguments(fields: &Fields) -> Option<WrittenArguments> {
    let params = Fields::parse(fields.field("params").raw()?.as_bytes()).ok()?;
    let arguments = params.field("arguments").or_null().raw()?;
    RawValue::from_string(arguments.to_owned()).ok().map(WrittenArguments)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn refusal(message: &str) -> Value {
        serde_json::to_value(check(message.as_bytes()).unwrap_err()).unwrap()
    }

    #[test]
    fn what_is_no_message_is_refused() {
        for nothing in ["", "  ", "{}", "[]", "{\"a\":", "nonsense", "\u{1}"] {
            let refusal = refusal(nothing);
            assert_eq!(
                (&refusal["error"]["code"], &refusal["id"]),
                (&json!(-32700), &Value::Null),
                "{nothing}"
            );
        }
        for (message, id) in [
            (r#"[{"jsonrpc":"2.0","id":1,"method":"ping"}]"#, Value::Null),
            ("7", Value::Null),
            (r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}"#, Value::Null),
            (r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#, Value::Null),
            (r#"{"jsonrpc":"2.0","id":1.5,"method":"ping"}"#, Value::Null),
            (r#"{"jsonrpc":"1.0","id":7,"method":"ping"}"#, json!(7)),
            (r#"{"jsonrpc":"2.0","id":"a","method":7}"#, json!("a")),
        ] {
            let refusal = refusal(message);
            assert_eq!((&refusal["error"]["code"], &refusal["id"]), (&json!(-32600), &id), "{message}");
        }
    }

    #[test]
    fn arguments_keep_the_digits_that_were_written() {
        let call = br#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"pay","arguments":{"amount":0.10000000000000000001}}}"#;
        let WrittenArguments(arguments) = check(call).unwrap().arguments.unwrap();
        assert_eq!(arguments.get(), r#"{"amount":0.10000000000000000001}"#);
        let twice = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"pay","arguments":{"amount":1,"amount":2}}}"#;
        assert_eq!(refusal(twice)["error"]["code"], -32600);
        let none =
            br#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"pay","arguments":null}}"#;
        assert!(check(none).unwrap().arguments.is_none());
    }
}
