//! Answers of the REST edge as results of tools.
//!
//! A result that is no error carries the answer twice: as text, with the digits of the answer, and structured, as the tool's
//! output schema describes it. Errors are text alone, because they do not have that form.

use rmcp::model::{CallToolResult, ContentBlock};
use serde_json::{Value, json};

use super::catalogue::Face;
use super::rest::{Answer, Failure};

/// The result of a call that reached the REST edge.
#[must_use]
pub fn answered(answer: &Answer, face: Face) -> CallToolResult {
    let object = answer.object();
    let is_denial = object.as_ref().is_some_and(|body| body["authorized"] == false);
    match (face, object) {
        (Face::Http, Some(body)) if answer.is_success() || is_denial => done(answer.body.clone(), body),
        (Face::Stdio, Some(body)) if answer.is_success() => done(indented(&answer.body), body),
        (Face::Stdio, Some(body)) if is_denial => {
            let body = with_status(body, answer.status);
            done(pretty(&body), body)
        }
        (Face::Http, _) => refused(answer.complaint()),
        (Face::Stdio, object) => refused(pretty(&not_a_result(object, answer))),
    }
}

/// The result of a call that did not.
#[must_use]
pub fn failed(failure: &Failure, tool: &str, face: Face) -> CallToolResult {
    if face == Face::Http {
        return refused(failure.message.clone());
    }
    let mut body = json!({ "error": failure.kind, "message": failure.message });
    if failure.kind == "dispatch_error" {
        body["tool"] = json!(tool);
    }
    for (name, value) in &failure.more {
        body[*name] = json!(value);
    }
    refused(pretty(&body))
}

/// The result of a call of a tool that there is not.
#[must_use]
pub fn unknown_tool(tool: &str, face: Face) -> CallToolResult {
    match face {
        Face::Http => refused(format!("unknown tool: {tool}")),
        Face::Stdio => refused(pretty(&json!({ "error": "unknown_tool", "tool": tool }))),
    }
}

/// The result of a call whose arguments the tool's schema forbids.
#[must_use]
pub fn invalid(why: &str) -> CallToolResult {
    refused(format!("Input validation error: {why}"))
}

fn done(text: String, body: Value) -> CallToolResult {
    let mut result = CallToolResult::structured(body);
    result.content = vec![ContentBlock::text(text)];
    result
}

fn refused(text: String) -> CallToolResult {
    CallToolResult::error(vec![ContentBlock::text(text)])
}

/// What programs that read the text expect of an answer that says no, or is none of ours.
fn not_a_result(object: Option<Value>, answer: &Answer) -> Value {
    match object {
        Some(body) => with_status(body, answer.status),
        None if answer.status == 204 => json!({ "success": true, "status_code": 204 }),
        None if answer.is_success() => json!({ "raw": answer.body }),
        None => with_status(json!({ "raw": answer.body }), answer.status),
    }
}

fn with_status(mut body: Value, status: u16) -> Value {
    if body["error"].is_null() {
        body["error"] = json!(format!("http_{status}"));
    }
    body["status_code"] = json!(status);
    body
}

fn pretty(body: &Value) -> String {
    serde_json::to_string_pretty(body).unwrap_or_default()
}

/// JSON with every member on a line of its own, and everything else as it is written.
fn indented(json: &str) -> String {
    let mut text = String::with_capacity(json.len() * 2);
    let mut depth = 0;
    let mut is_in_text = false;
    let mut is_escaped = false;
    let mut characters = json.chars().filter(|it| !matches!(it, '\n' | '\r')).peekable();
    while let Some(character) = characters.next() {
        if is_in_text {
            text.push(character);
            is_in_text = is_escaped || character != '"';
            is_escaped = character == '\\' && !is_escaped;
            continue;
        }
        match character {
            '{' | '[' if characters.next_if(|next| matches!(next, '}' | ']')).is_some() => {
                text.push_str(if character == '{' { "{}" } else { "[]" });
            }
            '{' | '[' => {
                depth += 1;
                text.push(character);
                break_line(&mut text, depth);
            }
            '}' | ']' => {
                depth -= 1;
                break_line(&mut text, depth);
                text.push(character);
            }
            ',' => {
                text.push(character);
                break_line(&mut text, depth);
            }
            ':' => text.push_str(": "),
            ' ' | '\t' => {}
            _ => {
                is_in_text = character == '"';
                text.push(character);
            }
        }
    }
    text
}

fn break_line(text: &mut String, depth: usize) {
    text.push('\n');
    text.extend(std::iter::repeat_n("  ", depth));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> Answer {
        Answer { status, body: body.to_owned() }
    }

    fn text(result: &CallToolResult) -> &str {
        result.content[0].as_text().unwrap().text.as_str()
    }

    #[test]
    fn results_are_structured_and_keep_the_answers_digits() {
        let paid = answer(200, r#"{"amount":0.10,"tags":[],"of":{"a":"x\"{,"}}"#);
        let over_http = answered(&paid, Face::Http);
        assert_eq!((text(&over_http), over_http.is_error), (paid.body.as_str(), Some(false)));
        assert_eq!(over_http.structured_content.unwrap()["amount"], 0.1);
        let over_stdio = answered(&paid, Face::Stdio);
        let expected = "{\n  \"amount\": 0.10,\n  \"tags\": [],\n  \"of\": {\n    \"a\": \"x\\\"{,\"\n  }\n}";
        assert_eq!(text(&over_stdio), expected);
    }

    #[test]
    fn a_denial_is_a_result_and_a_refusal_is_an_error() {
        let denial = answer(403, r#"{"authorized":false,"reason":"over budget"}"#);
        for face in [Face::Http, Face::Stdio] {
            let result = answered(&denial, face);
            assert_eq!(result.is_error, Some(false));
            assert_eq!(result.structured_content.unwrap()["reason"], "over budget");
        }
        let over_stdio = answered(&denial, Face::Stdio).structured_content.unwrap();
        let expected =
            json!({ "authorized": false, "reason": "over budget", "error": "http_403", "status_code": 403 });
        assert_eq!(over_stdio, expected);
        let refusal = answer(404, r#"{"error":"no such session","code":"not_found"}"#);
        let over_http = answered(&refusal, Face::Http);
        assert_eq!((text(&over_http), over_http.is_error), ("no such session", Some(true)));
        let over_stdio = answered(&refusal, Face::Stdio);
        let body: Value = serde_json::from_str(text(&over_stdio)).unwrap();
        assert_eq!(body, json!({ "error": "no such session", "code": "not_found", "status_code": 404 }));
        assert!(over_stdio.structured_content.is_none() && over_stdio.is_error == Some(true));
    }

    #[test]
    fn what_is_no_answer_of_ours_is_an_error() {
        for (given, expected) in [
            (answer(502, "<html>"), json!({ "raw": "<html>", "error": "http_502", "status_code": 502 })),
            (answer(200, "<html>"), json!({ "raw": "<html>" })),
            (answer(204, ""), json!({ "success": true, "status_code": 204 })),
        ] {
            let result = answered(&given, Face::Stdio);
            let body: Value = serde_json::from_str(text(&result)).unwrap();
            assert_eq!((body, result.is_error), (expected, Some(true)));
        }
        assert_eq!(text(&answered(&answer(502, "<html>"), Face::Http)), "the server answered 502");
    }
}
