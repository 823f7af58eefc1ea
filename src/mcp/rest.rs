//! What tools and resources come down to: requests to the REST edge, wherever it is.

use serde_json::Value;

use crate::operations::Caller;

/// A request to the REST edge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Its method.
    pub method: &'static str,
    /// The path with its query string.
    pub path: String,
    /// Headers, other than those that every request has.
    pub headers: Vec<(&'static str, String)>,
    /// The JSON body, if it has one.
    pub body: Option<String>,
}

impl Request {
    /// Asks for what is at a path.
    #[must_use]
    pub fn get(path: impl Into<String>) -> Self {
        Self { method: "GET", path: path.into(), headers: Vec::new(), body: None }
    }
}

/// An answer of the REST edge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its body.
    pub body: String,
}

impl Answer {
    /// Whether it was done.
    #[must_use]
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The body if it is a JSON object.
    #[must_use]
    pub fn object(&self) -> Option<Value> {
        serde_json::from_str(&self.body).ok().filter(Value::is_object)
    }

    /// What an answer that says no has to say, as a sentence.
    #[must_use]
    pub fn complaint(&self) -> String {
        let body = self.object().unwrap_or_default();
        let said = ["error", "reason"].into_iter().find_map(|name| body[name].as_str());
        said.map_or_else(|| format!("the server answered {}", self.status), str::to_owned)
    }
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What kind of failure, for programs: `connect_error`, `timeout`, `config_error`.
    pub kind: &'static str,
    /// What happened, for people.
    pub message: String,
    /// What else is known, by name.
    pub more: Vec<(&'static str, String)>,
}

/// Where the REST edge is.
pub trait Backend: Send + Sync + 'static {
    /// Asks it. The caller is whoever the request that led here came from, where it came with a key.
    fn ask(
        &self,
        request: Request,
        caller: Option<Caller>,
    ) -> impl Future<Output = Result<Answer, Failure>> + Send;
}
