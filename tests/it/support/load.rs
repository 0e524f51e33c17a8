//! Many callers at once, and the ledger of what each of them was told.
//!
//! The ledger outlives the server. A line tells of an answer after that was read whole, so it never
//! claims more than the caller knows.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::client::Client;

/// One post and what its caller knows of it.
#[derive(Clone, Debug)]
pub struct Post {
    /// Its subject: ASCII, and no other post has it.
    pub token: String,
    pub body: Value,
    pub key: Option<String>,
    pub end: End,
}

/// How a post ended for its caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// A 202: the notification's id, and its jobs' ids by recipient.
    Accepted { id: String, jobs: BTreeMap<String, String> },
    /// Another status.
    Refused(u16),
    /// No whole answer was read, or not yet: the post may have been accepted or not.
    Unread,
}

impl Post {
    /// The notification's id and its jobs, when it was accepted.
    pub fn accepted(&self) -> Option<(&str, &BTreeMap<String, String>)> {
        match &self.end {
            End::Accepted { id, jobs } => Some((id, jobs)),
            End::Refused(_) | End::Unread => None,
        }
    }
}

/// What an answer means, or its lack.
pub fn end(answer: Result<super::client::Answer, String>) -> End {
    let Ok(answer) = answer else { return End::Unread };
    if answer.status != 202 {
        return End::Refused(answer.status);
    }
    let body = answer.json();
    let text = |value: &Value| value.as_str().expect("a string").to_owned();
    let jobs = body["jobs"].as_array().expect("jobs").iter();
    End::Accepted {
        id: text(&body["id"]),
        jobs: jobs.map(|job| (text(&job["recipient"]), text(&job["id"]))).collect(),
    }
}

/// Writes the nth post: recipients, which no other post has, bodies and all but the subject.
pub type Author = fn(n: usize) -> Value;

struct Shared {
    author: Author,
    next: AtomicUsize,
    /// Those that were begun, by their number.
    posts: Mutex<BTreeMap<usize, Post>>,
    ended_count: AtomicUsize,
    allowed: Semaphore,
    allowed_count: AtomicUsize,
}

/// Callers that post whenever they may and the server is there.
pub struct Load {
    shared: Arc<Shared>,
    server: watch::Sender<Option<Client>>,
    callers: JoinSet<()>,
}

impl Load {
    /// Starts `callers_count` callers; the first post waits for `allow` and `serve`. Every fourth has an
    /// idempotency key, and is repeated until it is answered.
    pub fn start(callers_count: usize, author: Author) -> Self {
        let shared = Arc::new(Shared {
            author,
            next: AtomicUsize::new(0),
            posts: Mutex::default(),
            ended_count: AtomicUsize::new(0),
            allowed: Semaphore::new(0),
            allowed_count: AtomicUsize::new(0),
        });
        let server = watch::Sender::new(None);
        let mut callers = JoinSet::new();
        for _ in 0..callers_count {
            callers.spawn(call(Arc::clone(&shared), server.subscribe()));
        }
        Self { shared, server, callers }
    }

    /// The number of the first post; to be said before the first is allowed.
    pub fn beginning_with(self, n: usize) -> Self {
        self.shared.next.store(n, Ordering::Relaxed);
        self
    }

    /// Allows this many more posts.
    pub fn allow(&self, posts_count: usize) {
        self.shared.allowed_count.fetch_add(posts_count, Ordering::SeqCst);
        self.shared.allowed.add_permits(posts_count);
    }

    /// How many posts were allowed until now.
    pub fn allowed_count(&self) -> usize {
        self.shared.allowed_count.load(Ordering::SeqCst)
    }

    /// Names the server to post to, or that there is none now.
    pub fn serve(&self, client: Option<Client>) {
        self.server.send_replace(client);
    }

    /// The ledger as it is now, with the posts that are under way.
    pub fn posts(&self) -> Vec<Post> {
        self.shared.lock().values().cloned().collect()
    }

    /// How many posts have ended.
    pub fn ended_count(&self) -> usize {
        self.shared.ended_count.load(Ordering::SeqCst)
    }

    /// Ends the load when every post that was begun has its answer.
    ///
    /// # Panics
    /// When a caller panicked.
    pub async fn finish(mut self) -> Vec<Post> {
        self.shared.allowed.close();
        while let Some(caller) = self.callers.join_next().await {
            caller.expect("a caller panicked");
        }
        self.posts()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<usize, Post>> {
        self.posts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn call(shared: Arc<Shared>, mut server: watch::Receiver<Option<Client>>) {
    while let Ok(permit) = shared.allowed.acquire().await {
        permit.forget();
        let n = shared.next.fetch_add(1, Ordering::Relaxed);
        let token = format!("token-{n:06}-end");
        let mut body = (shared.author)(n);
        body["subject"] = json!(token);
        let key = n.is_multiple_of(4).then(|| format!("key-{n}"));
        let post = Post { token, body: body.clone(), key: key.clone(), end: End::Unread };
        shared.lock().insert(n, post);
        let end = loop {
            let Ok(client) = server.wait_for(Option::is_some).await.map(|client| client.clone())
            else {
                return;
            };
            let end = end(client.expect("a server").notify(&body, key.as_deref()).await);
            if end != End::Unread || key.is_none() {
                break end;
            }
        };
        if let Some(post) = shared.lock().get_mut(&n) {
            post.end = end;
        }
        shared.ended_count.fetch_add(1, Ordering::SeqCst);
    }
}
