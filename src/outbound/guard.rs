//! Which URLs may be asked: none that lead into the machine or the network that Haldir runs in.
//!
//! The address test is "globally routable" by the special-purpose registries of IANA (RFC 6890), with the addresses that
//! carry an IPv4 address inside judged by that one as well.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use reqwest::Url;

use crate::domain::limits::URL_CHARS_MAX;

/// Why a URL is not asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unsafe {
    /// There is nothing.
    #[error("the URL is empty")]
    Empty,
    /// It is longer than any URL should be.
    #[error("the URL has more than {URL_CHARS_MAX} characters")]
    TooLong,
    /// It is no URL, or its port is no port.
    #[error("the URL cannot be parsed")]
    Malformed,
    /// It is neither `http` nor `https`.
    #[error("the URL must begin with http:// or https://")]
    Scheme,
    /// It carries a user name or a password.
    #[error("the URL must not contain a user name or password")]
    Credentials,
    /// It names no host.
    #[error("the URL has no host")]
    Hostless,
    /// Its host has no address.
    #[error("the host of the URL cannot be resolved")]
    Unresolved,
    /// Its host is, or has, an address that is not public.
    #[error("the host of the URL is, or resolves to, an address that is not public")]
    Private,
}

/// What a URL says before any name is looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The URL.
    pub url: Url,
    /// Its host.
    pub host: TargetHost,
}

/// The host of a URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetHost {
    /// A name.
    Name(String),
    /// An address.
    Address(IpAddr),
}

impl Target {
    /// Reads a URL and checks what can be checked without looking a name up, addresses not included.
    ///
    /// # Errors
    ///
    /// The first [`Unsafe`] that holds, in the order of that enum.
    pub fn parse(text: &str) -> Result<Self, Unsafe> {
        let text = text.trim();
        if text.is_empty() {
            return Err(Unsafe::Empty);
        }
        if text.chars().count() > URL_CHARS_MAX {
            return Err(Unsafe::TooLong);
        }
        let url = Url::parse(text).map_err(|_| Unsafe::Malformed)?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(Unsafe::Scheme);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Unsafe::Credentials);
        }
        let host = match url.host_str() {
            None | Some("") => return Err(Unsafe::Hostless),
            // An IPv6 address stands in brackets; IPv4 addresses of any spelling were made canonical by the parser.
            Some(host) => match host.trim_start_matches('[').trim_end_matches(']').parse() {
                Ok(address) => TargetHost::Address(address),
                Err(_) => TargetHost::Name(host.to_owned()),
            },
        };
        Ok(Self { url, host })
    }
}

/// Whether an address is reached over the public internet and over nothing else.
#[must_use]
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

/// Blocks of IPv4 that are not public: first address and prefix length.
const SPECIAL_V4: [(Ipv4Addr, u32); 17] = [
    (Ipv4Addr::UNSPECIFIED, 8),           // this network
    (Ipv4Addr::new(10, 0, 0, 0), 8),      // private
    (Ipv4Addr::new(100, 64, 0, 0), 10),   // carrier-grade NAT
    (Ipv4Addr::new(127, 0, 0, 0), 8),     // loopback
    (Ipv4Addr::new(169, 254, 0, 0), 16),  // link-local, cloud metadata
    (Ipv4Addr::new(172, 16, 0, 0), 12),   // private
    (Ipv4Addr::new(192, 0, 0, 0), 24),    // protocol assignments
    (Ipv4Addr::new(192, 0, 2, 0), 24),    // documentation
    (Ipv4Addr::new(192, 31, 196, 0), 24), // AS112
    (Ipv4Addr::new(192, 52, 193, 0), 24), // multicast tunnels
    (Ipv4Addr::new(192, 88, 99, 0), 24),  // 6to4 relays
    (Ipv4Addr::new(192, 168, 0, 0), 16),  // private
    (Ipv4Addr::new(192, 175, 48, 0), 24), // AS112
    (Ipv4Addr::new(198, 18, 0, 0), 15),   // benchmarks
    (Ipv4Addr::new(198, 51, 100, 0), 24), // documentation
    (Ipv4Addr::new(203, 0, 113, 0), 24),  // documentation
    (Ipv4Addr::new(224, 0, 0, 0), 3),     // multicast, reserved, broadcast
];

fn is_public_v4(address: Ipv4Addr) -> bool {
    let is_in = |(block, len): &(Ipv4Addr, u32)| {
        let mask = u32::MAX << (u32::BITS - len);
        address.to_bits() & mask == block.to_bits()
    };
    // Alibaba's metadata service stands in the carrier-grade block, Oracle's in 192.0.0.0/24: both are covered.
    !SPECIAL_V4.iter().any(is_in)
}

/// Blocks within global unicast (`2000::/3`) that are not public: first address and prefix length.
const SPECIAL_V6: [(Ipv6Addr, u32); 5] = [
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23), // protocol assignments, Teredo and ORCHID among them
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32), // documentation
    (Ipv6Addr::new(0x2620, 0x4f, 0x8000, 0, 0, 0, 0, 0), 48), // AS112
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20), // documentation
    (Ipv6Addr::new(0x3ffe, 0, 0, 0, 0, 0, 0, 0), 16), // the 6bone, given back
];

fn is_public_v6(address: Ipv6Addr) -> bool {
    let [first, second, third, fourth, fifth, sixth, seventh, eighth] = address.segments();
    let v4 = |high: u16, low: u16| Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low));
    // NAT64 (RFC 6052): what is behind the translator is the IPv4 address at the end.
    if [first, second, third, fourth, fifth, sixth] == [0x64, 0xff9b, 0, 0, 0, 0] {
        return is_public_v4(v4(seventh, eighth));
    }
    // 6to4 (RFC 3056) carries its IPv4 address behind the prefix.
    if first == 0x2002 {
        return is_public_v4(v4(second, third));
    }
    // ISATAP (RFC 5214): an interface that is an IPv4 address.
    let is_isatap = fifth & !0x0200 == 0 && sixth == 0x5efe;
    if is_isatap && !is_public_v4(v4(seventh, eighth)) {
        return false;
    }
    let is_in = |(block, len): &(Ipv6Addr, u32)| {
        let mask = u128::MAX << (u128::BITS - len);
        address.to_bits() & mask == block.to_bits()
    };
    // Mapped and compatible IPv4, local translation, unique local, link-local, site-local and multicast are all outside.
    first & 0xe000 == 0x2000 && !SPECIAL_V6.iter().any(is_in)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn public_addresses_are_public() {
        for address in [
            "1.1.1.1",
            "8.8.8.8",
            "93.184.216.34",
            "100.63.255.255",
            "100.128.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.0",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "2606:4700::1111",
            "2a00:1450:4001:80b::200e",
            "2001:200::1",
            "2002:808:808::1",
            "64:ff9b::808:808",
        ] {
            assert!(is_public(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn nothing_else_is() {
        for address in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "100.100.100.200",
            "127.0.0.1",
            "127.255.255.254",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.192",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.7",
            "203.0.113.7",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::7f00:1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::7f00:1",
            "64:ff9b::a00:1",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:2::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "2002:a00:1::1",
            "2002:a9fe:a9fe::",
            "2001:470:1:1:0:5efe:a00:1",
            "2001:470:1:1:200:5efe:7f00:1",
            "3fff::1",
            "5f00::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(!is_public(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn what_no_url_of_ours_may_be_is_refused() {
        for (text, why) in [
            ("", Unsafe::Empty),
            ("  ", Unsafe::Empty),
            ("hello", Unsafe::Malformed),
            ("/path", Unsafe::Malformed),
            ("http://", Unsafe::Malformed),
            ("http://host:99999/", Unsafe::Malformed),
            ("http://[::1", Unsafe::Malformed),
            ("file:///etc/passwd", Unsafe::Scheme),
            ("ftp://example.com/", Unsafe::Scheme),
            ("gopher://example.com/", Unsafe::Scheme),
            ("javascript:alert(1)", Unsafe::Scheme),
            ("https://user:password@example.com/", Unsafe::Credentials),
            ("https://user@example.com/", Unsafe::Credentials),
            ("https://:password@example.com/", Unsafe::Credentials),
        ] {
            assert_eq!(Target::parse(text).unwrap_err(), why, "{text}");
        }
        let long = format!("https://example.com/{}", "a".repeat(URL_CHARS_MAX));
        assert_eq!(Target::parse(&long).unwrap_err(), Unsafe::TooLong);
    }

    #[test]
    fn addresses_are_seen_through_every_spelling() {
        for (text, address) in [
            ("http://127.0.0.1/", "127.0.0.1"),
            ("http://2130706433/", "127.0.0.1"),
            ("http://0x7f000001/", "127.0.0.1"),
            ("http://0177.0.0.1/", "127.0.0.1"),
            ("http://127.1/", "127.0.0.1"),
            ("http://127.0.0.1./", "127.0.0.1"),
            ("http://１２７.0.0.1/", "127.0.0.1"),
            ("http://0.0.0.0:8000/", "0.0.0.0"),
            ("http://[::1]:80/", "::1"),
            ("http://[::ffff:127.0.0.1]/", "::ffff:7f00:1"),
            (" https://[2606:4700::1111]/x ", "2606:4700::1111"),
        ] {
            let address = TargetHost::Address(address.parse().unwrap());
            assert_eq!(Target::parse(text).unwrap().host, address, "{text}");
        }
        let name = Target::parse("https://Example.COM/hook?x=1").unwrap();
        assert_eq!(name.host, TargetHost::Name("example.com".to_owned()));
    }
}
