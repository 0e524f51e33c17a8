//! Golden bytes of schema 2: what differs from schema 1, and that schema 1 is read as it.

use super::v0002::*;
use super::{record, v0001};

/// Every record that is not of schema 1 by its shape, with both sides of the new option.
fn records() -> Vec<(String, Record)> {
    let id = |byte: u8| [byte; 16];
    let trace = Trace { trace_id: [8; 16], span_id: [9; 8], flags: 1, state: "vendor=1".into() };
    let notification = |is_traced: bool| Notification {
        id: id(1),
        subject: "Grüße from prod-1".into(),
        accepted_at: 1_700_000_000_000,
        expires_at: None,
        chain: vec!["urgent".into()],
        warnings: vec![],
        jobs: vec![(id(2), "oncall@example.com".into())],
        trace: is_traced.then(|| trace.clone()),
    };
    let progress = Progress {
        state: State::Delivered { at: 5 },
        chain: vec!["urgent".into()],
        position: 0,
        attempts_here: 1,
        attempts_all: 1,
        redrives: 0,
        deadline: 1_700_000_086_400,
    };
    let mut records = vec![];
    for is_traced in [false, true] {
        let notification = notification(is_traced);
        let accepted = Accepted { notification: notification.clone(), deadline: 7, key: None };
        records.push((format!("accepted-{is_traced}"), Record::Accepted(accepted)));
        let job = CarriedJob { job: id(2), progress: progress.clone(), attempts: vec![] };
        let carried = Carried { as_of: 77, notification, key: None, jobs: vec![job] };
        records.push((format!("carried-{is_traced}"), Record::Carried(carried)));
    }
    let updated = Updated { job: id(2), progress, attempt: None };
    records.push(("updated".into(), Record::Updated(updated)));
    records.push(("job-forgotten".into(), Record::JobForgotten(id(4))));
    records.push(("key-forgotten".into(), Record::KeyForgotten(id(5))));
    records
}

fn encode(value: &impl serde::Serialize) -> Vec<u8> {
    bincode::serde::encode_to_vec(value, bincode::config::legacy()).expect("it encodes")
}

#[test]
fn what_schema_2_wrote_is_read_and_written_the_same() {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let lines = records().into_iter().map(|(name, record)| {
        assert_eq!(super::record(2, &encode(&record)).expect("it decodes"), record, "{name}");
        format!("{name} {}\n", hex(&encode(&record)))
    });
    assert_eq!(lines.collect::<String>(), include_str!("fixtures/v0002.hex"));
}

#[test]
fn a_notification_of_schema_1_is_one_without_a_trace() {
    for (name, expected) in records() {
        let Record::Accepted(accepted) = &expected else { continue };
        let Notification { trace, .. } = &accepted.notification;
        // The option is at the end of the notification, and all else as it was.
        let old = v0001::Record::Accepted(v0001::Accepted {
            notification: v0001::Notification {
                id: accepted.notification.id,
                subject: accepted.notification.subject.clone(),
                accepted_at: accepted.notification.accepted_at,
                expires_at: accepted.notification.expires_at,
                chain: accepted.notification.chain.clone(),
                warnings: accepted.notification.warnings.clone(),
                jobs: accepted.notification.jobs.clone(),
            },
            deadline: accepted.deadline,
            key: accepted.key.clone(),
        });
        let read = record(1, &encode(&old)).expect("it decodes");
        assert_eq!(read == expected, trace.is_none(), "{name}");
    }
}

#[test]
fn a_body_that_is_cut_or_longer_is_an_error() {
    for (name, whole) in records() {
        let bytes = encode(&whole);
        for cut in 0..bytes.len() {
            assert!(record(2, &bytes[..cut]).is_err(), "{name} cut at {cut}");
        }
        assert!(record(2, &[bytes, vec![0]].concat()).is_err(), "{name} and a byte");
    }
}
