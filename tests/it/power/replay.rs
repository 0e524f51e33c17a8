//! Power cuts between any two system calls: the server's own calls are done again on a disk in
//! memory, and the power goes at as many places of one run as one likes.

use std::collections::HashMap;
use std::path::Path;

use super::Syncing;
use super::busy::{Peers, mixed};
use super::owed::{self, Found, Sent};
use crate::support::app::Home;
use crate::support::disk::Cut;
use crate::support::image::Image;
use crate::support::load::{Load, Post};
use crate::support::replay::{CALLS, Replay};
use crate::support::trace::{self, Call};
use crate::support::wait::{LIMIT, eventually};
use crate::support::{lots, need, nightly};

const POSTS: usize = 60;
/// In each life, half of them while a write to the journal is not yet synced. At each the power is
/// cut in both ways.
const PLACES: usize = 12;
/// More than a batch of the journal is long.
const STRING_BYTES_MAX: usize = 64 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn nothing_answered_is_lost_between_whichever_system_calls_the_power_is_cut() {
    let lives_count = if nightly() { 20 } else { 3 };
    if let Some(found) = found_in_replays(lives_count, Syncing::Real).await {
        found.assert_all_well();
    }
}

/// The control.
#[tokio::test(flavor = "multi_thread")]
async fn the_replay_of_a_server_that_does_not_sync_loses_mail() {
    if let Some(found) = found_in_replays(1, Syncing::Pretended).await {
        found.assert_lost();
    }
}

/// What was found after all cuts; `None` when this machine cannot trace. Each life begins with what
/// a cut left of the one before, and its server is stopped and started once.
async fn found_in_replays(lives_count: usize, syncing: Syncing) -> Option<Found> {
    if !need("strace") {
        return None;
    }
    let mut lots = lots();
    let mut found = Found::default();
    let mut image = Image::default();
    let mut sent = Sent::default();
    // What was answered before the cut that the life begins with.
    let mut owed: Vec<Post> = Vec::new();
    for life in 0..lives_count {
        let peers = Peers::start().await;
        let folder = tempfile::tempdir().expect("a temporary folder");
        let root = folder.path().canonicalize().expect("a path without links").join("volume");
        image.write(&root).expect("write the image");
        let (text, posts) = traced(&root, syncing, &peers, life * POSTS).await;
        sent.add(&peers.live.letters());

        let calls = trace::parse(&text);
        let mut replay = Replay::new(&calls, &root, &image);
        let in_doubt = replay.unsafe_steps("/journal/");
        let mut places: Vec<usize> = (0..PLACES)
            .map(|n| match n % 2 {
                0 => lots.usize(..=replay.steps_count()),
                _ => in_doubt[lots.usize(..in_doubt.len())],
            })
            .collect();
        places.sort_unstable();
        let answers = answers(&calls);
        let begins_next = lots.usize(..PLACES);
        let mut next = None;
        for (n, steps) in places.into_iter().enumerate() {
            // An answer that begins to leave before the next call is done may have left.
            let line = replay.line_after(steps);
            let is_answered = |post: &&Post| {
                post.accepted().is_some_and(|(id, _)| answers.get(id).is_some_and(|at| *at < line))
            };
            let before: Vec<Post> =
                owed.iter().chain(posts.iter().filter(is_answered)).cloned().collect();
            for cut in [Cut::Strict, Cut::Torn(lots.u64(..))] {
                let name = format!("life {life}, {steps} steps, {cut:?}");
                let left = replay.cut(steps, cut);
                let copy = tempfile::tempdir().expect("a temporary folder");
                left.write(copy.path()).expect("write the image");
                let open = || owed::opened(&copy.path().join("data"), &before, &sent);
                found.add(&name, tokio::task::block_in_place(open));
                if n == begins_next {
                    next = Some((name, left, before.clone()));
                }
            }
        }
        let end = replay.cut(replay.steps_count(), Cut::Never);
        assert!(end == Image::read(&root).expect("a folder"), "the replay went another way");

        let (name, left, before) = next.expect("a cut");
        let copy = tempfile::tempdir().expect("a temporary folder");
        left.write(copy.path()).expect("write the image");
        found.add(&name, owed::served(copy.path().join("data"), &[], &before, &sent).await);
        (image, owed) = (left, before);
    }
    Some(found)
}

/// Runs a server on `root` twice, each time under load; its trace and the ledger.
async fn traced(root: &Path, syncing: Syncing, peers: &Peers, first: usize) -> (String, Vec<Post>) {
    let home = Home::at(root.join("data"), &peers.providers());
    let file = home.path("trace");
    let home = syncing.at(home).under(&trace::command(CALLS, STRING_BYTES_MAX, &file));
    let load = Load::start(8, mixed).beginning_with(first);
    let mut text = String::new();
    for run in 1..=2 {
        let mut app = home.start().await;
        load.serve(Some(app.client.clone()));
        load.allow(POSTS / 2);
        eventually("all posts have ended", async || {
            (load.ended_count() == run * POSTS / 2).then_some(())
        })
        .await;
        if run == 2 {
            // The first is stopped in the midst of it.
            app.queue_has("open", "ready", 0).await;
            app.queue_has("open", "inFlight", 0).await;
        }
        load.serve(None);
        app.process.term();
        app.process.exit(LIMIT).await;
        text = trace::read(&file, &app.process).await;
    }
    (text, load.finish().await)
}

/// The lines at which the 202 of each notification began to leave.
fn answers(calls: &[Call]) -> HashMap<&str, usize> {
    let mut answers = HashMap::new();
    for call in calls.iter().filter(|call| call.target.starts_with("TCP")) {
        let Some((_, answer)) = call.text.split_once("HTTP/1.1 202") else { continue };
        let (_, location) = answer.split_once("/notifications/").expect("a 202 says where");
        answers.entry(&location[..36]).or_insert(call.began);
    }
    answers
}
