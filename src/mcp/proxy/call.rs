//! A call: decided about, maybe approved by a human, run, and answered.

use rmcp::RoleServer;
use rmcp::model::{ErrorData, InputRequiredResult, LoggingLevel};
use rmcp::service::RequestContext;
use serde_json::{Value, json};

use super::approval::{self, Next};
use super::asked::{Asked, Brought};
use super::held::{HeldCalls, Owner, Running};
use super::lists::{whose_prompt, whose_resource};
use super::names::with_outer_uris;
use super::reach::Own;
use super::run::{Ended, Run};
use super::tasks::Tasks;
use super::visit::{Visit, refused};
use crate::domain::calls::{CallDenial, Method};
use crate::domain::id::ApprovalId;
use crate::http::proxy::{blocked, waiting};
use crate::operations::OperationError;
use crate::operations::calls::{Begun, CallAnswer, CallRequest, DeniedCall, Intent, begin};

/// What a client gets.
pub(super) enum Reply {
    /// A result of what was asked.
    Result(Value),
    /// The client has to answer something first.
    Wants(Box<InputRequiredResult>),
}

/// A call of a client.
pub(super) struct Call<'a> {
    pub(super) visit: &'a Visit,
    pub(super) held: &'a HeldCalls,
    pub(super) tasks: &'a Tasks,
    /// Below which the client wants no log messages.
    pub(super) level: Option<LoggingLevel>,
    /// Makes what stands behind a connection of the client's own, if it can be asked at any time.
    pub(super) own: Own<'a>,
}

impl Call<'_> {
    /// Carries it out.
    ///
    /// # Errors
    ///
    /// An error of the protocol: the upstream's own, or one of ours about the request.
    pub(super) async fn make(
        &self,
        asked: Asked,
        brought: Brought,
        context: &RequestContext<RoleServer>,
    ) -> Result<Reply, ErrorData> {
        let mut fresh = Brought::default();
        let next = match brought.state {
            Some(state) if HeldCalls::is_state(&state) => {
                let responses = brought.responses.unwrap_or_default();
                let running = self.held.resume(&state, &self.owner(&asked), responses)?;
                running.outlet.set(Some((self.visit.peer.clone(), self.visit.meta.get_progress_token())));
                return self.follow(running, asked, context).await;
            }
            Some(state) if approval::is_state(&state) => {
                Some(approval::resume(self.visit, &state, brought.responses).await?)
            }
            Some(_) => return Err(ErrorData::invalid_params("requestState: it was not given here", None)),
            None => {
                fresh.responses = brought.responses;
                None
            }
        };
        let approval_id = match next {
            Some(Next::Again(id)) => id,
            Some(Next::Ask(wants)) => return Ok(Reply::Wants(wants)),
            Some(Next::GiveUp) | None => None,
        };
        self.decide(asked, fresh, approval_id, context).await
    }

    /// Has the call decided about, a second time when it was approved meanwhile.
    async fn decide(
        &self,
        asked: Asked,
        brought: Brought,
        approval_id: Option<ApprovalId>,
        context: &RequestContext<RoleServer>,
    ) -> Result<Reply, ErrorData> {
        let mut request = self.request(&asked).await?;
        request.approval_id = approval_id.map(|id| id.to_string());
        let denied = match self.begin(request.clone()).await? {
            Ok(intent) => return self.run(asked, brought, intent, context).await,
            Err(Denied::For(denied)) => denied,
            Err(Denied::Session) => {
                return self.tell(&asked, "the session does not exist, was revoked or has expired");
            }
        };
        if denied.reason != CallDenial::ApprovalRequired {
            return self.tell(&asked, &denied.sentence);
        }
        let next = tokio::select! {
            next = approval::settle(self.visit, &denied) => next?,
            () = context.ct.cancelled() => Next::GiveUp,
        };
        match next {
            Next::Ask(wants) => Ok(Reply::Wants(wants)),
            Next::GiveUp => Ok(self.waits(&asked, &denied)?),
            Next::Again(id) => {
                request.approval_id = id.map(|id| id.to_string());
                match self.begin(request).await? {
                    Ok(intent) => self.run(asked, brought, intent, context).await,
                    Err(Denied::For(denied)) if denied.reason == CallDenial::ApprovalRequired => {
                        self.waits(&asked, &denied)
                    }
                    Err(Denied::For(denied)) => self.tell(&asked, &denied.sentence),
                    Err(Denied::Session) => self.tell(&asked, "the session ended while the call waited"),
                }
            }
        }
    }

    async fn begin(&self, request: CallRequest) -> Result<Result<Box<Intent>, Denied>, ErrorData> {
        match begin(&self.visit.app, &self.visit.caller, request, None).await {
            Ok(Begun::Forward(intent)) => Ok(Ok(intent)),
            Ok(Begun::Denied(denied) | Begun::Before(CallAnswer::Denied(denied))) => {
                Ok(Err(Denied::For(denied)))
            }
            Ok(Begun::Before(_)) => Err(super::visit::internal("a call without a key was told twice")),
            Err(OperationError::SessionDead) => Ok(Err(Denied::Session)),
            Err(error) => Err(refused(&error)),
        }
    }

    /// What is asked, with the upstream as far as it is known.
    async fn request(&self, asked: &Asked) -> Result<CallRequest, ErrorData> {
        let visit = self.visit;
        let unknown = |what: &str| ErrorData::invalid_params(format!("there is no such {what}"), None);
        let (upstream, name) = match asked.method {
            Method::Tool => (visit.only.clone(), asked.name.clone()),
            Method::Resource => {
                let (upstream, uri) =
                    whose_resource(visit, &asked.name).ok_or_else(|| unknown("resource"))?;
                (Some(upstream), uri)
            }
            Method::Prompt => {
                let found = whose_prompt(visit, &asked.name, self.own).await?;
                let (upstream, name) = found.ok_or_else(|| unknown("prompt"))?;
                (Some(upstream), name)
            }
        };
        Ok(CallRequest {
            session_id: visit.session_id.clone(),
            method: asked.method,
            upstream: upstream.map(|upstream| upstream.to_string()),
            name,
            arguments: asked.arguments.clone().unwrap_or_default(),
            approval_id: None,
        })
    }

    async fn run(
        &self,
        asked: Asked,
        brought: Brought,
        intent: Box<Intent>,
        context: &RequestContext<RoleServer>,
    ) -> Result<Reply, ErrorData> {
        let visit = self.visit;
        let own = (self.own)(&intent.upstream);
        let run = Run::new(visit, intent, asked.clone(), brought, own);
        if visit.is_stateless && visit.can_be_asked() {
            return self.follow(run.elsewhere(visit, self.level), asked, context).await;
        }
        let ended = run.here(visit, self.level, context.ct.cancelled()).await;
        self.told(ended, &asked)
    }

    /// Waits for a call that runs on a task of its own, until it ends or its client has to answer something.
    async fn follow(
        &self,
        mut running: Running,
        asked: Asked,
        context: &RequestContext<RoleServer>,
    ) -> Result<Reply, ErrorData> {
        tokio::select! {
            biased;
            Some(round) = running.rounds.recv() => {
                let random = self.visit.app.ledger.random().bytes();
                let (requests, state) = self.held.hold(running, round, self.owner(&asked), random)?;
                Ok(Reply::Wants(Box::new(InputRequiredResult::new(Some(requests), Some(state)))))
            }
            ended = &mut running.task => {
                let lost = |_| super::visit::internal("the call was lost");
                self.told(ended.map_err(lost)?, &asked)
            }
            () = context.ct.cancelled() => {
                drop(running);
                self.tell(&asked, "the call was cancelled")
            }
        }
    }

    fn owner(&self, asked: &Asked) -> Owner {
        let Visit { caller, session_id, .. } = self.visit;
        Owner {
            tenant: caller.tenant.clone(),
            prefix: caller.prefix.clone(),
            session_id: session_id.clone(),
            asked: asked.digest(),
        }
    }

    fn told(&self, ended: Ended, asked: &Asked) -> Result<Reply, ErrorData> {
        match ended {
            Ended::Result(result, upstream, secrets) => {
                self.tasks.remember(self.visit, &upstream, &result, secrets);
                let is_of_all = self.visit.only.is_none();
                Ok(Reply::Result(if is_of_all { with_outer_uris(result, &upstream) } else { result }))
            }
            Ended::Failed(why) => self.tell(asked, &why),
            Ended::Error(error) => Err(error),
        }
    }

    /// Says that nothing came of it: within the result of a tool, or as an error.
    #[expect(clippy::unused_self, reason = "reads as the others")]
    fn tell(&self, asked: &Asked, why: &str) -> Result<Reply, ErrorData> {
        match asked.method {
            Method::Tool => Ok(Reply::Result(blocked(why))),
            Method::Resource | Method::Prompt => {
                Err(ErrorData::invalid_request(why.to_owned(), Some(json!({"blocked_by": "haldir"}))))
            }
        }
    }

    /// Says that it waits for an approval.
    fn waits(&self, asked: &Asked, denied: &DeniedCall) -> Result<Reply, ErrorData> {
        match asked.method {
            Method::Tool => Ok(Reply::Result(waiting(denied))),
            Method::Resource | Method::Prompt => self.tell(asked, &denied.sentence),
        }
    }
}

enum Denied {
    /// For a reason that is on record.
    For(DeniedCall),
    /// The session is dead.
    Session,
}
