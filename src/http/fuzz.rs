//! What holds for any bytes as the body of `POST /notify`.

use jiff::Timestamp;
use serde_json::json;

use super::problem::{Problem, ProblemKind};
use super::request::NotifyRequest;
use crate::core::notification::{Address, Content};
use crate::core::route::Catalog;
use crate::core::time::Time;

const NOW: Time = Time(1_800_000_000_000);

/// Reads `bytes` as a request; answers to whom it goes and what they read, when it is accepted.
///
/// # Panics
/// When it is accepted although it breaks a bound, or refused without a reason.
pub fn request(bytes: &[u8]) -> Option<(Vec<Address>, Content)> {
    let request = match NotifyRequest::parse(bytes, NOW) {
        Ok(request) => request,
        Err(problem) => {
            refused(&problem);
            return None;
        }
    };
    content(&request.content);
    let recipients = match request.recipients(&Catalog::default(), NOW) {
        Ok(recipients) => recipients,
        Err(problem) => {
            refused(&problem);
            return None;
        }
    };
    assert!((1..=100).contains(&recipients.len()));
    for (n, recipient) in recipients.iter().enumerate() {
        assert!(!recipients[..n].contains(recipient), "each gets one message");
        assert_eq!(Address::parse(recipient.as_str()), Ok(recipient.clone()));
    }
    same_in_other_words(&request, &recipients);
    Some((recipients, request.content))
}

fn refused(problem: &Problem) {
    match problem.kind() {
        ProblemKind::BadRequest => assert!(problem.errors().is_empty()),
        ProblemKind::InvalidRequest => assert!((1..=100).contains(&problem.errors().len())),
        other => panic!("a body is no reason for {other:?}"),
    }
    for error in problem.errors() {
        assert!(error.pointer.len() <= 1000 && error.detail.len() <= 200, "{error:?}");
    }
}

fn content(content: &Content) {
    let Content { subject, html, text, reply_to: _ } = content;
    assert!((1..=998).contains(&subject.chars().count()) && !subject.trim().is_empty());
    assert!(!subject.chars().any(char::is_control));
    let bodies: Vec<&String> = html.iter().chain(text).collect();
    assert!(!bodies.is_empty(), "there is something to read");
    assert!(bodies.iter().all(|body| !body.is_empty() && !body.contains('\0')));
}

/// Written as its author would not have, it is the same request.
fn same_in_other_words(request: &NotifyRequest, recipients: &[Address]) {
    let Content { subject, html, text, reply_to } = &request.content;
    let wish = request.wish();
    let expires_at = request.expires_at.map(|time| {
        let milliseconds = i64::try_from(time.0).expect("a time that was read");
        // Of the last second that jiff knows it takes no milliseconds.
        Timestamp::from_millisecond(milliseconds).unwrap_or(Timestamp::MAX).to_string()
    });
    let fields = [
        ("expiresAt", expires_at.as_deref()),
        ("cluster", wish.cluster),
        ("escalation", wish.escalation),
        ("mailProvider", wish.provider),
        ("replyTo", reply_to.as_ref().map(Address::as_str)),
        ("body", html.as_deref()),
        ("text", text.as_deref()),
        ("subject", Some(subject)),
    ];
    let mut again = json!({});
    for (name, value) in fields {
        if let Some(value) = value {
            again[name] = value.into();
        }
    }
    again["recipients"] = recipients.iter().map(Address::as_str).collect();
    let again = NotifyRequest::parse(again.to_string().as_bytes(), NOW);
    let again = again.expect("what was accepted is accepted again");
    assert_eq!(&again, request);
    assert_eq!(again.fingerprint(), request.fingerprint());
}
