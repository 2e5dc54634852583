//! The licence number, and what the vendor's server may say to it.
//!
//! The number travels as `Authorization: Bearer NUMBER`, to the feed's own server only: neither to
//! where that redirects to, nor over a network without encryption. Nothing else is said of the site.
//!
//! The server says no with 401, 402 or 403 and a JSON body `{"error": CODE}`, or the same CODE as
//! `error="CODE"` in `WWW-Authenticate`:
//!
//! | CODE | means | without a CODE |
//! |---|---|---|
//! | `licence_unknown` | there is no such licence | 401, when a number was sent |
//! | `licence_expired` | it was valid once | 402 |
//! | `site_not_registered` | it is valid, but not for this site | – |
//! | `licence_required` | none was sent | 401, when none was sent |
//!
//! A bare 403 is no answer about licences: some stores of files say it of a file that does not exist.

use std::path::Path;

use reqwest::StatusCode;
use reqwest::header::HeaderValue;
use serde::Deserialize;
use tokio::io::AsyncReadExt;

use crate::domain::failure::FailureCode;
use crate::feed::transport::error::TransportError;

/// The longest licence number that is read.
const NUMBER_BYTES_MAX: u64 = 4096;

/// What the vendor's server says to a licence number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Refusal {
    /// There is no such licence.
    #[serde(rename = "licence_unknown")]
    Unknown,
    /// It was valid once.
    #[serde(rename = "licence_expired")]
    Expired,
    /// It is valid, but not for this site.
    #[serde(rename = "site_not_registered")]
    NotRegistered,
    /// None was sent.
    #[serde(rename = "licence_required")]
    Required,
}

impl Refusal {
    const ALL: [Self; 4] = [Self::Unknown, Self::Expired, Self::NotRegistered, Self::Required];

    /// The stable name.
    pub const fn code(self) -> FailureCode {
        match self {
            Self::Unknown => FailureCode::LicenceUnknown,
            Self::Expired => FailureCode::LicenceExpired,
            Self::NotRegistered => FailureCode::SiteNotRegistered,
            Self::Required => FailureCode::LicenceRequired,
        }
    }

    /// In words, after the address and a colon.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Unknown => "the vendor does not know this licence number",
            Self::Expired => "the licence has expired",
            Self::NotRegistered => "this site is not registered for the licence",
            Self::Required => "the vendor asks for a licence number",
        }
    }

    /// What a person can do about it.
    pub const fn hint(self) -> &'static str {
        match self {
            Self::Unknown => "compare feed.licence_file with the number that the vendor gave you",
            Self::Expired => "renew the licence with the vendor; what is installed goes on working",
            Self::NotRegistered => "register this site with the vendor, under this licence number",
            Self::Required => "put the licence number into a file and set feed.licence_file",
        }
    }

    /// What an answer says about the licence, if it does.
    pub(super) fn of(status: StatusCode, challenge: Option<&str>, body: &[u8], was_sent: bool) -> Option<Self> {
        #[derive(Deserialize)]
        struct Body {
            error: Refusal,
        }
        let code = status.as_u16();
        if !matches!(code, 401..=403) {
            return None;
        }
        let challenged = || {
            let challenge = challenge?;
            Self::ALL.into_iter().find(|refusal| challenge.contains(&format!("error=\"{}\"", refusal.code().name())))
        };
        let said = serde_json::from_slice::<Body>(body).ok().map(|body| body.error).or_else(challenged);
        said.or(match code {
            401 if was_sent => Some(Self::Unknown),
            401 => Some(Self::Required),
            402 => Some(Self::Expired),
            _ => None,
        })
    }
}

/// The header with the number in `file`. Read anew each time, so that a renewed licence needs no restart.
pub(super) async fn header(file: &Path) -> Result<HeaderValue, TransportError> {
    let unread = |source| TransportError::ReadLicence { file: file.to_owned(), source };
    let bad = || TransportError::BadLicence { file: file.to_owned() };
    let mut bytes = b"Bearer ".to_vec();
    let opened = tokio::fs::File::open(file).await.map_err(unread)?;
    opened.take(NUMBER_BYTES_MAX).read_to_end(&mut bytes).await.map_err(unread)?;
    let text = bytes.trim_ascii_end();
    let is_number = |byte: &u8| byte.is_ascii_graphic();
    let number = text.get(b"Bearer ".len()..).map(<[u8]>::trim_ascii).filter(|number| !number.is_empty());
    let number = number.filter(|number| number.iter().all(is_number)).ok_or_else(bad)?;
    let mut header = HeaderValue::from_bytes(&[b"Bearer ", number].concat()).map_err(|_| bad())?;
    // Not shown when the header is printed, and not remembered by header compression.
    header.set_sensitive(true);
    Ok(header)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::in_the_body(403, "", r#"{"error": "site_not_registered"}"#, true, Some(Refusal::NotRegistered))]
    #[case::in_the_body_with_more(401, "", r#"{"error": "licence_expired", "at": 1}"#, true, Some(Refusal::Expired))]
    #[case::in_the_header(401, r#"Bearer realm="x", error="licence_expired""#, "", true, Some(Refusal::Expired))]
    #[case::bare_401(401, "Bearer", "go away", true, Some(Refusal::Unknown))]
    #[case::bare_401_to_nobody(401, "Bearer", "", false, Some(Refusal::Required))]
    #[case::bare_402(402, "", "", true, Some(Refusal::Expired))]
    #[case::bare_403(403, "", "<Code>AccessDenied</Code>", true, None)]
    #[case::another_code(403, "", r#"{"error": "go_away"}"#, true, None)]
    #[case::another_status(500, "", r#"{"error": "licence_expired"}"#, true, None)]
    fn answers_are_told_apart(
        #[case] status: u16,
        #[case] challenge: &str,
        #[case] body: &str,
        #[case] was_sent: bool,
        #[case] expected: Option<Refusal>,
    ) {
        let status = StatusCode::from_u16(status).unwrap();
        assert_eq!(Refusal::of(status, Some(challenge), body.as_bytes(), was_sent), expected);
    }

    #[test]
    fn a_code_is_spelt_the_same_both_ways() {
        for refusal in Refusal::ALL {
            let read: Refusal = serde_json::from_value(refusal.code().name().into()).unwrap();
            assert_eq!(read, refusal);
        }
    }
}
