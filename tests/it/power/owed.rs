//! What a power cut left, held against what callers were told and what arrived.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use breakglass_mailer::core::job::{Job, JobState};
use breakglass_mailer::queue::store::Store;
use breakglass_mailer::store::{DiskStore, Options};
use mail_parser::MessageParser;
use serde_json::Value;

use super::busy::{SIZES_KIB, providers, refuses_no};
use crate::support::app::{App, Home};
use crate::support::load::Post;
use crate::support::sink::Letter;

/// What was found after cuts.
#[derive(Default)]
pub struct Found {
    /// What was owed and is not there, and whatever else is wrong.
    pub wrong: Vec<String>,
    /// Which sizes were met in which state.
    pub met: BTreeSet<(usize, &'static str)>,
}

impl Found {
    /// Takes over what was found after one cut.
    pub fn add(&mut self, cut: &str, other: Self) {
        self.wrong.extend(other.wrong.into_iter().map(|what| format!("{cut}: {what}")));
        self.met.extend(other.met);
    }

    /// # Panics
    /// When something is wrong, or the cuts did not meet every size in every lasting state, and
    /// some retry.
    pub fn assert_all_well(&self) {
        assert_eq!(self.wrong, Vec::<String>::new());
        for state in ["parked", "dead", "delivered"] {
            for kib in SIZES_KIB {
                assert!(self.met.contains(&(kib, state)), "no cut met {kib} KiB {state}");
            }
        }
        assert!(self.met.iter().any(|(_, state)| *state == "retried"), "no cut met a retry");
    }

    /// # Panics
    /// When all is well: what does not find the losses of a server without syncs proves nothing.
    pub fn assert_lost(&self) {
        assert!(!self.wrong.is_empty(), "nothing was lost without any sync");
    }
}

/// Opens the store that a cut left and holds it against the ledger and what arrived.
pub fn opened(data: &Path, posts: &[Post], sent: &Sent) -> Found {
    let mut found = Found::default();
    let (store, opened) = match DiskStore::open(Options::new(data)) {
        Ok(opened) => opened,
        Err(error) => {
            found.wrong.push(format!("{:#}", anyhow::Error::from(error)));
            return found;
        }
    };
    found.wrong.extend(opened.damage.iter().map(|damage| format!("taken for damage: {damage}")));
    for post in posts {
        let Some((id, jobs)) = post.accepted() else { continue };
        let id = id.parse().expect("an id");
        let mut wrong = |what: &str| found.wrong.push(format!("{} {what}", post.token));
        if let Some(key) = &post.key {
            let under = store.accepted_under(key).expect("a read");
            if under.is_none_or(|(_, first)| first != id) {
                wrong("is not known by its key");
            }
        }
        if store.notification(id).expect("a read").is_none() {
            wrong("is gone");
        }
        for (to, job) in jobs {
            let Some((job, _)) = store.job(job.parse().expect("an id")).expect("a read") else {
                wrong("has lost a job");
                continue;
            };
            let state = state(&job);
            let fault = match state {
                "delivered" => sent.fault(post, to),
                "dead" if !to.starts_with("no-") => Some("is dead"),
                _ => match store.content(id) {
                    Ok(content) if content.text.as_deref() == post.body["text"].as_str() => None,
                    Ok(_) => Some("has another content"),
                    Err(_) => Some("has lost its content"),
                },
            };
            fault.into_iter().for_each(&mut wrong);
            found.met.insert((size_kib(post), state));
        }
    }
    if let Err(error) = store.close() {
        found.wrong.push(format!("{:#}", anyhow::Error::from(error)));
    }
    found
}

fn state(job: &Job) -> &'static str {
    match &job.progress.state {
        JobState::Queued { .. } if job.progress.attempts_all == 0 => "queued",
        JobState::Queued { .. } => "retried",
        JobState::Dead { .. } if job.progress.is_parked() => "parked",
        JobState::Dead { .. } => "dead",
        JobState::Delivered { .. } => "delivered",
        JobState::Cancelled { .. } => "cancelled",
    }
}

fn size_kib(post: &Post) -> usize {
    let bytes = post.body["text"].as_str().expect("a text").len();
    SIZES_KIB.into_iter().find(|kib| bytes <= kib * 1024).expect("one of the sizes")
}

/// Starts a server on what a cut left, with every provider reachable again, and holds the ledger
/// against what it knows and what it sends. `under` is what is put before it; `sent` is what had
/// arrived before.
pub async fn served(data: PathBuf, under: &[String], posts: &[Post], sent: &Sent) -> Found {
    let sink = refuses_no();
    let home = Home::at(data, &providers(sink.port, sink.port)).under(under);
    let app = match home.try_start().await {
        Ok(app) => app,
        Err(refusal) => {
            let wrong = vec![format!("{}: {}", refusal.status, refusal.log)];
            return Found { wrong, ..Found::default() };
        }
    };
    app.drained().await;
    let mut sent = sent.clone();
    sent.add(&sink.letters());
    let mut found = Found::default();
    for post in posts {
        let Some((id, jobs)) = post.accepted() else { continue };
        let states = states(&app, id).await;
        for (to, job) in jobs {
            let fault = match states.get(job).map(String::as_str) {
                Some("dead") if to.starts_with("no-") => None,
                Some("dead") => Some("is dead"),
                Some("delivered") => sent.fault(post, to),
                Some(_) => Some("is neither delivered nor dead"),
                None => Some("is gone"),
            };
            found.wrong.extend(fault.map(|fault| format!("{} to {to} {fault}", post.token)));
        }
    }
    found
}

/// The states of a notification's jobs by their ids; empty when it is unknown.
async fn states(app: &App, id: &str) -> BTreeMap<String, String> {
    let path = format!("/notifications/{id}");
    let answer = app.client.call(hyper::Method::GET, &path, &[], None).await.expect("an answer");
    if answer.status == 404 {
        return BTreeMap::new();
    }
    let text = |value: &Value| value.as_str().expect("a string").to_owned();
    let notification = answer.json();
    let jobs = notification["jobs"].as_array().expect("jobs").iter();
    jobs.map(|job| (text(&job["id"]), text(&job["state"]))).collect()
}

/// The plain texts that arrived, by subject and recipient.
#[derive(Clone, Default)]
pub struct Sent(BTreeMap<(String, String), BTreeSet<String>>);

impl Sent {
    pub fn add(&mut self, letters: &[Letter]) {
        for letter in letters {
            let message = MessageParser::new().parse(&**letter.bytes).expect("a message");
            // A line end at the very end is the mail format's, not the content's.
            let text = message.body_text(0).expect("a text").trim_end().to_owned();
            let key = (letter.subject.clone(), letter.recipient.clone());
            self.0.entry(key).or_default().insert(text);
        }
    }

    /// What is wrong with a delivery that was recorded.
    fn fault(&self, post: &Post, to: &str) -> Option<&'static str> {
        match self.0.get(&(post.token.clone(), to.to_owned())) {
            Some(texts) if texts.iter().all(|text| post.body["text"] == **text) => None,
            Some(_) => Some("was sent with another content"),
            None => Some("is said to be delivered and was not"),
        }
    }
}
