//! The table against a map.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::store::journal::Location;

/// A row of a number that takes some bytes.
fn row(number: u8, bytes_count: usize) -> Row {
    Row {
        location: Location { segment: 1, offset: 0, record_bytes: 1, content_bytes: 0 },
        id: id(number),
        sequence: 1,
        accepted_at: 0,
        deadline: 0,
        chain: vec!["s".repeat(bytes_count)],
        trace: None,
        key: None,
        jobs: Vec::new(),
    }
}

fn id(number: u8) -> Id {
    let mut id = [0; 16];
    id[15] = number;
    id
}

#[derive(Clone, Debug)]
enum Step {
    Put(u8, usize),
    Change(u8, usize),
    Remove(u8),
    WriteOutSome(usize),
    WriteOut,
}

fn step() -> impl Strategy<Value = Step> {
    // Some of them fill a block by themselves.
    let bytes_count = prop_oneof![5 => 0usize..600, 1 => 4_000usize..20_000];
    prop_oneof![
        4 => (0u8..60, bytes_count.clone()).prop_map(|(number, bytes)| Step::Put(number, bytes)),
        2 => (0u8..60, bytes_count).prop_map(|(number, bytes)| Step::Change(number, bytes)),
        3 => (0u8..60).prop_map(Step::Remove),
        2 => (0usize..9).prop_map(Step::WriteOutSome),
        1 => Just(Step::WriteOut),
    ]
}

fn table() -> (tempfile::TempDir, Table) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let db = sled::open(folder.path()).expect("a database");
    let table = Table::new(db.open_tree("rows").expect("a tree"));
    (folder, table)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_table_is_a_map_wherever_its_rows_lie(steps in prop::collection::vec(step(), 1..120)) {
        let (_folder, table) = table();
        let mut model: BTreeMap<Id, Row> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Put(number, bytes) => {
                    table.put(row(number, bytes));
                    model.insert(id(number), row(number, bytes));
                }
                Step::Change(number, bytes) => {
                    let name = "c".repeat(bytes);
                    let change = |row: &mut Row| row.chain[0].clone_from(&name);
                    let changed = table.change(&id(number), change).expect("a change");
                    prop_assert_eq!(changed, model.get_mut(&id(number)).map(change));
                }
                Step::Remove(number) => {
                    table.remove(&id(number));
                    model.remove(&id(number));
                }
                Step::WriteOutSome(count) => table.write_out(Some(count)).expect("written"),
                Step::WriteOut => {
                    table.write_out(None).expect("written");
                    let mut heads = Vec::new();
                    table.heads(|head| heads.push(head.id)).expect("read");
                    prop_assert_eq!(heads, model.keys().copied().collect::<Vec<_>>());
                }
            }
            for number in [0, 7, 30, 59] {
                let id = id(number);
                let found = table.get(&id).expect("read");
                prop_assert_eq!(found.as_deref(), model.get(&id));
                let before: Vec<Row> = table
                    .newest_first(Some(&id))
                    .map(|row| (*row.expect("read")).clone())
                    .collect();
                let expected: Vec<Row> = model.range(..id).rev().map(|(_, row)| row.clone()).collect();
                prop_assert_eq!(before, expected);
                let next = table.next_id(&id).expect("read");
                let first = model.range((Bound::Excluded(id), Bound::Unbounded)).next();
                // One that was removed may stand in the way for a moment.
                prop_assert!(first.is_none_or(|(first, _)| next.is_some_and(|next| next <= *first)));
                if let Some(found) = table.at_or_before(&id).expect("read") {
                    let last = model.range(..=id).next_back();
                    prop_assert_eq!(Some(&*found), last.map(|(_, row)| row));
                }
            }
        }
        table.write_out(None).expect("written");
        for number in 0..60 {
            let id = id(number);
            let last = model.range(..=id).next_back().map(|(_, row)| row);
            let found = table.at_or_before(&id).expect("read");
            prop_assert_eq!(found.as_deref(), last);
            let next = model.range((Bound::Excluded(id), Bound::Unbounded)).next().map(|(id, _)| *id);
            prop_assert_eq!(table.next_id(&id).expect("read"), next);
        }
    }
}

#[test]
fn a_row_is_found_at_any_time_while_those_beside_it_come_go_and_grow() {
    const ROUNDS_COUNT: usize = 400;
    let (_folder, table) = table();
    let stays = || (0u8..60).step_by(2);
    stays().for_each(|number| table.put(row(number, 900)));
    table.write_out(None).expect("written");
    let is_over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut looks_count = 0;
            while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
                for id in stays().map(id) {
                    assert!(table.get(&id).expect("read").is_some(), "{id:?} was there all along");
                    let found = table.at_or_before(&id).expect("read").expect("it is there");
                    assert_eq!(found.id, id);
                    looks_count += 1;
                }
            }
            looks_count
        });
        let mut lots = fastrand::Rng::with_seed(7);
        for _ in 0..ROUNDS_COUNT {
            let number = 2 * lots.u8(0..30) + 1;
            if lots.bool() {
                table.put(row(number, lots.usize(0..9_000)));
            } else {
                table.remove(&id(number));
            }
            let name = "g".repeat(lots.usize(0..2_000));
            let grow = |row: &mut Row| row.chain[0].clone_from(&name);
            table.change(&id(number - 1), grow).expect("a change");
            table.write_out(Some(lots.usize(1..4))).expect("written");
        }
        is_over.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(0 < reader.join().expect("it found all of them"));
    });
}
