//! Letters, handed to the operator's own mail server. It is configured and not named by callers, so no address is refused.

use std::time::Duration;

use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::message::{Attachment, Mailbox, MultiPart, SinglePart};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Tls, TlsParameters};
use lettre::{Address, AsyncSmtpTransport, AsyncTransport as _, Message, Tokio1Executor};

/// How long a mail server may take for one step of the conversation.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The port on which mail servers speak TLS from the first byte (RFC 8314).
const PORT_OF_TLS: u16 = 465;

/// Where the mail server is, and how to talk to it.
#[derive(Clone)]
pub struct MailSettings {
    /// Its name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Who logs in, and with what; nobody without.
    pub login: Option<(String, String)>,
    /// Who the letters are from.
    pub from: String,
    /// Whether the conversation must be encrypted.
    pub uses_tls: bool,
}

/// Hands letters to the mail server.
#[derive(Clone)]
pub struct Mailer {
    server: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
}

/// A letter.
#[derive(Debug, Clone)]
pub struct Letter {
    /// To whom, an address.
    pub to: String,
    /// What it is about.
    pub subject: String,
    /// What it says.
    pub text: String,
    /// What a receiver tells it from others by: a letter that is sent twice has one name.
    pub name: String,
    /// Headers of our own.
    pub headers: Vec<(&'static str, String)>,
    /// A file that goes with it: its name, and Markdown.
    pub document: (String, String),
}

impl Mailer {
    /// Prepares to talk to a mail server. Does not talk to it yet.
    ///
    /// # Errors
    ///
    /// A sentence, when the sender is no address or TLS cannot be set up.
    pub fn new(settings: &MailSettings) -> Result<Self, String> {
        let from: Mailbox =
            settings.from.parse().map_err(|error| format!("smtp-from: {}: {error}", settings.from))?;
        let tls = if settings.uses_tls {
            let parameters = TlsParameters::new(settings.host.clone())
                .map_err(|error| format!("TLS to the mail server cannot be set up: {error}"))?;
            if settings.port == PORT_OF_TLS { Tls::Wrapper(parameters) } else { Tls::Required(parameters) }
        } else {
            Tls::None
        };
        let mut server = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&settings.host)
            .port(settings.port)
            .timeout(Some(TIMEOUT))
            .tls(tls);
        if let Some((user, password)) = settings.login.clone() {
            server = server.credentials(Credentials::new(user, password));
        }
        Ok(Self { server: server.build(), from })
    }

    /// Sends a letter and waits until the mail server has taken it.
    ///
    /// # Errors
    ///
    /// A sentence. The server may have taken the letter all the same, if the conversation broke off at its end.
    pub async fn send(&self, letter: Letter) -> Result<(), String> {
        let message = self.message(letter)?;
        self.server.send(message).await.map(drop).map_err(|error| in_words(&error))
    }

    fn message(&self, letter: Letter) -> Result<Message, String> {
        let wrong = |error: &dyn std::fmt::Display| format!("the letter cannot be written: {error}");
        let to: Address = letter.to.parse().map_err(|error| format!("{}: {error}", letter.to))?;
        let domain = self.from.email.domain();
        let markdown = ContentType::parse("text/markdown; charset=utf-8").map_err(|error| wrong(&error))?;
        let (file, document) = letter.document;
        let parts = MultiPart::mixed()
            .singlepart(SinglePart::plain(letter.text))
            .singlepart(Attachment::new(file).body(document, markdown));
        let mut message = Message::builder()
            .from(self.from.clone())
            .to(Mailbox::new(None, to))
            .subject(letter.subject)
            .message_id(Some(format!("<{}@{domain}>", letter.name)))
            .multipart(parts)
            .map_err(|error| wrong(&error))?;
        for (name, value) in letter.headers {
            let name = HeaderName::new_from_ascii(name.to_owned()).map_err(|error| wrong(&error))?;
            message.headers_mut().insert_raw(HeaderValue::new(name, value));
        }
        Ok(message)
    }
}

/// What a mail server or the way to it has against a letter, without our own side of the conversation.
fn in_words(error: &lettre::transport::smtp::Error) -> String {
    let mut words = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        let inner_words = inner.to_string();
        if !words.contains(&inner_words) {
            words = format!("{words}: {inner_words}");
        }
        source = inner.source();
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mailer() -> Mailer {
        let settings = MailSettings {
            host: "localhost".to_owned(),
            port: 25,
            login: None,
            from: "Haldir <haldir@example.com>".to_owned(),
            uses_tls: false,
        };
        Mailer::new(&settings).unwrap()
    }

    fn letter(to: &str, subject: &str) -> Letter {
        Letter {
            to: to.to_owned(),
            subject: subject.to_owned(),
            text: "text".to_owned(),
            name: "name".to_owned(),
            headers: vec![("X-Haldir-Tenant", "t".to_owned())],
            document: ("pack.md".to_owned(), "# größe".to_owned()),
        }
    }

    #[test]
    fn a_letter_says_what_it_should_and_nothing_slips_into_its_head() {
        let message = mailer().message(letter("a@b.c", "one\r\nBcc: x@y.z")).unwrap();
        let text = String::from_utf8(message.formatted()).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(
            head.contains("\r\nMessage-ID: <name@example.com>") && head.contains("X-Haldir-Tenant: t"),
            "{head}"
        );
        assert!(!head.to_lowercase().contains("\r\nbcc:"), "{head}");
        assert!(body.contains("text/markdown") && body.contains("filename=\"pack.md\""), "{body}");
        assert!(mailer().message(letter("nobody", "s")).is_err());
        assert!(mailer().message(letter("a@b.c>\r\nRCPT TO:<x@y.z", "s")).is_err());
    }

    #[test]
    fn a_sender_that_is_no_address_is_named() {
        let settings = MailSettings {
            host: "h".to_owned(),
            port: 25,
            login: None,
            from: "nobody".to_owned(),
            uses_tls: true,
        };
        assert!(Mailer::new(&settings).is_err_and(|why| why.contains("smtp-from")));
    }
}
