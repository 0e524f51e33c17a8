//! Time that does not pass as it should: a wall clock that is set, a process that stood still, a retry
//! that became due while nobody was there.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::support::app::{App, Home, Provider};
use crate::support::client::text;
use crate::support::clock::WallClock;
use crate::support::need;
use crate::support::sink::{Act, Letter, Moment, Sink};
use crate::support::wait::{eventually, within};

const SECOND: SignedDuration = SignedDuration::from_secs(1);

fn to(recipients: &[&str]) -> Value {
    json!({"recipients": recipients, "subject": "Breakglass", "text": "Please look."})
}

fn time(value: &Value) -> Timestamp {
    text(value).parse().expect("a time")
}

/// Puts off each `later-…` once and `never-…` each time, refuses `no-…`.
fn puts_off_once() -> Sink {
    let seen: Mutex<BTreeSet<String>> = Mutex::default();
    Sink::with(move |moment| match moment {
        Moment::Recipient(to) if to.starts_with("no-") => Act::Say("550 5.1.1 no such user"),
        Moment::Recipient(to) if to.starts_with("never-") => Act::Say("451 4.3.0 not today"),
        Moment::Recipient(to)
            if to.starts_with("later-")
                && seen.lock().expect("not poisoned").insert(to.to_owned()) =>
        {
            Act::Say("451 4.3.0 not now")
        }
        _ => Act::Accept,
    })
}

/// When the only job of a notification is due, once it waits for its next attempt.
async fn due(app: &App, notification: &str) -> Timestamp {
    let found = app.jobs_are(notification, &["scheduled"]).await;
    time(&found["jobs"][0]["nextAttemptAt"])
}

/// What the server's wall clock says, by a new line of its log.
async fn wall_clock(app: &App, nth: usize) -> Timestamp {
    let id = app.notify(&to(&[&format!("no-{nth}@example.com")])).await;
    app.jobs_are(&id, &["dead"]).await;
    eventually("the log tells of the dead letter", async || {
        let log = app.process.log();
        let mut lines = log.lines().filter(|line| line.contains("a dead letter"));
        let line: Value = serde_json::from_str(lines.nth(nth)?).ok()?;
        Some(time(&line["timestamp"]))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wall_clock_that_is_set_while_running_moves_nothing() {
    if !need("faketime") {
        return;
    }
    let sink = puts_off_once();
    let home = Home::new(&[Provider::plain("main", sink.port).retry(3, 1000)]);
    let (clock, home) = WallClock::of(home, "+0");
    let app = home.start().await;
    let hours = |hours| SignedDuration::from_hours(hours);
    let settings = [("-1h", hours(-1)), ("-10y", hours(-87_600)), ("+1d", hours(24))];
    for (n, (setting, offset)) in settings.into_iter().enumerate() {
        // One that waits while the clock is set, and one that comes after.
        let before = app.notify(&to(&[&format!("later-before-{n}@example.com")])).await;
        let promised = due(&app, &before).await;
        clock.set(setting);
        let shown = wall_clock(&app, n).await.duration_since(Timestamp::now());
        let error = (shown - offset).abs();
        assert!(error < SignedDuration::from_mins(1), "{setting} was not set: {shown}");
        let after = app.notify(&to(&[&format!("later-after-{n}@example.com")])).await;
        for (id, promised) in [(&before, Some(promised)), (&after, None)] {
            let found = app.jobs_are(id, &["delivered"]).await;
            let age = Timestamp::now().duration_since(time(&found["acceptedAt"]));
            assert!(age.abs() < SignedDuration::from_secs(60), "{setting}: {found}");
            let attempts = found["jobs"][0]["attempts"].as_array().expect("attempts");
            let [first, second] = &attempts[..] else { panic!("two attempts: {found}") };
            let waited = time(&second["at"]).duration_since(time(&first["at"]));
            let backoff = SignedDuration::from_millis(800)..SignedDuration::from_secs(30);
            assert!(backoff.contains(&waited), "{setting}: waited {waited}");
            assert!(promised.is_none_or(|due| due <= time(&second["at"])), "{setting}: {found}");
        }
        let mut expiring = to(&[&format!("never-{n}@example.com")]);
        expiring["expiresAt"] = (Timestamp::now() + 2 * SECOND).to_string().into();
        let id = app.notify(&expiring).await;
        app.jobs_are(&id, &["dead"]).await;
        let letters = app.client.dead_letters().await;
        assert_eq!(letters[0]["reason"], "expired", "{setting}: {}", letters[0]);
    }
    let refused_or_expired = 2 * settings.len();
    assert_eq!(app.client.get("/deadletters").await["total"], refused_or_expired);
    assert_eq!(sink.letters().len(), 2 * settings.len(), "each once");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wall_clock_set_back_between_two_runs_parks_no_job_beyond_its_backoff_or_age() {
    if !need("faketime") {
        return;
    }
    tokio::join!(set_back_between_two_runs("-1h"), set_back_between_two_runs("-10y"));
}

async fn set_back_between_two_runs(setting: &str) {
    let (sink, mut away) = (puts_off_once(), Sink::start());
    away.close().await;
    let providers =
        [Provider::plain("away", away.port), Provider::plain("main", sink.port).retry(3, 6000)];
    let (clock, home) = WallClock::of(Home::new(&providers).args(&["--max-age", "12s"]), "+0");
    let app = home.start().await;
    let parked = app.notify(&to(&["ada@example.com"])).await;
    let mut body = to(&["later-bob@example.com"]);
    body["mailProvider"] = "main".into();
    let scheduled = app.notify(&body).await;
    due(&app, &scheduled).await;
    app.jobs_are(&parked, &["dead"]).await;
    app.stop().await;

    clock.set(setting);
    let app = home.start().await;
    let due = due(&app, &scheduled).await;
    let now = time(&app.client.accepted(&to(&["eve@example.com"])).await["acceptedAt"]);
    assert!(now < Timestamp::now() - SignedDuration::from_mins(50), "{setting} was not set");
    let wait = due.duration_since(now);
    assert!(SignedDuration::ZERO < wait, "no burst after {setting}: {wait}");
    assert!(wait <= SignedDuration::from_millis(7200), "its backoff after {setting}: {wait}");
    app.jobs_are(&scheduled, &["delivered"]).await;
    eventually("what is never delivered expires", async || {
        // One that is being recorded is not listed for that moment.
        let letters = app.client.dead_letters().await;
        let expired = letters.iter().filter(|letter| letter["reason"] == "expired");
        (letters.len() == 2 && expired.count() == 2).then_some(())
    })
    .await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wall_clock_set_forward_between_two_runs_makes_what_waits_due_and_what_is_too_old_expire()
{
    if !need("faketime") {
        return;
    }
    let (sink, mut away) = (puts_off_once(), Sink::start());
    away.close().await;
    let providers =
        [Provider::plain("away", away.port), Provider::plain("main", sink.port).retry(3, 60_000)];
    let home = Home::new(&providers).args(&["--max-connections", "1"]);
    let (clock, home) = WallClock::of(home, "-25h");
    let app = home.start().await;
    let old = app.notify(&to(&["old@example.com"])).await;
    app.jobs_are(&old, &["dead"]).await;
    app.stop().await;
    clock.set("-2h");
    let app = home.start().await;
    let recipients: Vec<String> = (0..20).map(|n| format!("later-{n}@example.com")).collect();
    let body =
        json!({"recipients": recipients, "subject": "s", "text": "t", "mailProvider": "main"});
    let waiting = app.notify(&body).await;
    app.jobs_are(&waiting, &["scheduled"]).await;
    app.stop().await;

    clock.set("+0");
    let app = home.start().await;
    let found = app.jobs_are(&waiting, &["delivered"]).await;
    for job in found["jobs"].as_array().expect("jobs") {
        assert_eq!(job["attempts"].as_array().expect("attempts").len(), 2, "{job}");
    }
    assert_eq!(sink.letters().len(), 20, "each once");
    let letters = eventually("the old one expires", async || {
        let letters = app.client.dead_letters().await;
        (letters.iter().all(|letter| letter["reason"] == "expired")).then_some(letters)
    })
    .await;
    assert_eq!(letters.len(), 1, "a dead letter, which a person sends again: {letters:?}");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_that_became_due_while_the_server_was_down_goes_out_at_once_and_a_later_one_waits()
{
    let sink = puts_off_once();
    let providers = [
        Provider::plain("soon", sink.port).retry(3, 3000),
        Provider::plain("late", sink.port).retry(3, 60_000),
    ];
    let home = Home::new(&providers);
    home.write(&(providers[0].manifests(true) + &providers[1].manifests(false)));
    let mut app = home.start().await;
    let mut body = to(&["later-ada@example.com"]);
    let soon = app.notify(&body).await;
    body["recipients"] = json!(["later-bob@example.com"]);
    body["mailProvider"] = "late".into();
    let late = app.notify(&body).await;
    let (due_soon, due_late) = (due(&app, &soon).await, due(&app, &late).await);
    app.process.kill9();
    eventually("the first is due", async || (due_soon < Timestamp::now()).then_some(())).await;

    let app = home.start().await;
    let recipients = |letters: Vec<Letter>| -> Vec<String> {
        letters.into_iter().map(|letter| letter.recipient).collect()
    };
    within(Duration::from_secs(5), "it goes out at once", async || {
        (recipients(sink.letters()) == ["later-ada@example.com"]).then_some(())
    })
    .await;
    assert_eq!(due(&app, &late).await, due_late);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_stood_still_goes_on_where_it_was_and_sends_nothing_twice() {
    let taken = Sink::with(|moment| match moment {
        Moment::Dot => Act::Hold,
        _ => Act::Accept,
    });
    let mut cut = Sink::with(|moment| match moment {
        Moment::Data => Act::Hold,
        _ => Act::Accept,
    });
    let later = puts_off_once();
    let names = ["taken", "cut", "later"];
    let providers: Vec<_> = std::iter::zip(names, [taken.port, cut.port, later.port])
        .map(|(name, port)| Provider::plain(name, port).retry(3, 3000))
        .collect();
    let home = Home::new(&providers).args(&["--health-timeout", "1s", "--health-interval", "2s"]);
    let all: Vec<_> = providers.iter().map(|provider| provider.manifests(false)).collect();
    home.write(&all.concat());
    let mut app = home.start().await;
    let mut ids = Vec::new();
    for name in names {
        let mut body = to(&["later-ada@example.com"]);
        body["mailProvider"] = name.into();
        ids.push(app.notify(&body).await);
    }
    let held = |sink: &Sink| sink.held_count() == 1;
    eventually("two are in flight", async || (held(&taken) && held(&cut)).then_some(())).await;
    let due = due(&app, &ids[2]).await;

    let pid = Pid::from_raw(i32::try_from(app.process.id()).expect("a process id")).expect("not 0");
    kill_process(pid, Signal::STOP).expect("it lives");
    // The one peer answers, the other one gives up, and the third one's mail becomes due.
    taken.release();
    eventually("it was taken", async || (taken.letters().len() == 1).then_some(())).await;
    cut.close().await;
    cut.release();
    cut.open();
    let long_after = due + 3 * SECOND;
    eventually("much time has passed", async || (long_after < Timestamp::now()).then_some(()))
        .await;
    kill_process(pid, Signal::CONT).expect("it lives");

    for id in &ids {
        app.jobs_are(id, &["delivered"]).await;
    }
    let counts = [&taken, &cut, &later].map(|sink| sink.letters().len());
    assert_eq!(counts, [1, 1, 1], "each once");
    app.process.kill9();
    let app = home.start().await;
    for id in &ids {
        app.jobs_are(id, &["delivered"]).await;
    }
    assert_eq!([&taken, &cut, &later].map(|sink| sink.letters().len()), [1, 1, 1]);
}
