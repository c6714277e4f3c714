//! Mail by SMTP.

use lettre::{
    Message, SmtpTransport, Transport as _,
    message::{Mailbox, header::ContentType},
    transport::smtp::{
        authentication::{Credentials, Mechanism},
        client::{Tls, TlsParameters},
    },
};
use xene_schemas::notifier::Email;

use super::{
    Failure, TIME_LIMIT,
    credentials::{self, Tls as Protection},
    text,
};
use crate::decide::event::Delivery;

/// Sends it, and says what was answered.
pub(super) fn send(
    delivery: &Delivery,
    to: &Email,
    credential: &credentials::Email,
    public_url: Option<&str>,
) -> Result<String, Failure> {
    let message = written(delivery, to, &credential.from, public_url)?;
    // Another part of the process may have installed it already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let parameters = || TlsParameters::new(credential.host.clone()).map_err(|error| judge(&error));
    let (tls, port) = match credential.tls {
        Protection::Starttls => (Tls::Required(parameters()?), 587),
        Protection::Implicit => (Tls::Wrapper(parameters()?), 465),
        Protection::None => (Tls::None, 25),
    };
    let mut transport = SmtpTransport::builder_dangerous(&credential.host)
        .port(credential.port.unwrap_or(port))
        .tls(tls)
        .timeout(Some(TIME_LIMIT / 2));
    if let (Some(user), Some(password)) = (&credential.user, &credential.password) {
        transport = transport
            .credentials(Credentials::new(user.clone(), password.clone()))
            .authentication(vec![Mechanism::Plain, Mechanism::Login]);
    }
    match transport.build().send(&message) {
        Ok(response) => Ok(format!("{} was answered: {}", response.code(), said(response.message()))),
        Err(error) => Err(judge(&error)),
    }
}

fn said<'a>(lines: impl Iterator<Item = &'a str>) -> String {
    // Not shortened: half a secret would not be known as one.
    let whole = lines.collect::<Vec<_>>().join(" ");
    text::plain(&whole, whole.len())
}

/// A refusal that lasts is one of this message; whoever does not let us in may do so once its credential is right.
fn judge(error: &lettre::transport::smtp::Error) -> Failure {
    let whole = xene_agent::command::sentence(error);
    let why = text::plain(&whole, whole.len());
    let code = error.status().map(|code| code.to_string());
    let of_login = code.as_deref().is_some_and(|code| matches!(code, "530" | "534" | "535" | "538"));
    if error.is_permanent() && !of_login { Failure::lasting(why) } else { Failure::passing(why) }
}

/// The message. The library writes what is in a header so that it can't end it.
fn written(delivery: &Delivery, to: &Email, from: &str, public_url: Option<&str>) -> Result<Message, Failure> {
    let address = |text: &str| text.parse::<Mailbox>().map_err(|_| format!("{} is no address", text.escape_default()));
    let notice = &delivery.notice;
    // The same whenever it is sent, so that a mailbox can drop what it has.
    let id = blake3::hash(format!("{}/{}/{}", delivery.source, delivery.notifier, notice.id).as_bytes());
    let mut message = Message::builder()
        .from(address(from).map_err(Failure::passing)?)
        .message_id(Some(format!("<{}@xene.invalid>", &id.to_hex()[..32])))
        .date(std::time::SystemTime::from(notice.at))
        .subject(format!("[xene] {}", text::title(delivery)));
    for recipient in &to.to {
        message = message.to(address(recipient).map_err(Failure::lasting)?);
    }
    let mut body = text::title(delivery);
    if let Some(message) = &notice.message {
        body += "\n\n";
        body += &text::plain(message, 1_000);
    }
    body += "\n\n";
    for (name, value) in text::details(notice) {
        body.extend([name, ": ", &value, "\n"]);
    }
    body.extend(["at: ", &format!("{:.0}", notice.at), "\n"]);
    if let Some(link) = text::link(notice, public_url) {
        body.extend(["\n", &link, "\n"]);
    }
    // Answers of machines on holiday help nobody.
    let message = message.header(Automatic).header(ContentType::TEXT_PLAIN).body(body);
    message.map_err(|error| Failure::lasting(format!("it can't be written as mail: {error}")))
}

/// Says that no person wrote it (RFC 3834).
#[derive(Debug, Clone)]
struct Automatic;

impl lettre::message::header::Header for Automatic {
    fn name() -> lettre::message::header::HeaderName {
        lettre::message::header::HeaderName::new_from_ascii_str("Auto-Submitted")
    }

    fn parse(_: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Self)
    }

    fn display(&self) -> lettre::message::header::HeaderValue {
        lettre::message::header::HeaderValue::new(Self::name(), "auto-generated".into())
    }
}

/// As it goes over the wire.
#[cfg(test)]
pub(super) fn formatted(delivery: &Delivery, to: &Email, from: &str, public_url: Option<&str>) -> String {
    String::from_utf8(written(delivery, to, from, public_url).unwrap().formatted()).unwrap()
}
