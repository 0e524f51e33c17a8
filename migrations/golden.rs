//! Golden bytes: what schema 1 wrote is read and written the same for ever.

use super::v0001::*;
use super::{DecodeError, latest};

/// Every record, with every variant of every enum and both sides of every option.
fn records() -> Vec<(String, Record)> {
    let id = |byte: u8| [byte; 16];
    let notification = |full: bool| Notification {
        id: id(1),
        subject: "Grüße from prod-1".into(),
        accepted_at: 1_700_000_000_000,
        expires_at: full.then_some(1_700_000_060_000),
        chain: vec!["urgent".into(), "default-smtp".into()],
        warnings: if full { vec!["cluster x does not exist".into()] } else { vec![] },
        jobs: vec![(id(2), "oncall@example.com".into()), (id(3), "грета@пример.рф".into())],
    };
    let key = Key { key: "K-1".into(), fingerprint: [9; 32] };
    let progress = |state| Progress {
        state,
        chain: vec!["urgent".into(), "default-smtp".into()],
        position: 1,
        attempts_here: 2,
        attempts_all: 6,
        redrives: 3,
        deadline: 1_700_000_086_400,
    };
    let attempt = |stage, outcome, reply| Attempt {
        number: 6,
        at: 1_700_000_000_500,
        provider: "urgent".into(),
        stage,
        outcome,
        reply,
        message: "the server put the recipient off".into(),
        duration_ms: 1234,
    };
    let reply = |enhanced| Some(Reply { code: 450, enhanced, text: "later".into() });
    let updated = |state, attempt| {
        Record::Updated(Updated { job: id(2), progress: progress(state), attempt })
    };
    let due = State::Queued { due: 1_700_000_001_000 };

    let mut records = vec![];
    let mut add = |name: String, record| records.push((name, record));
    for full in [false, true] {
        let accepted = Accepted {
            notification: notification(full),
            deadline: 1_700_000_086_400,
            key: full.then(|| key.clone()),
        };
        add(format!("accepted-{full}"), Record::Accepted(accepted));
    }
    add("queued".into(), updated(due.clone(), None));
    add("delivered".into(), updated(State::Delivered { at: 5 }, None));
    add("cancelled".into(), updated(State::Cancelled { at: 6 }, None));
    use DeadReason as D;
    for reason in [D::Rejected, D::Deferred, D::Unreachable, D::Expired, D::Internal] {
        let dead = State::Dead { reason, at: 7, detail: "no".into() };
        add(format!("dead-{reason:?}"), updated(dead, None));
    }
    use Stage as S;
    let stages = [
        S::Prepare,
        S::Connect,
        S::Greeting,
        S::Ehlo,
        S::Tls,
        S::Auth,
        S::Mail,
        S::Rcpt,
        S::Data,
        S::Dot,
    ];
    for stage in stages {
        let tried = attempt(stage, AttemptOutcome::Deferred, reply(Some([4, 2, 1])));
        add(format!("attempt-{stage:?}"), updated(due.clone(), Some(tried)));
    }
    use AttemptOutcome as O;
    for outcome in [O::Delivered, O::Deferred, O::Rejected, O::Unreachable, O::Internal] {
        let answer = if outcome == O::Internal { None } else { reply(None) };
        let tried = attempt(S::Rcpt, outcome, answer);
        add(format!("attempt-{outcome:?}"), updated(due.clone(), Some(tried)));
    }
    add("job-forgotten".into(), Record::JobForgotten(id(4)));
    add("key-forgotten".into(), Record::KeyForgotten(id(5)));
    for full in [false, true] {
        let tried = attempt(S::Dot, O::Deferred, None);
        let job = CarriedJob { job: id(2), progress: progress(due.clone()), attempts: vec![tried] };
        let carried = Carried {
            as_of: 77,
            notification: notification(full),
            key: full.then(|| key.clone()),
            jobs: if full { vec![job] } else { vec![] },
        };
        add(format!("carried-{full}"), Record::Carried(carried));
    }
    records
}

fn contents() -> Vec<(String, Content)> {
    let full = Content {
        subject: "S".into(),
        html: Some("<p>hi</p>".into()),
        text: Some("hi".into()),
        reply_to: Some("security@example.com".into()),
    };
    let bare = Content { html: None, text: None, reply_to: None, ..full.clone() };
    vec![("content-full".into(), full), ("content-bare".into(), bare)]
}

fn encode(value: &impl serde::Serialize) -> Vec<u8> {
    bincode::serde::encode_to_vec(value, bincode::config::legacy()).expect("it encodes")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let byte = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).expect("two hex digits");
    (0..text.len()).step_by(2).map(byte).collect()
}

#[test]
fn what_schema_1_wrote_is_read_and_written_the_same() {
    let records = records().into_iter().map(|(name, record)| (name, encode(&record)));
    let contents = contents().into_iter().map(|(name, content)| (name, encode(&content)));
    let lines = records.chain(contents).map(|(name, bytes)| format!("{name} {}\n", hex(&bytes)));
    assert_eq!(lines.collect::<String>(), include_str!("fixtures/v0001.hex"));
}

#[test]
fn golden_bytes_decode_to_what_they_were() {
    let line = |name: &str| {
        let mut lines = include_str!("fixtures/v0001.hex").lines();
        let found = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        unhex(found.expect("every record has golden bytes"))
    };
    for (name, expected) in records() {
        let read = super::record(1, &line(&name)).expect("it decodes");
        assert_eq!(read, latest::Record::from(expected), "{name}");
    }
    for (name, expected) in contents() {
        assert_eq!(super::content(1, &line(&name)).expect("it decodes"), expected, "{name}");
    }
}

#[test]
fn a_cut_or_longer_body_and_another_schema_are_errors() {
    for (name, whole) in records() {
        let bytes = encode(&whole);
        for cut in 0..bytes.len() {
            assert!(super::record(1, &bytes[..cut]).is_err(), "{name} cut at {cut}");
        }
        assert!(super::record(1, &[bytes, vec![0]].concat()).is_err(), "{name} and a byte");
    }
    assert!(matches!(super::record(0, &[]), Err(DecodeError::Unknown(0))));
    assert!(matches!(super::record(3, &[]), Err(DecodeError::Newer(3))));
}
