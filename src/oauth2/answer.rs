//! What a token server answered (RFC 6749 5), read as the words of a stranger.
//!
//! Of its own words nothing is shown but error codes that are known, and Microsoft's numbers: whatever
//! else it says may repeat what it was asked.

use std::time::Duration;

use serde_json::Value;

use super::{Granted, TokenError};
use crate::core::outcome::Cause;

/// A longer one would not fit the longest line of an AUTH exchange that servers take (RFC 4954 4).
const TOKEN_BYTES_MAX: usize = 8 * 1024;
/// The life of a token whose end is not told (RFC 6749 5.1 leaves it to us).
const LIFETIME_UNTOLD: Duration = Duration::from_secs(5 * 60);
/// No token is taken for longer.
const LIFETIME_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Errors that no repetition cures: somebody has to change the client, the grant or the Secret.
const REFUSALS: [&str; 12] = [
    "access_denied",
    "admin_policy_enforced",
    "consent_required",
    "deleted_client",
    "disabled_client",
    "interaction_required",
    "invalid_client",
    "invalid_grant",
    "invalid_request",
    "invalid_scope",
    "unauthorized_client",
    "unsupported_grant_type",
];
/// Errors that may pass.
const TROUBLES: [&str; 4] =
    ["rate_limit_exceeded", "server_error", "slow_down", "temporarily_unavailable"];

/// Reads a whole answer.
///
/// # Errors
/// When it grants nothing.
pub(super) fn read(status: u16, body: &[u8]) -> Result<Granted, TokenError> {
    let json: Value = serde_json::from_slice(body).unwrap_or_default();
    if (200..300).contains(&status) {
        return granted(&json).map_err(|what| trouble(format!("the token server answered {what}")));
    }
    let told = json["error"].as_str().unwrap_or_default();
    let number = json["error_description"].as_str().and_then(aadsts);
    let number = number.map(|number| format!(" ({number})")).unwrap_or_default();
    if let Some(code) = REFUSALS.iter().find(|code| **code == told)
        && (400..500).contains(&status)
    {
        return Err(refusal(format!("the token server refused the client: {code}{number}")));
    }
    let known = TROUBLES.iter().chain(&REFUSALS).find(|code| **code == told);
    let known = known.map(|code| format!(": {code}")).unwrap_or_default();
    match status {
        300..400 => Err(trouble(format!(
            "the token server answered with status {status}, and no redirect is followed"
        ))),
        // Said of who asks and what for, whatever the words.
        400 | 401 | 403 => Err(refusal(format!(
            "the token server refused the client with status {status}{known}{number}"
        ))),
        _ => Err(trouble(format!("the token server answered with status {status}{known}{number}"))),
    }
}

/// A failure that may pass.
pub(super) fn trouble(detail: String) -> TokenError {
    TokenError { cause: Cause::AuthFailed, detail }
}

fn refusal(detail: String) -> TokenError {
    TokenError { cause: Cause::LoginRefused, detail }
}

/// What a good answer grants, or what is wrong with it.
fn granted(json: &Value) -> Result<Granted, &'static str> {
    if !json.is_object() {
        return Err("with no JSON object");
    }
    // RFC 6749 7.1: a client must not use a token of a type that it does not know.
    match &json["token_type"] {
        Value::Null => {}
        Value::String(kind) if kind.eq_ignore_ascii_case("Bearer") => {}
        _ => return Err("with a token that is no bearer token"),
    }
    let token = json["access_token"].as_str().unwrap_or_default();
    if token.is_empty() {
        return Err("without an access token");
    }
    // As SASL and RFC 6750 2.1 want it, and more: nothing that could end a line or a field of it.
    if TOKEN_BYTES_MAX < token.len() || !token.bytes().all(|byte| matches!(byte, b'!'..=b'~')) {
        return Err("with an access token that cannot be sent");
    }
    let refresh_token = json["refresh_token"].as_str().filter(|token| !token.is_empty());
    Ok(Granted {
        token: token.into(),
        lifetime: lifetime(&json["expires_in"]),
        refresh_token: refresh_token.map(Into::into),
    })
}

/// Seconds, which some servers write as text.
fn lifetime(value: &Value) -> Duration {
    let seconds = value.as_f64().or_else(|| value.as_str()?.trim().parse().ok());
    match seconds {
        Some(seconds) if seconds.is_finite() => {
            Duration::from_secs_f64(seconds.clamp(0.0, LIFETIME_MAX.as_secs_f64()))
        }
        _ => LIFETIME_UNTOLD,
    }
}

/// The number of an error of Microsoft Entra, which says much more than its code.
fn aadsts(text: &str) -> Option<&str> {
    let number = &text[text.find("AADSTS")?..];
    let digits = number["AADSTS".len()..].bytes().take_while(u8::is_ascii_digit).count();
    (4..=9).contains(&digits).then(|| &number[.."AADSTS".len() + digits])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use secrecy::ExposeSecret;
    use serde_json::json;

    fn error(status: u16, body: &str) -> (Cause, String) {
        let error = read(status, body.as_bytes()).expect_err("it grants nothing");
        (error.cause, error.detail)
    }

    #[test]
    fn a_token_is_taken_with_its_life_and_what_comes_in_the_place_of_the_refresh_token() {
        let body = json!({"access_token": "t", "token_type": "bearer", "expires_in": 3599,
            "ext_expires_in": 3599, "scope": "x", "refresh_token": "r"});
        let granted = read(200, body.to_string().as_bytes()).expect("a token");
        assert_eq!(granted.token.expose_secret(), "t");
        assert_eq!(granted.lifetime, Duration::from_secs(3599));
        assert_eq!(granted.refresh_token.expect("one").expose_secret(), "r");
    }

    #[test]
    fn a_life_is_taken_as_it_is_told_within_a_day() {
        let lifetime = |told: Value| lifetime(&told).as_secs();
        for (told, seconds) in [
            (json!(3600), 3600),
            (json!("3599"), 3599),
            (json!(59.9), 59),
            (json!(0), 0),
            (json!(-1), 0),
            (json!(1e300), 86_400),
            (json!("soon"), 300),
            (json!("inf"), 300),
            (json!("NaN"), 300),
            (Value::Null, 300),
            (json!([1]), 300),
        ] {
            assert_eq!(lifetime(told.clone()), seconds, "{told}");
        }
    }

    #[test]
    fn what_grants_nothing_says_why_and_whether_it_may_pass() {
        use Cause::{AuthFailed, LoginRefused};
        let entra = r#"{"error": "invalid_client", "error_description":
            "AADSTS7000215: Invalid client secret provided. hunter2"}"#;
        let token = |token: &str, kind: &str| {
            json!({"access_token": token, "token_type": kind}).to_string()
        };
        for (status, body, cause, words) in [
            (401, entra, LoginRefused, "refused the client: invalid_client (AADSTS7000215)"),
            (400, r#"{"error": "invalid_grant"}"#, LoginRefused, "the client: invalid_grant"),
            (400, r#"{"error": "hunter2"}"#, LoginRefused, "the client with status 400"),
            (403, "<html>hunter2</html>", LoginRefused, "the client with status 403"),
            (404, "", AuthFailed, "answered with status 404"),
            (429, r#"{"error": "slow_down"}"#, AuthFailed, "answered with status 429: slow_down"),
            (500, r#"{"error": "invalid_client"}"#, AuthFailed, "status 500: invalid_client"),
            (503, entra, AuthFailed, "status 503: invalid_client (AADSTS7000215)"),
            (302, "hunter2", AuthFailed, "with status 302, and no redirect is followed"),
            (200, "", AuthFailed, "answered with no JSON object"),
            (200, "[\"hunter2\"]", AuthFailed, "answered with no JSON object"),
            (200, "{}", AuthFailed, "without an access token"),
            (200, r#"{"error": "invalid_client"}"#, AuthFailed, "without an access token"),
            (200, &token("hunter2", "mac"), AuthFailed, "that is no bearer token"),
            (200, &token("hunter2\r\nQUIT", "Bearer"), AuthFailed, "that cannot be sent"),
            (200, &token("hunter2\u{1}", "Bearer"), AuthFailed, "that cannot be sent"),
            (200, &token(&"hunter2".repeat(2000), "Bearer"), AuthFailed, "that cannot be sent"),
        ] {
            let (found, detail) = error(status, body);
            assert_eq!(found, cause, "{status} {body}");
            assert!(detail.ends_with(words), "{status} {body}: {detail}");
            assert!(!detail.contains("hunter2"), "{detail}");
        }
    }

    #[test]
    fn only_the_number_of_an_error_of_microsoft_is_read() {
        assert_eq!(aadsts("AADSTS50034: no such user"), Some("AADSTS50034"));
        assert_eq!(aadsts("x AADSTS7000222."), Some("AADSTS7000222"));
        for other in ["AADSTS", "AADSTS12", "AADSTSx", "AADSTS271828182845904", "aadsts50034"] {
            assert_eq!(aadsts(other), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn no_answer_breaks_it_and_none_of_its_words_is_shown(
            status in 100u16..1000,
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            words in "[a-z_]{1,20}hunter2[ -~]{0,20}",
        ) {
            let _ = read(status, &bytes);
            let body = json!({"error": words, "error_description": format!("AADSTS{words}")});
            let error = read(status, body.to_string().as_bytes()).expect_err("it grants nothing");
            prop_assert!(!error.detail.contains("hunter2"), "{}", error.detail);
        }
    }
}
