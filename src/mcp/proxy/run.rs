//! Runs a call that is authorised: to the upstream and back, with whatever the two ask each other meanwhile, to its outcome on
//! record.

use std::sync::Arc;
use std::time::Duration;

use rmcp::model::{ErrorCode, ErrorData, LoggingLevel, RequestMetaObject};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;

use super::asked::{Answered, Asked, Brought};
use super::held::Running;
use super::outlet::{CallRelay, ClientRelay, Outlet, Round};
use super::visit::{Visit, refused};
use crate::domain::upstreams::UpstreamName;
use crate::operations::App;
use crate::operations::calls::{CallAnswer, Intent, finish, session_ends};
use crate::operations::forwarding::connect;
use crate::operations::redaction::Secrets;
use crate::proxy::failure::CallError;
use crate::proxy::relay::{Relay, Talk};

/// How often an upstream may ask back within one call.
const ROUND_COUNT_MAX: usize = 10;
/// How long to wait before an upstream is asked again that wants nothing but time.
const ROUND_PAUSE: Duration = Duration::from_millis(500);

/// What became of a call.
pub(super) enum Ended {
    /// The upstream's result, whose it is, and what must be hidden in whatever is heard of it later.
    Result(Value, UpstreamName, Arc<Secrets>),
    /// There is none, and why. Nobody but Haldir and the connection stand behind this.
    Failed(String),
    /// The upstream's own error, or one of ours about what was asked.
    Error(ErrorData),
}

/// An authorised call, and what is asked.
pub(super) struct Run {
    pub(super) app: Arc<App>,
    pub(super) intent: Box<Intent>,
    pub(super) asked: Asked,
    /// What the client answers before it was asked.
    pub(super) brought: Brought,
    pub(super) meta: RequestMetaObject,
    /// Stands behind a connection that the client has for itself.
    pub(super) behind: Option<Arc<dyn Relay>>,
}

impl Run {
    /// An authorised call on the connection that fits its client: one of its own for a client that can be asked and told at any
    /// time, one for those who can be asked the same, or the common one.
    pub(super) fn new(
        visit: &Visit,
        mut intent: Box<Intent>,
        asked: Asked,
        brought: Brought,
        own: Option<(String, ClientRelay)>,
    ) -> Self {
        let behind: Option<Arc<dyn Relay>> = match own {
            Some((client, relay)) => {
                intent.line.of = Some(client);
                Some(Arc::new(relay))
            }
            None => visit.shared(intent.session_id()).map(|(of, hub)| {
                intent.line.of = Some(of);
                hub as Arc<dyn Relay>
            }),
        };
        Self { app: Arc::clone(&visit.app), intent, asked, brought, meta: visit.meta.clone(), behind }
    }

    /// Runs it while its client waits for it.
    pub(super) async fn here(
        self,
        visit: &Visit,
        level: Option<LoggingLevel>,
        cancelled: impl Future<Output = ()>,
    ) -> Ended {
        let relay = self.relay(visit, level, None);
        self.run(&relay, cancelled).await
    }

    /// Runs it on a task of its own, so that it can wait for a client that is not there.
    pub(super) fn elsewhere(self, visit: &Visit, level: Option<LoggingLevel>) -> Running {
        let (sender, rounds) = mpsc::channel::<Round>(1);
        let (wanted, unwanted) = oneshot::channel::<()>();
        let relay = self.relay(visit, level, Some(sender));
        let outlet = Arc::clone(&relay.outlet);
        let app = Arc::clone(&self.app);
        let task = app.upstreams.spawn(async move {
            let cancelled = async {
                let _ = unwanted.await;
            };
            self.run(&relay, cancelled).await
        });
        Running { task, rounds, outlet, _wanted: wanted }
    }

    fn relay(
        &self,
        visit: &Visit,
        level: Option<LoggingLevel>,
        rounds: Option<mpsc::Sender<Round>>,
    ) -> CallRelay {
        CallRelay {
            outlet: Outlet::to(visit.peer.clone(), visit.meta.get_progress_token()),
            capabilities: visit.capabilities.clone(),
            secrets: Arc::clone(&self.intent.secrets),
            level,
            rounds,
        }
    }

    async fn run(mut self, relay: &CallRelay, cancelled: impl Future<Output = ()>) -> Ended {
        let app = Arc::clone(&self.app);
        let (tenant, session_id) = (self.intent.line.tenant.clone(), self.intent.session_id().clone());
        let (ended, why) = tokio::select! {
            ended = self.forward(relay) => (ended, None),
            () = cancelled => (Err(CallError::Cancelled), None),
            () = session_ends(&app, &tenant, &session_id) => {
                (Err(CallError::Cancelled), Some("the session ended while the call was running"))
            }
        };
        let error = ended.as_ref().err().cloned();
        let (secrets, upstream) = (Arc::clone(&self.intent.secrets), self.intent.upstream.clone());
        match finish(self.intent, ended).await {
            Err(error) => Ended::Error(refused(&error)),
            Ok(CallAnswer::Result(result)) => Ended::Result(result, upstream, secrets),
            Ok(CallAnswer::Denied(denied)) => Ended::Failed(denied.sentence),
            Ok(CallAnswer::Failed { reason, .. }) => match error {
                Some(CallError::Refused { code, message, mut data }) => {
                    if let Some(data) = &mut data {
                        secrets.hide_all(data);
                    }
                    Ended::Error(ErrorData::new(ErrorCode(code), secrets.hide(&message), data))
                }
                _ => Ended::Failed(why.map_or(reason, str::to_owned)),
            },
        }
    }

    async fn forward(&mut self, relay: &CallRelay) -> Result<Value, CallError> {
        let connection = connect(&self.app, &mut self.intent, self.behind.take()).await?;
        let mut brought = std::mem::take(&mut self.brought);
        for _ in 0..ROUND_COUNT_MAX {
            let capabilities = Some(relay.capabilities.clone());
            let talk = Talk { relay: Some(relay), capabilities, meta: self.meta.clone() };
            match self.asked.of(&connection, &self.intent, brought, talk).await? {
                Answered::Result(result) => return Ok(result),
                Answered::Wants(wants) => {
                    let responses = if let Some(requests) = wants.input_requests {
                        Some(relay.gather(requests).await?)
                    } else {
                        sleep(ROUND_PAUSE).await;
                        None
                    };
                    brought = Brought { responses, state: wants.request_state };
                }
            }
        }
        Err(CallError::Malformed("it asks back without an end".to_owned()))
    }
}
