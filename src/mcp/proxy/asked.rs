//! What a client may ask that is decided about and recorded: a tool, a resource, a prompt.

use rmcp::model::{
    CallToolRequestParams, CallToolResponse, ClientRequest, GetPromptRequest, GetPromptRequestParams,
    InputRequiredResult, InputResponses, JsonObject, ReadResourceRequest, ReadResourceRequestParams,
    ServerResult,
};
use serde_json::{Value, json};

use crate::domain::calls::Method;
use crate::operations::calls::Intent;
use crate::proxy::connection::Connection;
use crate::proxy::definitions::as_json;
use crate::proxy::failure::CallError;
use crate::proxy::relay::Talk;

/// What is asked.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) method: Method,
    /// The name or address, as the client has it.
    pub(super) name: String,
    pub(super) arguments: Option<JsonObject>,
}

/// What a client of the newer generation brings along when it was asked something before.
#[derive(Debug, Default)]
pub(super) struct Brought {
    pub(super) responses: Option<InputResponses>,
    pub(super) state: Option<String>,
}

/// What an upstream answers.
pub(super) enum Answered {
    /// The result.
    Result(Value),
    /// What it wants to know first.
    Wants(InputRequiredResult),
}

impl Asked {
    pub(super) fn tool(params: CallToolRequestParams) -> (Self, Brought) {
        let CallToolRequestParams { name, arguments, input_responses, request_state, .. } = params;
        let asked = Self { method: Method::Tool, name: name.into_owned(), arguments };
        (asked, Brought { responses: input_responses, state: request_state })
    }

    pub(super) fn resource(params: ReadResourceRequestParams) -> (Self, Brought) {
        let ReadResourceRequestParams { uri, input_responses, request_state, .. } = params;
        let asked = Self { method: Method::Resource, name: uri, arguments: None };
        (asked, Brought { responses: input_responses, state: request_state })
    }

    pub(super) fn prompt(params: GetPromptRequestParams) -> (Self, Brought) {
        let GetPromptRequestParams { name, arguments, input_responses, request_state, .. } = params;
        let asked = Self { method: Method::Prompt, name, arguments };
        (asked, Brought { responses: input_responses, state: request_state })
    }

    /// Tells apart what is asked.
    pub(super) fn digest(&self) -> [u8; 32] {
        let method = match self.method {
            Method::Tool => "tool",
            Method::Resource => "resource",
            Method::Prompt => "prompt",
        };
        *blake3::hash(json!([method, self.name, self.arguments]).to_string().as_bytes()).as_bytes()
    }

    /// Asks the upstream.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub(super) async fn of(
        &self,
        connection: &Connection,
        intent: &Intent,
        brought: Brought,
        talk: Talk<'_>,
    ) -> Result<Answered, CallError> {
        let arguments = self.arguments.as_ref().map(|_| intent.arguments.clone());
        match self.method {
            Method::Tool => {
                let mut params = CallToolRequestParams::new(intent.name.clone());
                params.arguments = arguments;
                params.input_responses = brought.responses;
                params.request_state = brought.state;
                match connection.call(params, talk).await? {
                    CallToolResponse::Complete(result) => as_json(&result).map(Answered::Result),
                    CallToolResponse::Task(task) => as_json(&task).map(Answered::Result),
                    CallToolResponse::InputRequired(wants) => Ok(Answered::Wants(wants)),
                    _ => Err(unreadable()),
                }
            }
            Method::Resource => {
                let mut params = ReadResourceRequestParams::new(intent.name.clone());
                params.input_responses = brought.responses;
                params.request_state = brought.state;
                let request = ClientRequest::ReadResourceRequest(ReadResourceRequest::new(params));
                match connection.ask(request, talk).await? {
                    ServerResult::ReadResourceResult(result) => as_json(&result).map(Answered::Result),
                    ServerResult::InputRequiredResult(wants) => Ok(Answered::Wants(wants)),
                    _ => Err(unreadable()),
                }
            }
            Method::Prompt => {
                let mut params = GetPromptRequestParams::new(intent.name.clone());
                params.arguments = arguments;
                params.input_responses = brought.responses;
                params.request_state = brought.state;
                let request = ClientRequest::GetPromptRequest(GetPromptRequest::new(params));
                match connection.ask(request, talk).await? {
                    ServerResult::GetPromptResult(result) => as_json(&result).map(Answered::Result),
                    ServerResult::InputRequiredResult(wants) => Ok(Answered::Wants(wants)),
                    _ => Err(unreadable()),
                }
            }
        }
    }
}

fn unreadable() -> CallError {
    CallError::Malformed("it is no result of what was asked".to_owned())
}
