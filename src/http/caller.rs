//! Who calls, and with which right. A handler that takes `Authorized<AuditRead>` cannot be reached without it.

use std::future::{Ready, ready};
use std::marker::PhantomData;
use std::ops::Deref;

use actix_web::dev::Payload;
use actix_web::{FromRequest, HttpMessage as _, HttpRequest};

use super::error::ApiError;
use crate::operations::{Caller, OperationError};

/// A scope that a key must hold.
pub trait Right {
    /// Its name.
    const SCOPE: &'static str;
}

/// Declares rights.
macro_rules! rights {
    ($($(#[$doc:meta])* $name:ident = $scope:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Debug)]
        pub enum $name {}

        impl Right for $name {
            const SCOPE: &'static str = $scope;
        }
    )*};
}

rights! {
    /// Reading keys and usage.
    AdminRead = "admin:read";
    /// Changing keys.
    AdminWrite = "admin:write";
    /// Reading sessions.
    SessionsRead = "sessions:read";
    /// Opening and ending sessions.
    SessionsWrite = "sessions:write";
    /// Reading requests for approvals, and the rules about them.
    ApprovalsRead = "approvals:read";
    /// Asking for approvals, deciding about them, and changing the rules.
    ApprovalsWrite = "approvals:write";
    /// Reading budgets.
    PaymentsRead = "payments:read";
    /// Authorising payments.
    PaymentsWrite = "payments:write";
    /// Reading secrets through sessions, and listing them.
    VaultRead = "vault:read";
    /// Storing and erasing secrets.
    VaultWrite = "vault:write";
    /// Wrapping secrets under another master key.
    VaultRotate = "vault:rotate";
    /// Reading the audit trail and the ledger.
    AuditRead = "audit:read";
    /// Logging actions.
    AuditWrite = "audit:write";
    /// Reading upstreams, tools and policies.
    ProxyRead = "proxy:read";
    /// Changing upstreams and policies, and calling tools.
    ProxyWrite = "proxy:write";
    /// Reading webhooks and deliveries.
    WebhooksRead = "webhooks:read";
    /// Changing webhooks.
    WebhooksWrite = "webhooks:write";
}

/// The standing of the key that a request presented, as [`super::edge`] found it.
#[derive(Debug, Clone)]
pub enum Presented {
    /// None.
    Nothing,
    /// One that is unknown or revoked.
    Unknown,
    /// An active one.
    Key(Caller),
}

/// A caller whose key holds a right.
#[derive(Debug)]
pub struct Authorized<R> {
    caller: Caller,
    right: PhantomData<R>,
}

impl<R> Deref for Authorized<R> {
    type Target = Caller;

    fn deref(&self) -> &Caller {
        &self.caller
    }
}

impl<R> Authorized<R> {
    /// The caller, for what goes on when the request is over.
    #[must_use]
    pub fn to_owned(&self) -> Caller {
        self.caller.clone()
    }
}

impl<R: Right + 'static> FromRequest for Authorized<R> {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(authorize::<R>(request))
    }
}

/// A caller with an active key, or without one, where keyless callers may have another way to identify themselves. A key
/// that is not active is turned away before the body is read.
#[derive(Debug)]
pub struct KeyIfAny(pub Option<Caller>);

impl FromRequest for KeyIfAny {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(match presented(request) {
            Presented::Nothing => Ok(Self(None)),
            Presented::Unknown => Err(unknown_key()),
            Presented::Key(caller) => Ok(Self(Some(caller))),
        })
    }
}

/// A caller with an active key, whatever its scopes, where these are checked further inside.
#[derive(Debug)]
pub struct AnyKey(pub Caller);

impl FromRequest for AnyKey {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(active(request).map(Self))
    }
}

fn unknown_key() -> ApiError {
    OperationError::Unauthenticated("unknown or revoked API key").into()
}

fn active(request: &HttpRequest) -> Result<Caller, ApiError> {
    match presented(request) {
        Presented::Nothing => Err(OperationError::Unauthenticated("an API key is required").into()),
        Presented::Unknown => Err(unknown_key()),
        Presented::Key(caller) => Ok(caller),
    }
}

fn authorize<R: Right>(request: &HttpRequest) -> Result<Authorized<R>, ApiError> {
    let caller = active(request)?;
    if !caller.scopes.grants(R::SCOPE) {
        let granted = caller.scopes.as_slice().to_vec();
        return Err(OperationError::InsufficientScope { required: R::SCOPE.to_owned(), granted }.into());
    }
    Ok(Authorized { caller, right: PhantomData })
}

/// The standing of the key that a request presented.
fn presented(request: &HttpRequest) -> Presented {
    request.extensions().get::<Presented>().cloned().unwrap_or(Presented::Nothing)
}
