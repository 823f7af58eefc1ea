//! Tools and results as JSON, for those who do not speak the protocol themselves.

use rmcp::model::{CallToolRequestParams, CallToolResponse, Tool};
use serde::Serialize;
use serde_json::{Map, Value};

use super::connection::Connection;
use super::failure::CallError;
use super::relay::Talk;

/// What an upstream says of a tool.
#[derive(Debug, Clone, PartialEq)]
pub struct Definition {
    /// Its name.
    pub name: String,
    /// All of it, but for metadata that is not part of what a model is told.
    pub json: Value,
}

impl Definition {
    fn of(tool: &Tool) -> Result<Self, CallError> {
        let mut json = as_json(tool)?;
        if let Some(fields) = json.as_object_mut() {
            fields.remove("_meta");
        }
        Ok(Self { name: tool.name.to_string(), json })
    }
}

impl Connection {
    /// All tools of the upstream, as it defines them now.
    ///
    /// # Errors
    ///
    /// As [`Connection::tools`].
    pub async fn definitions(&self) -> Result<Vec<Definition>, CallError> {
        self.tools().await?.iter().map(Definition::of).collect()
    }

    /// Calls a tool for somebody who cannot be asked anything. Dropped before it is done, it cancels the call.
    ///
    /// # Errors
    ///
    /// As [`Connection::call`].
    pub async fn result_of(&self, name: &str, arguments: Map<String, Value>) -> Result<Value, CallError> {
        let params = CallToolRequestParams::new(name.to_owned()).with_arguments(arguments);
        match self.call(params, Talk::default()).await? {
            CallToolResponse::Complete(result) => as_json(&result),
            CallToolResponse::InputRequired(_) | CallToolResponse::Task(_) => {
                Err(CallError::Malformed("it asks back, and there is nobody to answer".to_owned()))
            }
            _ => Err(CallError::Malformed("it is no result of a tool".to_owned())),
        }
    }
}

/// A value of the protocol as JSON.
///
/// # Errors
///
/// [`CallError::Malformed`], when it has none.
pub fn as_json(value: &impl Serialize) -> Result<Value, CallError> {
    serde_json::to_value(value).map_err(|error| CallError::Malformed(error.to_string()))
}
