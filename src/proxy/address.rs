//! Where an upstream is, and which connection to it is meant.

use std::fmt;

use zeroize::Zeroizing;

use crate::domain::id::TenantId;

/// A name and a value that may be secret, of a header or of the environment.
pub type Pair = (String, Zeroizing<String>);

/// Where an upstream is and how to speak to it. Secrets are already in their places.
pub enum Address {
    /// Over HTTP.
    Http {
        /// The URL that messages are posted to.
        url: String,
        /// Headers of every request.
        headers: Vec<Pair>,
    },
    /// With a child process, over its standard input and output.
    Stdio {
        /// The command: a path, or a name that is looked for in the path.
        command: String,
        /// Its arguments.
        args: Vec<String>,
        /// What its environment has beside the path, the home directory and the language.
        env: Vec<Pair>,
    },
}

/// Tells addresses apart, without keeping what is secret in them.
pub(super) type Digest = [u8; blake3::OUT_LEN];

impl Address {
    /// The digest under a key of this process.
    pub(super) fn digest(&self, key: &Digest) -> Digest {
        let mut hasher = blake3::Hasher::new_keyed(key);
        let mut add = |text: &str| {
            hasher.update(&text.len().to_le_bytes()).update(text.as_bytes());
        };
        let (what, args, pairs) = match self {
            Self::Http { url, headers } => {
                add("http");
                (url, &[][..], headers)
            }
            Self::Stdio { command, args, env } => {
                add("stdio");
                (command, &args[..], env)
            }
        };
        add(what);
        add(&args.len().to_string());
        for arg in args {
            add(arg);
        }
        for (name, value) in pairs {
            add(name);
            add(value);
        }
        *hasher.finalize().as_bytes()
    }
}

impl fmt::Debug for Address {
    /// Without what may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http { .. } => f.write_str("Http(concealed)"),
            Self::Stdio { command, .. } => write!(f, "Stdio({command}, concealed)"),
        }
    }
}

/// Which connection.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Line {
    /// Whose upstream it is.
    pub tenant: TenantId,
    /// Its name.
    pub upstream: String,
    /// Whose connection: a session whose secrets are in it, or a client that the upstream can ask, and after a space the session
    /// that it works in; nobody's alone without.
    pub of: Option<String>,
}

impl Line {
    /// Whether the connection is this one's, in whichever session.
    pub(super) fn belongs_to(&self, whose: &str) -> bool {
        let of = self.of.as_deref().and_then(|of| of.strip_prefix(whose));
        of.is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn http(url: &str, headers: &[(&str, &str)]) -> Address {
        let headers = headers.iter().map(|(name, value)| pair(name, value)).collect();
        Address::Http { url: url.to_owned(), headers }
    }

    fn pair(name: &str, value: &str) -> Pair {
        (name.to_owned(), Zeroizing::new(value.to_owned()))
    }

    #[test]
    fn another_address_or_secret_has_another_digest() {
        let stdio = |command: &str, args: &[&str], env: &[(&str, &str)]| Address::Stdio {
            command: command.to_owned(),
            args: args.iter().map(|&arg| arg.to_owned()).collect(),
            env: env.iter().map(|(name, value)| pair(name, value)).collect(),
        };
        let addresses = [
            http("http://a/", &[]),
            http("http://b/", &[]),
            http("http://a/", &[("x", "1")]),
            http("http://a/", &[("x", "2")]),
            http("http://a/", &[("x1", "")]),
            stdio("http://a/", &[], &[]),
            stdio("a", &["b"], &[]),
            stdio("a", &["b", "c"], &[]),
            stdio("a", &["bc"], &[]),
            stdio("a", &["b"], &[("c", "")]),
            stdio("a", &[], &[("b", "c")]),
        ];
        let digests: Vec<Digest> = addresses.iter().map(|address| address.digest(&[7; 32])).collect();
        for (index, digest) in digests.iter().enumerate() {
            assert_eq!(digests.iter().position(|other| other == digest), Some(index), "{index}");
        }
        assert_ne!(addresses[0].digest(&[8; 32]), digests[0], "the key counts");
        assert_eq!(http("http://a/", &[("x", "1")]).digest(&[7; 32]), digests[2]);
    }

    #[test]
    fn a_connection_belongs_to_its_client_in_every_session() {
        let line = |of: Option<&str>| Line {
            tenant: TenantId::parse("tnt_0123456789abcdef").unwrap(),
            upstream: "up".to_owned(),
            of: of.map(str::to_owned),
        };
        for of in ["a", "a ses_1", "a "] {
            assert!(line(Some(of)).belongs_to("a"), "{of}");
        }
        for of in [Some("ab"), Some("b a"), Some(""), None] {
            assert!(!line(of).belongs_to("a"), "{of:?}");
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let shown = format!("{:?}", http("http://a/?key=hidden", &[("authorization", "hidden")]));
        assert!(!shown.contains("hidden"), "{shown}");
    }
}
