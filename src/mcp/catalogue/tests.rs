//! Is every tool whole, and what the contract says?

use std::collections::BTreeSet;

use serde_json::Value;

use super::*;

fn references(schema: &Value, into: &mut BTreeSet<String>) {
    match schema {
        Value::Object(members) => {
            into.extend(members.get("$ref").and_then(Value::as_str).map(str::to_owned));
            members.values().for_each(|member| references(member, into));
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, into)),
        _ => {}
    }
}

#[test]
fn every_entry_has_an_operation() {
    let tools: Vec<&str> = catalogue().tools().iter().map(|tool| tool.entry.name).collect();
    assert_eq!(tools, ENTRIES.each_ref().map(|entry| entry.name));
    let aliases = ENTRIES.iter().filter(|entry| !entry.alias.is_empty());
    assert_eq!(aliases.clone().count(), 10);
    for entry in aliases {
        assert_eq!(catalogue().find(entry.alias).unwrap().entry.name, entry.name);
    }
    assert!(catalogue().find("").is_none() && catalogue().find("haldir_mint_key").is_none());
}

#[test]
fn every_schema_stands_alone() {
    for tool in catalogue().tools() {
        for face in [Face::Http, Face::Stdio] {
            let listed = tool.listed(face);
            let output = listed.output_schema.clone().unwrap();
            for schema in [&listed.input_schema, &output] {
                assert_eq!(schema["type"], "object", "{}", tool.entry.name);
                let schema = Value::Object((**schema).clone());
                let mut found = BTreeSet::new();
                references(&schema, &mut found);
                for reference in found {
                    let name = reference.strip_prefix("#/$defs/").unwrap_or_else(|| panic!("{reference}"));
                    assert!(schema["$defs"][name].is_object(), "{}: {reference}", tool.entry.name);
                }
            }
            let has_answer = output.contains_key("properties") || output.contains_key("anyOf");
            assert!(has_answer, "{} answers nothing", tool.entry.name);
            for (name, schema) in listed.input_schema["properties"].as_object().unwrap() {
                assert!(schema["description"].is_string(), "{}: {name} is not described", tool.entry.name);
            }
        }
    }
}

#[test]
fn only_a_denied_payment_has_a_form_of_its_own() {
    let several = catalogue().tools().iter().filter(|tool| tool.operation.output.contains_key("anyOf"));
    let several: Vec<&str> = several.map(|tool| tool.entry.name).collect();
    assert_eq!(several, ["haldir_authorize_payment"]);
    let output = &catalogue().find("haldir_authorize_payment").unwrap().operation.output;
    let forms: BTreeSet<&str> =
        output["anyOf"].as_array().unwrap().iter().filter_map(|it| it["$ref"].as_str()).collect();
    assert_eq!(forms, BTreeSet::from(["#/$defs/AuthorizedPayment", "#/$defs/DeniedPayment"]));
}

#[test]
fn required_arguments_are_those_of_the_contract() {
    for (tool, required) in [
        ("haldir_create_session", "agent_id"),
        ("haldir_get_session", "session_id"),
        ("haldir_check_permission", "scope session_id"),
        ("haldir_revoke_session", "session_id"),
        ("haldir_store_secret", "name value"),
        ("haldir_get_secret", "name session_id"),
        ("haldir_list_secrets", ""),
        ("haldir_log_audit_action", "action session_id tool"),
        ("haldir_query_audit_trail", ""),
        ("haldir_get_spend", ""),
        ("haldir_verify_audit_chain", ""),
        ("haldir_get_tree_head", ""),
        ("haldir_get_inclusion_proof", "entry_id"),
        ("haldir_get_consistency_proof", "first second"),
        ("haldir_request_approval", "action reason session_id"),
        ("haldir_get_approval_status", ""),
        ("haldir_compliance_score", ""),
        ("haldir_build_evidence_pack", ""),
        ("haldir_authorize_payment", "amount session_id"),
    ] {
        let schema = &catalogue().find(tool).unwrap().listed(Face::Stdio).input_schema;
        let found = schema.get("required").and_then(Value::as_array).into_iter().flatten();
        let found: Vec<&str> = found.filter_map(Value::as_str).collect();
        assert_eq!(found.join(" "), required, "{tool}");
    }
    let properties = |tool: &str| {
        let schema = &catalogue().find(tool).unwrap().listed(Face::Http).input_schema;
        schema["properties"].as_object().unwrap().keys().cloned().collect::<BTreeSet<String>>()
    };
    for (tool, arguments) in [
        ("haldir_create_session", "agent_id scopes spend_limit ttl parent_session_id idempotency_key"),
        ("haldir_query_audit_trail", "agent_id session_id tool flagged limit as_of"),
        ("haldir_get_approval_status", "request_id approval_id wait as_of"),
        ("haldir_build_evidence_pack", "since until as_of"),
        ("haldir_get_secret", "name session_id version"),
    ] {
        assert_eq!(properties(tool), arguments.split(' ').map(str::to_owned).collect(), "{tool}");
    }
}
