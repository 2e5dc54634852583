//! `daemon.mail`.

use std::net::IpAddr;

use url::Url;

use crate::config::error::Place;
use crate::config::error::Problem;
use crate::config::input::MailInput;
use crate::config::lower::check;
use crate::config::lower::secret;
use crate::config::settings::MailSettings;
use crate::config::settings::MailTls;

/// How mails are sent. Reads the password, so that a missing one is found at start and not at night.
pub(super) fn mail(place: &Place, input: MailInput) -> Result<MailSettings, Problem> {
    let example = "write it as smtp://mail.example.com:587 (STARTTLS) or smtps://mail.example.com:465";
    let smtp = place.key("smtp");
    let text = input.smtp.ok_or_else(|| smtp.missing(example))?;
    let (host, port, tls) = server(&smtp, &text, example)?;
    let from = place.key("from");
    let text = input.from.ok_or_else(|| from.missing("give the sender of the mails"))?;
    let login = match (input.user, input.password_file) {
        (Some(user), Some(file)) => {
            Some((check::text(&place.key("user"), user)?, secret::password(&place.key("password_file"), &file)?))
        }
        (Some(_), None) => return Err(place.key("password_file").missing("`user` needs a password")),
        (None, Some(_)) => return Err(place.key("user").missing("`password_file` needs a user")),
        (None, None) => None,
    };
    Ok(MailSettings {
        host,
        port,
        tls,
        from: check::mail_address(&from, &text)?,
        login,
        ca_file: input.ca_file.map(|file| secret::ca_file(&place.key("ca_file"), &file, "mail server")).transpose()?,
    })
}

fn server(place: &Place, text: &str, example: &str) -> Result<(String, u16, MailTls), Problem> {
    let url = Url::parse(text).map_err(|error| place.wrong(format!("\"{text}\" is no URL: {error}")).hint(example))?;
    let (tls, default_port) = match url.scheme() {
        "smtp" => (MailTls::StartTls, 587),
        "smtps" => (MailTls::Implicit, 465),
        "smtp+plain" => (MailTls::None, 25),
        scheme => return Err(place.wrong(format!("\"{scheme}\" is not a way to send mail")).hint(example)),
    };
    if !url.username().is_empty() || url.password().is_some() {
        return Err(place
            .wrong("a user or password does not belong into the URL")
            .hint("use `user` and `password_file`"));
    }
    if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
        return Err(place.wrong(format!("\"{text}\" says more than a server and a port")).hint(example));
    }
    let host = url.host_str().filter(|host| !host.is_empty());
    let host = host.ok_or_else(|| place.wrong(format!("\"{text}\" names no server")).hint(example))?;
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let is_loopback = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    if tls == MailTls::None && !is_loopback {
        return Err(place
            .wrong(format!("mail is not sent in the clear to {host}"))
            .hint("use smtp:// (STARTTLS) or smtps://; smtp+plain:// is for a mail server on this machine"));
    }
    Ok((host, url.port().unwrap_or(default_port), tls))
}
