//! Names and addresses where all upstreams are one server.
//!
//! A tool or a prompt goes by its own name if the upstream that was registered first among those that have it is meant, and by
//! `upstream.name` otherwise; both ways lead there. An address of a resource is `haldir://upstream/` and the upstream's own
//! address of it.

use serde_json::Value;

use crate::domain::upstreams::UpstreamName;

/// What stands before the name of the upstream in an address.
const SCHEME: &str = "haldir://";

/// The address of a resource of an upstream among those of all.
pub(super) fn outer_uri(upstream: &UpstreamName, uri: &str) -> String {
    format!("{SCHEME}{upstream}/{uri}")
}

/// The upstream and its own address of a resource.
pub(super) fn inner_uri(uri: &str) -> Option<(UpstreamName, String)> {
    let (upstream, uri) = uri.strip_prefix(SCHEME)?.split_once('/')?;
    Some((UpstreamName::parse(upstream)?, uri.to_owned()))
}

/// The upstream and its own name of a prompt, where the name says both.
pub(super) fn inner_name(name: &str) -> Option<(UpstreamName, String)> {
    let (upstream, name) = name.split_once('.')?;
    Some((UpstreamName::parse(upstream)?, name.to_owned()))
}

/// Writes the addresses of resources in a result as they are among those of all upstreams.
pub(super) fn with_outer_uris(mut result: Value, upstream: &UpstreamName) -> Value {
    let outer = |value: &mut Value| {
        if let Some(uri) = value.get_mut("uri")
            && let Some(text) = uri.as_str()
        {
            *uri = Value::from(outer_uri(upstream, text));
        }
    };
    let block = |block: &mut Value| match block["type"].as_str() {
        Some("resource_link") => outer(block),
        Some("resource") => block.get_mut("resource").into_iter().for_each(outer),
        _ => {}
    };
    let items = |value: &mut Value, name: &str, change: &dyn Fn(&mut Value)| {
        if let Some(Value::Array(items)) = value.get_mut(name) {
            items.iter_mut().for_each(change);
        }
    };
    items(&mut result, "content", &block);
    items(&mut result, "contents", &outer);
    items(&mut result, "messages", &|message| {
        message.get_mut("content").into_iter().for_each(block);
    });
    result
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn addresses_lead_back_to_where_they_come_from() {
        let files = UpstreamName::parse("files").unwrap();
        for uri in ["file:///a/b.txt", "test://static/{id}", "", "a b"] {
            assert_eq!(inner_uri(&outer_uri(&files, uri)), Some((files.clone(), uri.to_owned())));
        }
        for uri in ["file:///a", "haldir://files", "haldir://no such/x", "haldir:///x"] {
            assert_eq!(inner_uri(uri), None, "{uri}");
        }
        assert_eq!(inner_name("files.a.b"), Some((files, "a.b".to_owned())));
        assert_eq!(inner_name("files"), None);
    }

    #[test]
    fn every_address_in_a_result_is_written_anew() {
        let files = UpstreamName::parse("files").unwrap();
        let link = json!({"type": "resource_link", "uri": "x", "name": "x"});
        let embedded = json!({"type": "resource", "resource": {"uri": "x", "text": "uri"}});
        let text = json!({"type": "text", "text": "x", "uri": "x"});
        let tool = with_outer_uris(json!({"content": [link, embedded, text]}), &files);
        assert_eq!(tool["content"][0]["uri"], "haldir://files/x");
        assert_eq!(tool["content"][1]["resource"]["uri"], "haldir://files/x");
        assert_eq!(tool["content"][2], text);
        let read = with_outer_uris(json!({"contents": [{"uri": "x", "text": "y"}]}), &files);
        assert_eq!(read["contents"][0], json!({"uri": "haldir://files/x", "text": "y"}));
        let prompt = with_outer_uris(json!({"messages": [{"role": "user", "content": embedded}]}), &files);
        assert_eq!(prompt["messages"][0]["content"]["resource"]["uri"], "haldir://files/x");
    }
}
