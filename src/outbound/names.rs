//! From a host to the addresses that may be asked.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use futures_util::future::BoxFuture;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::guard::{Unsafe, is_public};

/// Looks names up.
pub trait Names: Send + Sync {
    /// The addresses of a host, without order; empty when it has none or nobody can tell.
    fn look_up<'a>(&'a self, host: &'a str) -> BoxFuture<'a, Vec<IpAddr>>;
}

/// Looks names up as the operating system does.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemNames;

impl Names for SystemNames {
    fn look_up<'a>(&'a self, host: &'a str) -> BoxFuture<'a, Vec<IpAddr>> {
        Box::pin(async move {
            let found = tokio::net::lookup_host((host, 0)).await;
            let addresses = found.into_iter().flatten().map(|address| address.ip());
            addresses.collect::<BTreeSet<_>>().into_iter().collect()
        })
    }
}

/// Names, and only those whose every address may be asked.
#[derive(Clone)]
pub struct GuardedNames {
    names: Arc<dyn Names>,
    allows_private: bool,
}

impl GuardedNames {
    /// Lets through only public addresses, unless private ones are allowed.
    #[must_use]
    pub fn new(names: Arc<dyn Names>, allows_private: bool) -> Self {
        Self { names, allows_private }
    }

    /// The addresses of a host, all of which may be asked.
    ///
    /// # Errors
    ///
    /// [`Unsafe::Unresolved`] or [`Unsafe::Private`].
    pub async fn look_up(&self, host: &str) -> Result<Vec<IpAddr>, Unsafe> {
        let addresses = self.names.look_up(host).await;
        if addresses.is_empty() {
            return Err(Unsafe::Unresolved);
        }
        addresses.iter().try_for_each(|address| self.check(*address))?;
        Ok(addresses)
    }

    /// Whether an address may be asked.
    ///
    /// # Errors
    ///
    /// [`Unsafe::Private`].
    pub fn check(&self, address: IpAddr) -> Result<(), Unsafe> {
        if self.allows_private || is_public(address) { Ok(()) } else { Err(Unsafe::Private) }
    }

    /// Whether private addresses may be asked too.
    #[must_use]
    pub const fn allows_private(&self) -> bool {
        self.allows_private
    }
}

impl Resolve for GuardedNames {
    /// What the connector connects to: it sees no address that was not checked here.
    fn resolve(&self, name: Name) -> Resolving {
        let names = self.clone();
        Box::pin(async move {
            let addresses = names.look_up(name.as_str()).await?;
            Ok(Box::new(addresses.into_iter().map(|address| SocketAddr::new(address, 0))) as Addrs)
        })
    }
}
