//! A server under load, with posts of every size and fate.

use std::collections::HashSet;
use std::sync::Mutex;

use serde_json::{Value, json};

use super::owed::Sent;
use crate::support::app::{App, Provider};
use crate::support::crashfs::CrashFs;
use crate::support::disk::Cut;
use crate::support::image::Image;
use crate::support::load::{Load, Post};
use crate::support::sink::{Act, Moment, Sink};
use crate::support::wait::eventually;

/// How large contents are.
pub const SIZES_KIB: [usize; 3] = [1, 32, 512];

/// Posts of every size, to a server that is there and to one that is away, to recipients of every
/// fate. The periods have no common factor, so each meets each, and every fourth has a key.
pub fn mixed(n: usize) -> Value {
    let kib = [1, 32, 1, 512, 1, 32, 1][n % 7];
    let provider = ["open", "open", "shut"][n % 3];
    let to = ["ok", "later", "ok", "no", "ok"][n % 5];
    let line = format!("This is line of post {n:06}, and there are more of its kind.\r\n");
    let text = line.repeat(kib * 1024 / line.len()).trim_end().to_owned();
    json!({"recipients": [format!("{to}-{n}@example.com")], "text": text, "mailProvider": provider})
}

/// The servers before the cut: one refuses `no` for good and `later` once, the other is away.
pub struct Peers {
    pub live: Sink,
    away: Sink,
}

impl Peers {
    pub async fn start() -> Self {
        let seen = Mutex::new(HashSet::new());
        let live = Sink::with(move |moment| match moment {
            Moment::Recipient(to) if to.starts_with("no-") => Act::Say("550 5.1.1 no such user"),
            Moment::Recipient(to) if to.starts_with("later-") => {
                match seen.lock().expect("not poisoned").insert(to.to_owned()) {
                    true => Act::Say("451 4.3.0 not now"),
                    false => Act::Accept,
                }
            }
            _ => Act::Accept,
        });
        let mut away = Sink::start();
        away.close().await;
        Self { live, away }
    }

    pub fn providers(&self) -> [Provider; 2] {
        providers(self.live.port, self.away.port)
    }
}

/// Providers at these ports. The first is the default, so no other takes over what it cannot take,
/// and that is parked at once. The second waits so long before a retry that at any moment some jobs
/// wait for theirs.
pub fn providers(open: u16, shut: u16) -> [Provider; 2] {
    [Provider::plain("shut", shut), Provider::plain("open", open).retry(5, 300)]
}

/// The one that every provider is at after the cut.
pub fn refuses_no() -> Sink {
    Sink::with(|moment| match moment {
        Moment::Recipient(to) if to.starts_with("no-") => Act::Say("550 5.1.1 no such user"),
        _ => Act::Accept,
    })
}

/// See the module.
pub struct Busy<'a> {
    peers: &'a Peers,
    load: Load,
    letters_count: usize,
    /// What had arrived when the power was last cut.
    pub sent: Sent,
}

impl<'a> Busy<'a> {
    /// Begins to post.
    pub fn start(app: &App, peers: &'a Peers) -> Self {
        let load = Load::start(8, mixed);
        load.serve(Some(app.client.clone()));
        Self { peers, load, letters_count: 0, sent: Sent::default() }
    }

    /// Cuts the power of the disk below the server after a few more posts: what had been answered,
    /// and what is left. The server goes on without notice.
    pub async fn cut(
        &mut self,
        disk: &CrashFs,
        cut: Cut,
        lots: &mut fastrand::Rng,
    ) -> (Vec<Post>, Image) {
        let goal = self.load.ended_count() + lots.usize(5..20);
        self.load.allow(25);
        eventually("enough posts have ended", async || {
            (self.load.ended_count() >= goal).then_some(())
        })
        .await;
        // First the ledger, then the cut: whatever the ledger holds was answered before.
        let posts = self.load.posts();
        let image = disk.cut(cut);
        let letters = self.peers.live.letters();
        self.sent.add(&letters[self.letters_count..]);
        self.letters_count = letters.len();
        (posts, image)
    }

    /// Ends when all posts have ended.
    pub async fn finish(self) {
        self.load.finish().await;
    }
}
