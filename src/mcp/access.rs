//! From where an endpoint may be called: which names it answers to, and which web pages may reach it.
//!
//! A page on the Internet can make its own name lead to this machine. Its requests then carry that name, and are refused.
//! An address in place of a name cannot be made to lead elsewhere, so it needs no list.

use std::net::{IpAddr, SocketAddr};

/// Names of this machine to itself, with which local clients always come.
const LOOPBACK: [&str; 3] = ["localhost", "127.0.0.1", "::1"];
/// Pages of tools that run on the user's own machine, on any port.
const LOCAL_PAGES: [&str; 3] = ["http://localhost:*", "http://127.0.0.1:*", "http://[::1]:*"];

/// Where an endpoint is known.
#[derive(Debug, Clone)]
pub struct Access {
    hosts: Vec<String>,
    origins: Vec<String>,
    is_beyond_loopback: bool,
}

impl Access {
    /// Of a server that listens on this address, is known by this URL, and answers to these further names.
    #[must_use]
    pub fn new(listens_on: SocketAddr, public_url: Option<&str>, names: &[String]) -> Self {
        let mut access = Self::loopback();
        access.is_beyond_loopback = !listens_on.ip().is_loopback();
        access.hosts.extend(names.iter().cloned());
        let public = public_url.and_then(|url| url.parse::<http::Uri>().ok());
        if let Some((scheme, authority)) = public.as_ref().and_then(|uri| uri.scheme().zip(uri.authority())) {
            let port = authority.port_u16().unwrap_or(if scheme.as_str() == "https" { 443 } else { 80 });
            access.hosts.push(authority.host().to_owned());
            access.origins.push(format!("{scheme}://{}:{port}", authority.host()));
        }
        access
    }

    /// Of a server for this machine alone.
    #[must_use]
    pub fn loopback() -> Self {
        Self {
            hosts: LOOPBACK.map(str::to_owned).to_vec(),
            origins: LOCAL_PAGES.map(str::to_owned).to_vec(),
            is_beyond_loopback: false,
        }
    }

    /// The names that it answers to.
    pub(super) fn hosts(&self) -> &[String] {
        &self.hosts
    }

    /// The pages that may reach it.
    pub(super) fn origins(&self) -> &[String] {
        &self.origins
    }

    /// The address that a `Host` header consists of, if that is enough to be let in.
    pub(super) fn address_in(&self, host: &str) -> Option<IpAddr> {
        let host = host.parse::<http::uri::Authority>().ok()?;
        let address = host.host().trim_start_matches('[').trim_end_matches(']');
        address.parse().ok().filter(|_| self.is_beyond_loopback)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listening(on: &str, public_url: Option<&str>) -> Access {
        Access::new(on.parse().unwrap(), public_url, &["haldir.internal".to_owned()])
    }

    #[test]
    fn a_server_answers_to_its_own_names_alone() {
        let access = listening("127.0.0.1:8000", Some("https://governance.example.com"));
        let hosts = ["localhost", "127.0.0.1", "::1", "haldir.internal", "governance.example.com"];
        assert_eq!(access.hosts(), hosts);
        assert_eq!(access.origins()[3..], ["https://governance.example.com:443"]);
        assert_eq!(listening("127.0.0.1:8000", Some("nonsense")).origins().len(), 3);
    }

    #[test]
    fn an_address_is_no_name_where_others_can_reach_the_server() {
        let everywhere = listening("0.0.0.0:8000", None);
        assert_eq!(everywhere.address_in("192.168.1.5:8000"), "192.168.1.5".parse().ok());
        assert_eq!(everywhere.address_in("[fd00::5]:8000"), "fd00::5".parse().ok());
        assert_eq!(everywhere.address_in("evil.example.com"), None);
        assert_eq!(everywhere.address_in("192.168.1.5.evil.example.com"), None);
        assert_eq!(listening("127.0.0.1:8000", None).address_in("192.168.1.5:8000"), None);
    }
}
