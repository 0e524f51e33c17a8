//! What became of mail, judged from outside: by what callers and operators were told, by what the API
//! shows, and by what the peers took. Whatever a test breaks, it is judged here.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::Value;

use super::app::App;
use super::client::text;
use super::load::{End, Post};
use super::metrics::Scrape;
use super::operator::Hand;
use super::sink::{Letter, Sink};

/// What is known at one moment.
pub struct Evidence {
    posts: Vec<Post>,
    hand: Hand,
    jobs: BTreeMap<String, Shown>,
    letters: Vec<Letter>,
}

/// A job as `GET /jobs` shows it.
struct Shown {
    notification: String,
    recipient: String,
    state: String,
    is_parked: bool,
}

impl Evidence {
    /// Asks the server, then the peers. The ledgers of callers and operators were read before: what
    /// they hold has to be known to the server, and what it says was delivered to the peers.
    ///
    /// # Panics
    /// When the server does not answer.
    pub async fn gather(app: &App, posts: Vec<Post>, hand: Hand, sinks: &[&Sink]) -> Self {
        let jobs = app.client.jobs().await.iter().map(shown).collect();
        let letters = sinks.iter().flat_map(|sink| sink.letters()).collect();
        Self { posts, hand, jobs, letters }
    }

    /// All that must not be, by name; empty when every promise was kept.
    pub fn faults(&self, copies_max: usize) -> Vec<String> {
        let mut posts = HashMap::new();
        for post in &self.posts {
            let to = post.body["recipients"].as_array().expect("recipients");
            posts.extend(to.iter().map(|to| (to.as_str().expect("an address"), post)));
        }
        let mut faults = self.lost();
        faults.extend(self.ghosts(&posts));
        faults.extend(self.letters_at_fault(&posts));
        faults.extend(self.taken_out_at_fault());
        let copies = self.copies_count();
        if copies > copies_max {
            faults.push(format!("{copies} copies, {copies_max} at most"));
        }
        faults
    }

    /// How many letters came a second time, or more often.
    pub fn copies_count(&self) -> usize {
        self.letters.len() - self.taken().len()
    }

    fn taken(&self) -> BTreeSet<&str> {
        self.letters.iter().map(Letter::job).collect()
    }

    /// Jobs that were answered 202 and are gone, or were never taken and are called delivered.
    fn lost(&self) -> Vec<String> {
        let mut lost = Vec::new();
        for post in &self.posts {
            let Some((id, jobs)) = post.accepted() else { continue };
            for (to, job) in jobs {
                let is_it = |shown: &Shown| shown.notification == id && shown.recipient == *to;
                match self.jobs.get(job) {
                    None => lost.push(format!("lost: {job} to {to}")),
                    Some(shown) if !is_it(shown) => lost.push(format!("another: {job} to {to}")),
                    Some(_) => {}
                }
            }
        }
        let taken = self.taken();
        let claimed = self.jobs.iter().filter(|(_, shown)| shown.state == "delivered");
        let claimed = claimed.filter(|(id, _)| !taken.contains(id.as_str()));
        lost.extend(claimed.map(|(id, shown)| {
            format!("called delivered, and no peer took it: {id} to {}", shown.recipient)
        }));
        lost
    }

    /// Jobs that nobody posted, that were refused, or that are there twice.
    fn ghosts(&self, posts: &HashMap<&str, &Post>) -> Vec<String> {
        let mut ghosts = Vec::new();
        let mut seen = BTreeSet::new();
        for (id, shown) in &self.jobs {
            let to = &*shown.recipient;
            if !seen.insert(to) {
                ghosts.push(format!("a second job: {id} to {to}"));
            }
            match posts.get(to).map(|post| &post.end) {
                Some(End::Accepted { jobs, .. }) if jobs.get(to) == Some(id) => {}
                Some(End::Accepted { .. }) => ghosts.push(format!("not as answered: {id} to {to}")),
                Some(End::Refused(status)) => {
                    ghosts.push(format!("refused with {status} and stored: {id} to {to}"));
                }
                Some(End::Unread) => {}
                None => ghosts.push(format!("posted by nobody: {id} to {to}")),
            }
        }
        ghosts
    }

    /// Letters of refused posts, and of jobs with another id than their caller was told. All copies
    /// of one job have one `Message-ID`.
    fn letters_at_fault(&self, posts: &HashMap<&str, &Post>) -> Vec<String> {
        let mut faults = Vec::new();
        let mut ids = HashMap::new();
        for letter in &self.letters {
            let (to, id) = (&*letter.recipient, letter.job());
            if *ids.entry(to).or_insert(id) != id {
                faults.push(format!("sent under several ids: {id} to {to}"));
            }
            let post = posts.get(to).filter(|post| post.token == letter.subject);
            match post.map(|post| &post.end) {
                Some(End::Accepted { jobs, .. }) if jobs.get(to).is_some_and(|job| job == id) => {}
                Some(End::Unread) => {}
                other => faults.push(format!("sent after {other:?}: {id} to {to}")),
            }
        }
        faults
    }

    /// Jobs that were taken out by nobody, or that came back after they were.
    fn taken_out_at_fault(&self) -> Vec<String> {
        let Hand { asked, done } = &self.hand;
        let is_out = |id: &String| self.jobs.get(id).is_some_and(|job| job.state == "cancelled");
        let back = done.iter().filter(|id| !is_out(id));
        let unasked = self.jobs.keys().filter(|id| is_out(id) && !asked.contains(*id));
        back.map(|id| format!("taken out, and back again: {id}"))
            .chain(unasked.map(|id| format!("taken out by nobody: {id}")))
            .collect()
    }

    /// Holds the server's other answers against its list of jobs, while nothing moves.
    ///
    /// # Panics
    /// When they differ.
    pub async fn assert_counts_agree(&self, app: &App) {
        let count =
            |keep: &dyn Fn(&Shown) -> bool| self.jobs.values().filter(|job| keep(job)).count();
        let in_state = |state: &str| count(&|job| job.state == state);
        let parked = count(&|job| job.is_parked);
        let waiting = ["ready", "scheduled", "inFlight"].map(in_state).iter().sum::<usize>();
        let (dead, ended) = (in_state("dead"), in_state("delivered") + in_state("cancelled"));
        assert_eq!(waiting + dead + ended, self.jobs.len(), "every job is in one state");

        let queue = app.client.get("/queue").await;
        assert_eq!(queue["depth"], waiting + parked, "{queue}");
        assert_eq!(app.client.get("/deadletters?limit=1").await["total"], dead);
        let scrape = Scrape::of(&app.client).await;
        assert_eq!(scrape.sum("queue_depth"), waiting + parked, "{}", scrape.text);
        assert_eq!(scrape.sum("deadletters"), dead, "{}", scrape.text);
    }
}

fn shown(job: &Value) -> (String, Shown) {
    let shown = Shown {
        notification: text(&job["notification"]),
        recipient: text(&job["recipient"]),
        state: text(&job["state"]),
        is_parked: job["redrive"] == "automatic",
    };
    (text(&job["id"]), shown)
}
