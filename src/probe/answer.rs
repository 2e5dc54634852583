//! Which version an answer tells.

use serde_json::Value;

use crate::domain::answers::ANSWER_CHARS_MAX;
use crate::domain::answers::Answers;
use crate::domain::release::Version;

/// The version in a body: JSON with a text `version` at its top level, a JSON text, or plain text that looks like one.
/// The expected one counts as a version whatever it looks like.
pub(crate) fn version_in_body(body: &[u8], expected: Option<&Answers>) -> Option<String> {
    let text = String::from_utf8_lossy(body);
    let text = text.trim_start_matches('\u{feff}').trim();
    if is_the(expected, text) {
        return Some(text.to_owned());
    }
    match serde_json::from_str(text) {
        Ok(Value::Object(mut object)) => match object.remove("version") {
            Some(Value::String(version)) => Some(version.trim().to_owned()).filter(|version| can_be_told(version)),
            _ => None,
        },
        Ok(Value::String(version)) => looks_like_version(version.trim()),
        // A plain 17 or 2.4 is a number to JSON and a version to us.
        Ok(Value::Number(_)) | Err(_) => looks_like_version(text),
        Ok(Value::Null | Value::Bool(_) | Value::Array(_)) => None,
    }
}

/// The version in a command's output: its last line that is not empty, if it looks like one.
pub(crate) fn version_in_output(output: &str, expected: Option<&Answers>) -> Option<String> {
    let last = output.lines().rev().map(str::trim).find(|line| !line.is_empty())?;
    if is_the(expected, last) { Some(last.to_owned()) } else { looks_like_version(last) }
}

fn is_the(expected: Option<&Answers>, text: &str) -> bool {
    can_be_told(text) && expected.is_some_and(|answers| answers.fits(text))
}

/// One line that is no page.
fn can_be_told(text: &str) -> bool {
    !text.is_empty() && text.chars().nth(ANSWER_CHARS_MAX).is_none() && !text.chars().any(char::is_control)
}

/// One word that can be a version and has a digit in it: "OK" and "healthy" are none.
fn looks_like_version(text: &str) -> Option<String> {
    let good = text.bytes().any(|byte| byte.is_ascii_digit()) && text.parse::<Version>().is_ok();
    good.then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("2.4.1\n", Some("2.4.1"))]
    #[case("  17 ", Some("17"))]
    #[case("2.40", Some("2.40"))]
    #[case("\"2.4.1\"", Some("2.4.1"))]
    #[case("{\"status\": \"ok\", \"version\": \"2.4.1 LTS\"}", Some("2.4.1 LTS"))]
    #[case("{\"version\": 2}", None)]
    #[case("{\"app\": {\"version\": \"2.4.1\"}}", None)]
    #[case("OK", None)]
    #[case("<html>2.4.1</html>", None)]
    #[case("", None)]
    #[case("[\"2.4.1\"]", None)]
    fn reads_a_body(#[case] body: &str, #[case] version: Option<&str>) {
        assert_eq!(version_in_body(body.as_bytes(), None).as_deref(), version);
    }

    #[test]
    fn the_expected_version_needs_no_digit() {
        let edge: Answers = "edge".parse().unwrap();
        assert_eq!(version_in_body(b"edge\n", Some(&edge)).as_deref(), Some("edge"));
        assert_eq!(version_in_output("edge\n", Some(&edge)).as_deref(), Some("edge"));
        assert_eq!(version_in_body(b"stable\n", Some(&edge)), None);
    }

    #[test]
    fn a_body_of_any_bytes_is_no_harm() {
        assert_eq!(version_in_body(&[0xff; 70_000], None), None);
    }

    #[rstest]
    #[case("checking\n2.4.1\n\n", Some("2.4.1"))]
    #[case("2.4.1\nall is well\n", None)]
    #[case("ok\n", None)]
    #[case("", None)]
    fn reads_an_output(#[case] output: &str, #[case] version: Option<&str>) {
        assert_eq!(version_in_output(output, None).as_deref(), version);
    }
}
