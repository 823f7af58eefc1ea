//! The resources: what clients can read as context, through the REST edge like everything else.

use rmcp::ErrorData;
use rmcp::model::{CacheScope, ReadResourceResult, Resource, ResourceContents, ResourceTemplate};
use serde_json::json;

use super::rest::{Answer, Backend, Failure, Request};
use crate::http::query::percent_encoded;
use crate::operations::Caller;

/// A resource: its URI or what that begins with, name, title, description, media type, and where it is read.
struct Source {
    uri: &'static str,
    /// The name of what the URI ends with, if it names one of many.
    parameter: Option<&'static str>,
    name: &'static str,
    title: &'static str,
    description: &'static str,
    media_type: &'static str,
    path: &'static str,
}

const JSON: &str = "application/json";

const SOURCES: [Source; 4] = [
    Source {
        uri: "haldir://audit/trail",
        parameter: None,
        name: "audit-trail",
        title: "Audit Trail",
        description: "The last hundred logged actions, newest first.",
        media_type: JSON,
        path: "/v1/audit",
    },
    Source {
        uri: "haldir://ledger/checkpoint",
        parameter: None,
        name: "ledger-checkpoint",
        title: "Ledger Checkpoint",
        description: "The signed checkpoint of the tenant's ledger (C2SP tlog-checkpoint). Whoever keeps it can prove later that \
                      nothing before it was changed.",
        media_type: "text/plain",
        path: "/v1/ledger/checkpoint",
    },
    Source {
        uri: "haldir://audit/entries/",
        parameter: Some("entry_id"),
        name: "audit-entry",
        title: "Audit Entry",
        description: "The proof that an entry is in the ledger, with the signed root that it leads to.",
        media_type: JSON,
        path: "/v1/audit/inclusion-proof/",
    },
    Source {
        uri: "haldir://sessions/",
        parameter: Some("session_id"),
        name: "session",
        title: "Session",
        description: "A live session: its scopes, what it spent, what it may still spend, when it expires.",
        media_type: JSON,
        path: "/v1/sessions/",
    },
];

/// The resources that there is one of.
#[must_use]
pub fn listed() -> Vec<Resource> {
    let single = SOURCES.iter().filter(|source| source.parameter.is_none());
    let resource = |source: &Source| {
        Resource::new(source.uri, source.name)
            .with_title(source.title)
            .with_description(source.description)
            .with_mime_type(source.media_type)
    };
    single.map(resource).collect()
}

/// Those that there are many of.
#[must_use]
pub fn templates() -> Vec<ResourceTemplate> {
    let template = |source: &Source| {
        let uri = format!("{}{{{}}}", source.uri, source.parameter?);
        let template = ResourceTemplate::new(uri, source.name)
            .with_title(source.title)
            .with_description(source.description)
            .with_mime_type(source.media_type);
        Some(template)
    };
    SOURCES.iter().filter_map(template).collect()
}

/// Reads a resource.
///
/// # Errors
///
/// Not found, or what the REST edge complains of.
pub async fn read(
    backend: &impl Backend,
    uri: &str,
    caller: Option<Caller>,
) -> Result<ReadResourceResult, ErrorData> {
    let asked = json!({ "uri": uri });
    let not_found = || ErrorData::resource_not_found(format!("no such resource: {uri}"), Some(asked.clone()));
    let (source, path) = find(uri).ok_or_else(not_found)?;
    let answer = backend.ask(Request::get(path), caller).await;
    let answer = answer.map_err(|Failure { message, .. }| ErrorData::internal_error(message, None))?;
    if answer.status == 404 {
        return Err(not_found());
    }
    if !answer.is_success() {
        return Err(refused(&answer));
    }
    let contents = ResourceContents::text(answer.body, uri).with_mime_type(source.media_type);
    // What one caller may read, another may not, and any of it may change at once.
    Ok(ReadResourceResult::new(vec![contents]).with_ttl_ms(0).with_cache_scope(CacheScope::Private))
}

fn refused(answer: &Answer) -> ErrorData {
    let why = answer.complaint();
    if answer.status >= 500 {
        ErrorData::internal_error(why, None)
    } else {
        ErrorData::invalid_request(why, None)
    }
}

/// The source of a resource, and the path at which it is read.
fn find(uri: &str) -> Option<(&'static Source, String)> {
    SOURCES.iter().find_map(|source| {
        if source.parameter.is_none() {
            return (uri == source.uri).then(|| (source, source.path.to_owned()));
        }
        let id = uri.strip_prefix(source.uri)?;
        let is_id = !id.is_empty() && id.bytes().all(|it| it.is_ascii_alphanumeric() || b"_-".contains(&it));
        is_id.then(|| (source, format!("{}{}", source.path, percent_encoded(id))))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_lead_to_paths() {
        let path = |uri| find(uri).map(|it| it.1);
        assert_eq!(path("haldir://audit/trail").as_deref(), Some("/v1/audit"));
        assert_eq!(
            path("haldir://audit/entries/aud_1-x").as_deref(),
            Some("/v1/audit/inclusion-proof/aud_1-x")
        );
        assert_eq!(path("haldir://sessions/ses_1").as_deref(), Some("/v1/sessions/ses_1"));
        for uri in [
            "haldir://sessions/",
            "haldir://sessions/..",
            "haldir://sessions/a/b",
            "haldir://x",
            "file:///etc/passwd",
            "",
        ] {
            assert_eq!(path(uri), None, "{uri}");
        }
        assert_eq!((listed().len(), templates().len()), (2, 2));
        assert_eq!(templates()[0].uri_template, "haldir://audit/entries/{entry_id}");
    }
}
