//! Links to requests for approvals, to be sent to those who decide. Whoever has one may decide about that request.

use data_encoding::BASE64URL_NOPAD;
use subtle::ConstantTimeEq as _;

use super::App;
use crate::domain::id::{ApprovalId, TenantId};

/// A link that was checked: whoever has it may decide about one request.
#[derive(Debug, Clone)]
pub struct Link {
    /// Whose request.
    pub tenant: TenantId,
    /// Which request.
    pub id: ApprovalId,
}

impl Link {
    /// The link to a request, to be sent to those who decide.
    ///
    /// It leads to a page that asks once more, because programs that look at messages follow links. It is good until the
    /// request is decided or has expired.
    #[must_use]
    pub fn url(app: &App, tenant: &TenantId, id: &ApprovalId) -> String {
        let base = app.public_url.get().map_or("", String::as_str);
        let mac = BASE64URL_NOPAD.encode(&app.retry_secret.link_mac(tenant.as_str(), id.as_str()));
        format!("{base}/approvals/{id}?token={tenant}.{mac}")
    }

    /// Checks the token of a link; `None` when it is not one of ours.
    #[must_use]
    pub fn check(app: &App, id: &str, token: &str) -> Option<Self> {
        let (tenant, mac) = token.split_once('.')?;
        let (tenant, id) = (TenantId::parse(tenant)?, ApprovalId::parse(id)?);
        let mac = BASE64URL_NOPAD.decode(mac.as_bytes()).ok()?;
        let expected = app.retry_secret.link_mac(tenant.as_str(), id.as_str());
        bool::from(expected.ct_eq(&mac)).then_some(Self { tenant, id })
    }
}
