//! The operator's page in a real browser: what it shows, and what its buttons do.

mod files;
mod harmless;
mod reach;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::support::app::{App, Home, Provider};
use crate::support::browser::Browser;
use crate::support::client::text;
use crate::support::need;
use crate::support::sink::{Act, Moment, Sink};
use crate::support::wait::eventually;

/// A server before a sink that refuses all of `no.example` until it is told to be kind, and puts
/// off all of `later.example`.
struct Scene {
    app: App,
    home: Home,
    sink: Sink,
    is_kind: Arc<AtomicBool>,
}

impl Scene {
    async fn start() -> Self {
        Self::with(&[]).await
    }

    async fn with(args: &[&str]) -> Self {
        let is_kind = Arc::new(AtomicBool::new(false));
        let kind = Arc::clone(&is_kind);
        let sink = Sink::with(move |moment| match moment {
            Moment::Recipient(to) if to.ends_with("@later.example") => Act::Say("451 4.3.2 later"),
            Moment::Recipient(to)
                if to.ends_with("@no.example") && !kind.load(Ordering::Relaxed) =>
            {
                Act::Say("550 5.1.1 no such user")
            }
            _ => Act::Accept,
        });
        let home = Home::new(&[Provider::plain("main", sink.port).retry(3, 60_000)]).args(args);
        let app = home.start().await;
        Self { app, home, sink, is_kind }
    }

    /// Posts a notification whose jobs are all in this state then; its id.
    async fn post(&self, state: &str, body: &Value) -> String {
        let id = self.app.notify(body).await;
        self.app.jobs_are(&id, &[state]).await;
        id
    }

    fn page(&self, path: &str) -> String {
        format!("{}/#/{path}", self.app.client.url())
    }

    /// Waits until the sink has so many letters; to whom.
    async fn delivered(&self, letters_count: usize) -> Vec<String> {
        eventually("the letters arrive", async || {
            let letters = self.sink.letters();
            let all = || letters.iter().map(|letter| letter.recipient.clone()).collect();
            (letters.len() == letters_count).then(all)
        })
        .await
    }

    async fn dead_count(&self) -> Value {
        self.app.client.get("/deadletters").await["total"].clone()
    }
}

fn to(recipients: &[&str], subject: &str) -> Value {
    json!({"recipients": recipients, "subject": subject, "text": "Please look."})
}

/// The page ran without an error, and its policy forbade nothing that it does.
async fn ran_cleanly(browser: &Browser) {
    assert_eq!(browser.console().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_is_sent_again_after_a_question_and_delivered() {
    if !need("chromium") {
        return;
    }
    let scene = Scene::start().await;
    let id = scene.post("dead", &to(&["ada@no.example"], "Breakglass on prod-1")).await;
    let browser = Browser::start().await;
    browser.open(&scene.page("")).await;
    browser.reads("Providers in trouble").await;
    let main = "section[aria-label='Provider main']";
    browser
        .sees(&format!("document.querySelector(\"{main}\").innerText.includes('healthy')"))
        .await;
    browser
        .sees(
            "/^Queue over the last hour: now 0, at most/.test(\
        document.querySelector('.chart svg').getAttribute('aria-label'))",
        )
        .await;
    browser.reads("Next check").await;

    browser.click("nav a[data-view=deadletters]").await;
    browser.reads("Breakglass on prod-1").await;
    browser.reads("550 5.1.1 no such user").await;
    scene.is_kind.store(true, Ordering::Relaxed);
    browser.click("button[data-act=retry]").await;
    let asked = browser.sees("document.querySelector('dialog[open]')?.innerText").await;
    for told in ["Send this dead letter again?", "ada@no.example", "Breakglass on prod-1", "main"] {
        assert!(asked.as_str().is_some_and(|asked| asked.contains(told)), "{asked}");
    }
    browser.click("dialog .no").await;
    browser.sees("!document.querySelector('dialog[open]')").await;
    assert_eq!(scene.dead_count().await, 1, "a question that is not answered does nothing");

    browser.click("button[data-act=retry]").await;
    browser.click("dialog button[type=submit]").await;
    assert_eq!(scene.delivered(1).await, ["ada@no.example"]);
    browser.reads("Queued again: the mail to ada@no.example.").await;
    browser.reads("There are no dead letters").await;

    browser.open(&scene.page(&format!("notifications/{id}"))).await;
    browser.reads("Attempt 2").await;
    browser.reads("delivered").await;
    browser.sees("document.querySelector('.dialogue .here')?.innerText === 'dot'").await;
    browser.sees("document.querySelectorAll('.dialogue .here')[1]?.innerText === 'rcpt'").await;
    ran_cleanly(&browser).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sending_all_again_touches_what_the_filter_shows_and_nothing_else() {
    if !need("chromium") {
        return;
    }
    let scene = Scene::start().await;
    let team = ["ada.team@no.example", "bob.team@no.example", "eve.team@no.example"];
    scene.post("dead", &to(&team, "For the team")).await;
    scene.post("dead", &to(&["x@no.example", "y@no.example"], "For others")).await;
    scene.is_kind.store(true, Ordering::Relaxed);
    let browser = Browser::start().await;
    browser.open(&scene.page("deadletters")).await;
    browser.reads("5 dead letters").await;
    browser.fill("#filter-recipient", "TEAM@no").await;
    browser.click("form.filter button").await;
    browser.reads("3 dead letters").await;
    browser.sees("!document.querySelector('main').innerText.includes('For others')").await;

    browser.click("button[data-act=retry-all]").await;
    browser.reads("Send 3 dead letters again?").await;
    browser.click("dialog button[type=submit]").await;
    browser.reads("Queued again: 3 dead letters.").await;
    let mut delivered = scene.delivered(3).await;
    delivered.sort();
    assert_eq!(delivered, team);
    assert_eq!(scene.dead_count().await, 2);
    browser.reads("Nothing matches.").await;
    ran_cleanly(&browser).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_is_cancelled_and_a_dead_letter_is_deleted() {
    if !need("chromium") {
        return;
    }
    let scene = Scene::start().await;
    let waiting = scene.post("scheduled", &to(&["ada@later.example"], "Not needed any more")).await;
    scene.post("dead", &to(&["bob@no.example"], "Not for Bob")).await;
    let browser = Browser::start().await;
    browser.open(&scene.page("jobs?state=scheduled")).await;
    browser.sees("!document.querySelector('main').innerText.includes('bob@')").await;
    browser.click("button[data-act=cancel]").await;
    browser.reads("Cancel 1 job of this notification?").await;
    browser.click("dialog button.grave").await;
    browser.reads("Cancelled: 1 job.").await;
    scene.app.jobs_are(&waiting, &["cancelled"]).await;
    browser.reads("Nothing matches.").await;

    browser.open(&scene.page("deadletters")).await;
    browser.click("tbody a").await;
    browser.reads("Taken in").await;
    browser.click("button[data-act=discard]").await;
    browser.reads("It is never delivered then").await;
    browser.click("dialog button.grave").await;
    browser.reads("There are no dead letters").await;
    assert_eq!(scene.dead_count().await, 0);
    assert!(scene.sink.letters().is_empty());
    ran_cleanly(&browser).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happens_meanwhile_is_shown_where_the_reader_is() {
    if !need("chromium") {
        return;
    }
    let mut scene = Scene::start().await;
    for n in 0..30 {
        scene.app.notify(&to(&[&format!("to-{n}@later.example")], "s")).await;
    }
    scene.app.queue_has("main", "scheduled", 30).await;
    let browser = Browser::start().await;
    browser.open(&scene.page("jobs")).await;
    browser.sees("document.querySelectorAll('tbody tr').length === 30").await;
    browser.fill("#filter-recipient", "half a wo").await;
    browser.run("scrollTo(0, 300)").await;
    scene.post("scheduled", &to(&["news@later.example"], "s")).await;
    browser.reads("news@later.example").await;
    browser
        .sees(
            "scrollY >= 300 && document.activeElement.id === 'filter-recipient' && \
        document.activeElement.value === 'half a wo'",
        )
        .await;

    let other = Provider::plain("other", scene.sink.port);
    scene.home.providers(&[other]);
    browser.open(&scene.page("")).await;
    browser.reads("✕ removed").await;
    browser.reads("It is not configured any more.").await;
    ran_cleanly(&browser).await;

    scene.app.process.kill9();
    browser.sees("!document.getElementById('trouble').hidden").await;
    browser.reads("The server does not answer.").await;
    browser.reads("What is shown below may be old.").await;
    browser.reads("✕ removed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_list_is_read_page_by_page() {
    if !need("chromium") {
        return;
    }
    let scene = Scene::start().await;
    let all: Vec<String> = (0..55).map(|n| format!("to-{n:02}@no.example")).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    scene.post("dead", &to(&all, "For many")).await;
    let browser = Browser::start().await;
    for path in ["jobs", "deadletters"] {
        browser.open(&scene.page(path)).await;
        browser.sees("document.querySelectorAll('tbody tr').length === 50").await;
        browser.click("nav.pages a").await;
        browser.sees("document.querySelectorAll('tbody tr').length === 5").await;
        browser.click("nav.pages a").await;
        browser.sees("document.querySelectorAll('tbody tr').length === 50").await;
    }
    ran_cleanly(&browser).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_for_an_id_opens_what_it_names() {
    if !need("chromium") {
        return;
    }
    let scene = Scene::start().await;
    let id = scene.post("dead", &to(&["ada@no.example"], "Found by its id")).await;
    let letter = text(&scene.app.client.dead_letters().await[0]["id"]);
    let browser = Browser::start().await;
    for (given, place) in [(&id, "notifications"), (&letter, "deadletters")] {
        browser.open(&scene.page("jobs")).await;
        browser.fill("#filter-recipient", given).await;
        browser.click("form.filter button").await;
        browser.reads("Found by its id").await;
        browser.sees(&format!("location.hash === '#/{place}/{given}'")).await;
    }
    browser.open(&scene.page("jobs")).await;
    browser.fill("#filter-recipient", "01a205c3-2dd0-7680-b861-77841a510462").await;
    browser.click("form.filter button").await;
    browser.reads("No notification and no dead letter has this id.").await;
}
