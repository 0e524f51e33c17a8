//! `bench-fill FOLDER JOBS PROVIDERS BYTES`: a data folder with so many waiting jobs of the providers
//! `p0`, `p1` and so on, in turn, each of a notification of its own with a text of so many bytes, to one
//! of a thousand people.

mod common;

use std::collections::VecDeque;
use std::path::Path;

use breakglass_mailer::queue::store::Store;
use breakglass_mailer::store::{DiskStore, Options};

use common::{accept, text};

/// So many notifications are committed together, and so many such commits are under way.
const TOGETHER: usize = 256;
const UNDER_WAY: usize = 8;

#[tokio::main]
async fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize| args[at].parse::<usize>().expect("a number");
    let (jobs, providers, body) = (number(1), number(2), text(number(3)));
    let (store, _) = DiskStore::open(Options::new(Path::new(&args[0]))).expect("open the store");
    let mut under_way = VecDeque::new();
    for begin in (0..jobs).step_by(TOGETHER) {
        let together = begin..jobs.min(begin + TOGETHER);
        let changes = together.map(|job| {
            let recipient = format!("approver-{}@example.com", job % 1000);
            accept(&format!("p{}", job % providers), &recipient, &body)
        });
        under_way.push_back(store.commit(changes.collect()));
        if UNDER_WAY <= under_way.len()
            && let Some(oldest) = under_way.pop_front()
        {
            oldest.await.expect("commit");
        }
    }
    for commit in under_way {
        commit.await.expect("commit");
    }
    store.close().expect("close the store");
}
