//! What a tool takes and gives, read from the description of its operation.
//!
//! An argument is a parameter of the operation or a member of its body; where they say the same, once. References lead into the
//! schema itself, which clients read alone.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::catalogue::{Entry, Face};

/// Where the description keeps what is referred to, and where a schema does.
const COMPONENTS: &str = "#/components/schemas/";
const DEFINITIONS: &str = "#/$defs/";
/// Formats that say how a number is kept, which clients need not know, and some refuse to.
const STORAGE_FORMATS: [&str; 4] = ["int32", "int64", "float", "double"];
/// The argument for the header that makes retries repeat the first outcome.
pub(super) const IDEMPOTENCY_KEY: &str = "idempotency_key";

/// An operation of the REST edge, as a tool calls it.
#[derive(Debug, Clone, PartialEq)]
pub struct Operation {
    /// Its method.
    pub method: &'static str,
    /// Its path, with names in braces.
    pub template: String,
    /// Arguments that stand in the path.
    pub in_path: BTreeSet<String>,
    /// Arguments that stand in the query string.
    pub in_query: BTreeSet<String>,
    /// Whether everything else goes into a body.
    pub has_body: bool,
    /// Whether it honours idempotency keys.
    pub is_retryable: bool,
    /// Every argument's schema.
    pub arguments: Map<String, Value>,
    /// Arguments that the operation requires.
    pub required: BTreeSet<String>,
    /// What it answers.
    pub output: Map<String, Value>,
}

impl Operation {
    /// The operation of a tool; `None` if it is not described.
    pub(super) fn read(entry: &Entry, document: &Value) -> Option<Self> {
        let (template, method, described) = find(document, entry.operation)?;
        let mut operation = Self {
            method,
            template: template.to_owned(),
            in_path: BTreeSet::new(),
            in_query: BTreeSet::new(),
            has_body: false,
            is_retryable: false,
            arguments: Map::new(),
            required: BTreeSet::new(),
            output: output(described, document),
        };
        for parameter in described["parameters"].as_array().into_iter().flatten() {
            operation.add_parameter(parameter, entry);
        }
        let body = &described["requestBody"]["content"]["application/json"]["schema"];
        if !body.is_null() {
            operation.has_body = true;
            operation.add_body(body, document);
        }
        Some(operation)
    }

    fn add_parameter(&mut self, parameter: &Value, entry: &Entry) {
        if parameter["$ref"].as_str().is_some_and(|it| it.ends_with("/IdempotencyKeyHeader")) {
            self.is_retryable = true;
            let description = "Calls with the same key and arguments repeat the first outcome for 24 hours.";
            let schema =
                json!({ "type": "string", "minLength": 1, "maxLength": 255, "description": description });
            self.arguments.insert(IDEMPOTENCY_KEY.to_owned(), schema);
            return;
        }
        let Some(name) = parameter["name"].as_str().filter(|name| !entry.left_out.contains(name)) else {
            return;
        };
        match parameter["in"].as_str() {
            Some("path") => self.in_path.insert(name.to_owned()),
            Some("query") if entry.headers.iter().any(|(argument, _)| *argument == name) => true,
            Some("query") => self.in_query.insert(name.to_owned()),
            _ => return,
        };
        let mut schema = parameter["schema"].clone();
        schema["description"] = parameter["description"].clone();
        tidy(&mut schema);
        if parameter["required"] == true {
            self.required.insert(name.to_owned());
        }
        self.arguments.insert(name.to_owned(), schema);
    }

    fn add_body(&mut self, schema: &Value, document: &Value) {
        let schema = resolved(schema, document);
        for (name, member) in schema["properties"].as_object().into_iter().flatten() {
            let mut member = member.clone();
            tidy(&mut member);
            self.arguments.insert(name.clone(), member);
        }
        let required = schema["required"].as_array().into_iter().flatten();
        self.required.extend(required.filter_map(Value::as_str).map(str::to_owned));
    }

    /// The schema of the arguments: an open object, because what a body's description does not name is forwarded all the same.
    pub(super) fn input(&self, entry: &Entry, face: Face) -> Map<String, Value> {
        let mut properties = self.arguments.clone();
        let mut required = self.required.clone();
        required.extend(entry.required.iter().map(|name| (*name).to_owned()));
        if face == Face::Stdio {
            required.extend(entry.required_over_stdio.iter().map(|name| (*name).to_owned()));
        }
        for (given, meant) in entry.synonyms {
            // An argument that must be there in one way or the other cannot be called required.
            if required.remove(*meant)
                && let Some(schema) = self.arguments.get(*meant)
            {
                let mut schema = schema.clone();
                schema["description"] = json!(format!("Another name for `{meant}`"));
                properties.insert((*given).to_owned(), schema);
            }
        }
        let mut schema = Map::new();
        schema.insert("type".to_owned(), json!("object"));
        schema.insert("properties".to_owned(), Value::Object(properties));
        if !required.is_empty() {
            schema.insert("required".to_owned(), json!(required));
        }
        schema
    }
}

/// Path, method and description of an operation.
fn find<'a>(document: &'a Value, id: &str) -> Option<(&'a str, &'static str, &'a Value)> {
    let paths = document["paths"].as_object()?;
    let operations = paths.iter().flat_map(|(path, methods)| {
        methods.as_object().into_iter().flatten().map(move |(method, described)| (path, method, described))
    });
    let (path, method, described) = operations.into_iter().find(|it| it.2["operationId"] == id)?;
    let method = ["GET", "POST", "PUT", "DELETE"].into_iter().find(|it| it.eq_ignore_ascii_case(method))?;
    Some((path, method, described))
}

/// The schema of the answers that are results: those that succeed, and denials that have a form of their own.
fn output(described: &Value, document: &Value) -> Map<String, Value> {
    let mut forms: Vec<&Value> = Vec::new();
    for (status, response) in described["responses"].as_object().into_iter().flatten() {
        let form = &response["content"]["application/json"]["schema"];
        if !form.is_null()
            && (status.starts_with('2') || response["$ref"].is_null())
            && !forms.contains(&form)
        {
            forms.push(form);
        }
    }
    let mut schema = match forms[..] {
        [form] => resolved(form, document).clone(),
        _ => json!({ "anyOf": forms }),
    };
    let mut definitions = BTreeMap::new();
    gather(&schema, document, &mut definitions);
    schema["type"] = json!("object");
    if !definitions.is_empty() {
        schema["$defs"] = json!(definitions);
    }
    tidy(&mut schema);
    match schema {
        Value::Object(schema) => schema,
        _ => Map::new(),
    }
}

/// What a schema refers to, if it only refers.
fn resolved<'a>(schema: &'a Value, document: &'a Value) -> &'a Value {
    let name = schema["$ref"].as_str().and_then(|it| it.strip_prefix(COMPONENTS));
    name.map_or(schema, |name| &document["components"]["schemas"][name])
}

/// Adds everything that a schema refers to, however far.
fn gather(schema: &Value, document: &Value, into: &mut BTreeMap<String, Value>) {
    match schema {
        Value::Object(members) => {
            let name = members.get("$ref").and_then(Value::as_str).and_then(|it| it.strip_prefix(COMPONENTS));
            if let Some(name) = name.filter(|name| !into.contains_key(*name)) {
                let meant = &document["components"]["schemas"][name];
                into.insert(name.to_owned(), meant.clone());
                gather(meant, document, into);
            }
            members.values().for_each(|member| gather(member, document, into));
        }
        Value::Array(items) => items.iter().for_each(|item| gather(item, document, into)),
        _ => {}
    }
}

/// Makes references lead into the schema itself, and leaves out how numbers are kept.
fn tidy(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            if members.get("format").and_then(Value::as_str).is_some_and(|it| STORAGE_FORMATS.contains(&it)) {
                members.remove("format");
            }
            if let Some(Value::String(reference)) = members.get_mut("$ref")
                && let Some(name) = reference.strip_prefix(COMPONENTS)
            {
                *reference = format!("{DEFINITIONS}{name}");
            }
            members.values_mut().for_each(tidy);
        }
        Value::Array(items) => items.iter_mut().for_each(tidy),
        _ => {}
    }
}
