//! Jobs are found whatever their ids are.

use proptest::prelude::*;

use super::*;
use crate::migrations::latest::{Accepted, Notification, Progress, Updated};
use crate::store::rows::fresh;

fn id(number: u8) -> Id {
    let mut id = [0; 16];
    id[15] = number;
    id
}

fn written(sequence: u64, record: Record) -> Written {
    let (segment, offset, record_bytes, content_bytes) = (1, 0, 100, 10);
    let location = Location { segment, offset, record_bytes, content_bytes };
    Written { sequence, entry: record.into(), location }
}

fn notification(ids: &[u8]) -> Notification {
    Notification {
        id: id(ids[0]),
        subject: "s".to_owned(),
        accepted_at: 5,
        expires_at: None,
        chain: vec!["a".to_owned()],
        warnings: Vec::new(),
        jobs: ids[1..].iter().map(|job| (id(*job), "ada@example.com".to_owned())).collect(),
        trace: None,
    }
}

fn delivered(of: &Notification) -> Progress {
    Progress { state: State::Delivered { at: 9 }, ..fresh(of.chain.clone(), of.accepted_at, 99) }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn a_job_is_found_by_its_id_in_whatever_order_ids_were_given(
        ids in Just((0u8..24).collect::<Vec<u8>>()).prop_shuffle(),
        written_out in prop::collection::vec(any::<bool>(), 8),
    ) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let index = Index::open(folder.path()).expect("an index");
        let all: Vec<Notification> = ids.chunks(3).map(notification).collect();
        let mut sequence = 0;
        let mut apply = |record| {
            sequence += 1;
            index.apply(written(sequence, record), None).expect("applied")
        };
        for (notification, writes_out) in std::iter::zip(&all, written_out) {
            let (notification, deadline, key) = (notification.clone(), 99, None);
            apply(Record::Accepted(Accepted { notification, deadline, key }));
            if writes_out {
                index.write_out().expect("written");
            }
        }
        for notification in &all {
            for (job, _) in &notification.jobs {
                let row = index.row_of_job(job).expect("read").expect("it is known");
                prop_assert_eq!(row.id, notification.id);
            }
        }
        for notification in &all {
            let mut released = Vec::new();
            for (job, _) in &notification.jobs {
                let progress = delivered(notification);
                released.push(apply(Record::Updated(Updated { job: *job, progress, attempt: None })));
            }
            prop_assert_eq!(released, [None, Some(notification.id)]);
        }
        prop_assert_eq!(index.live_bytes(), BTreeMap::from([(1, 100 * all.len() as u64)]));
        let ended = index.ended_before(10, 100).expect("read");
        prop_assert_eq!(ended.len(), 2 * all.len());
        for job in ended {
            apply(Record::JobForgotten(job));
        }
        prop_assert_eq!(index.ended_before(10, 100).expect("read"), Vec::<Id>::new());
        prop_assert!(index.newest_first(None).next().is_none());
        prop_assert_eq!(index.live_bytes(), BTreeMap::from([(1, 0)]));
        prop_assert!(index.strays.is_empty());
    }
}
