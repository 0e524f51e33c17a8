//! A person at the API who acts while things break: sends dead letters again, takes mail out.
//!
//! What was asked for is noted before the call, what was done after its answer: the server may have
//! done what it was asked and died before it said so.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use fastrand::Rng;
use hyper::Method;
use serde_json::{Value, json};

use super::client::{Answer, Client, text};

/// The jobs that were to be taken out, and those that the server said it has.
#[derive(Clone, Debug, Default)]
pub struct Hand {
    pub asked: BTreeSet<String>,
    pub done: BTreeSet<String>,
}

/// See the module.
#[derive(Default)]
pub struct Operator {
    hand: Mutex<Hand>,
}

impl Operator {
    /// What it did until now.
    pub fn hand(&self) -> Hand {
        self.lock().clone()
    }

    /// Does a few things that the lots say. What gets no answer, or finds nothing, is left at that.
    pub async fn act(&self, client: &Client, lots: &mut Rng) {
        for _ in 0..lots.usize(1..6) {
            let _ = self.act_once(client, lots).await;
        }
    }

    async fn act_once(&self, client: &Client, lots: &mut Rng) -> Option<()> {
        match lots.u8(..10) {
            0 => {
                let job = some(client, "/jobs?limit=30", lots).await?;
                self.cancel(client, &text(&job["notification"])).await
            }
            1 => {
                let job = some(client, "/jobs?limit=30&state=scheduled", lots).await?;
                self.cancel(client, &text(&job["notification"])).await
            }
            2 => {
                let reason = *lots.choice(["deferred", "rejected", "unreachable"].iter())?;
                let body = json!({"reason": reason});
                call(client, Method::POST, "/deadletters/retry", Some(&body)).await.map(drop)
            }
            3 => {
                let id = text(&some(client, "/deadletters?limit=50", lots).await?["id"]);
                self.lock().asked.insert(id.clone());
                let path = format!("/deadletters/{id}");
                let answer = call(client, Method::DELETE, &path, None).await?;
                if answer.status == 204 {
                    self.lock().done.insert(id);
                }
                Some(())
            }
            choice => {
                let id = text(&some(client, "/deadletters?limit=50", lots).await?["id"]);
                let to = (choice % 2 == 0).then(|| json!({"mailProvider": "main"}));
                let path = format!("/deadletters/{id}/retry");
                call(client, Method::POST, &path, to.as_ref()).await.map(drop)
            }
        }
    }

    async fn cancel(&self, client: &Client, notification: &str) -> Option<()> {
        let path = format!("/notifications/{notification}");
        let found = call(client, Method::GET, &path, None).await?.json();
        let ids = found["jobs"].as_array()?.iter().map(|job| text(&job["id"]));
        self.lock().asked.extend(ids);
        let answer = call(client, Method::DELETE, &path, None).await?;
        if answer.status == 200 {
            let answer = answer.json();
            let cancelled = answer["cancelled"].as_array().expect("ids").iter().map(text);
            self.lock().done.extend(cancelled);
        }
        Some(())
    }

    fn lock(&self) -> MutexGuard<'_, Hand> {
        self.hand.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One item of a list; `None` when there is none, or no answer.
async fn some(client: &Client, path: &str, lots: &mut Rng) -> Option<Value> {
    let page = call(client, Method::GET, path, None).await.filter(|answer| answer.status == 200)?;
    lots.choice(page.json()["items"].as_array()?).cloned()
}

async fn call(client: &Client, method: Method, path: &str, body: Option<&Value>) -> Option<Answer> {
    client.call(method, path, &[], body).await.ok()
}
