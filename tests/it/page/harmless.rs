//! Hostile mail in the page: it runs nothing, loads nothing and leads nowhere.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufStream};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::Scene;
use crate::support::browser::Browser;
use crate::support::need;
use crate::support::wait::eventually;

/// The note of a connection over which nothing came.
const EMPTY: &str = "nothing";

/// Notes every connection by the first line that comes over it. Answers with an empty page.
struct Trap {
    url: String,
    caught: Arc<Mutex<Vec<String>>>,
    listening: JoinHandle<()>,
}

impl Trap {
    async fn set() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let caught = Arc::new(Mutex::default());
        let notes: Arc<Mutex<Vec<String>>> = Arc::clone(&caught);
        let listening = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let place = {
                    let mut notes = notes.lock().expect("not poisoned");
                    notes.push(EMPTY.into());
                    notes.len() - 1
                };
                let notes = Arc::clone(&notes);
                tokio::spawn(async move {
                    let mut stream = BufStream::new(stream);
                    let mut line = String::new();
                    // Whoever hangs up early is caught all the same.
                    if stream.read_line(&mut line).await.is_ok_and(|length| 0 < length) {
                        notes.lock().expect("not poisoned")[place] = line.trim().to_owned();
                        let answer = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
                        let _ = stream.write_all(answer.as_bytes()).await;
                        let _ = stream.flush().await;
                    }
                });
            }
        });
        Self { url, caught, listening }
    }

    fn caught(&self) -> Vec<String> {
        self.caught.lock().expect("not poisoned").clone()
    }
}

impl Drop for Trap {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

/// Everything that a message might try, and what it may: styles and an image of its own.
fn hostile(trap: &str) -> String {
    let script = "top.ran = parent.parent.ran = window.ran = 1; \
        document.documentElement.setAttribute('ran', 1)";
    let pixel = "data:image/gif;base64,R0lGODlhAQABAIAAAAUEBAAAACwAAAAAAQABAAACAkQBADs=";
    format!(
        "<html onload=\"{script}\"><head><base href=\"{trap}/\">\
         <meta http-equiv=refresh content=\"0;url={trap}/refresh\">\
         <link rel=stylesheet href=\"{trap}/style\"><link rel=preconnect href=\"{trap}\">\
         <link rel=prefetch href=\"{trap}/prefetch\"><link rel=icon href=\"{trap}/icon\">\
         <style>@import \"{trap}/import\"; p {{ color: rgb(1, 2, 3) }} \
         body {{ background: url({trap}/background) }} \
         @font-face {{ font-family: f; src: url({trap}/font) }} b {{ font-family: f }}</style>\
         </head><body onpageshow=\"{script}\"><p id=said style=\"margin-left: 7px\">Read me</p>\
         <script>{script}</script><script src=\"{trap}/script\"></script>\
         \"><img src=\"{trap}/image\" onerror=\"{script}\" srcset=\"{trap}/set 2x\">\
         <img id=own src=\"{pixel}\"><b>f</b>\
         <svg onload=\"{script}\"><image href=\"{trap}/svg\"/><script>{script}</script></svg>\
         <video src=\"{trap}/video\" poster=\"{trap}/poster\" autoplay></video>\
         <audio src=\"{trap}/audio\" autoplay></audio><input autofocus onfocus=\"{script}\">\
         <iframe src=\"{trap}/frame\"></iframe>\
         <iframe srcdoc=\"<script>{script}</script>\"></iframe>\
         <object data=\"{trap}/object\"></object><embed src=\"{trap}/embed\">\
         <a id=link href=\"{trap}/link\" ping=\"{trap}/ping\">click</a>\
         <a id=top href=\"{trap}/top\" target=_top>click</a>\
         <a id=new href=\"{trap}/new\" target=_blank>click</a>\
         <a id=js href=\"javascript:{script}\">click</a>\
         <form action=\"{trap}/form\" method=post><button id=send>send</button></form>\
         <details open ontoggle=\"{script}\"><summary>s</summary></details></body></html>"
    )
}

/// The frame of the message, for scripts of the page.
const INNER: &str =
    "document.querySelector('iframe.letter').contentDocument.querySelector('iframe')";

/// From within the frame of a message that says `text`: nothing of it ran, here or further up, and
/// nobody was led away. Goes on in the page.
async fn is_harmless(browser: &Browser, text: &str) {
    browser.sees(&format!("document.getElementById('said')?.innerText === '{text}'")).await;
    browser.sees("!document.documentElement.hasAttribute('ran') && window.ran === undefined").await;
    browser.enter(None).await;
    browser.sees("window.ran === undefined && location.hash.startsWith('#/deadletters/')").await;
    browser.sees("document.querySelector('iframe.letter').contentWindow.ran === undefined").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_message_runs_nothing_and_loads_nothing() {
    if !need("chromium") {
        return;
    }
    let trap = Trap::set().await;
    let scene = Scene::start().await;
    let subject = format!(
        "</title></h1>\"'><img src=x onerror=\"window.ran=1\"><script>window.ran=1</script>\
         <img src={}/subject> javascript:window.ran=1",
        trap.url
    );
    let html = hostile(&trap.url);
    let body = json!({
        "recipients": ["ada@no.example"], "subject": subject, "html": html,
        "text": format!("<script>window.ran=1</script><img src={}/text>", trap.url),
    });
    let id = scene.post("dead", &body).await;
    let letter = scene.app.client.dead_letters().await[0]["id"].clone();
    let letter = letter.as_str().expect("an id").to_owned();
    let browser = Browser::start().await;
    let views = ["", "jobs", "deadletters", &format!("notifications/{id}")].map(str::to_owned);
    for path in views {
        browser.open(&scene.page(&path)).await;
        browser.sees("document.getElementById('main').ariaBusy === 'false'").await;
        browser.sees("document.querySelector('#main h1')").await;
        assert_eq!(browser.run("return document.images.length").await, 0, "{path}");
    }
    browser.open(&scene.page("deadletters")).await;
    browser.click("button[data-act=retry]").await;
    browser.reads("<script>window.ran=1</script>").await;
    browser.click("dialog .no").await;

    browser.open(&scene.page(&format!("deadletters/{letter}"))).await;
    browser.click("button[data-act=message]").await;
    browser.sees("document.querySelector('iframe.letter')").await;
    browser
        .run("for (const it of document.querySelectorAll('.message details')) it.open = true")
        .await;
    browser.reads("<script>window.ran=1</script><img src=").await;
    browser.sees(&format!("{INNER}?.srcdoc")).await;
    browser.enter(Some("iframe.letter")).await;
    browser.enter(Some("iframe")).await;
    browser.sees("document.readyState === 'complete' && document.getElementById('said')").await;
    let own = "getComputedStyle(document.getElementById('said')).color === 'rgb(1, 2, 3)' && \
        getComputedStyle(document.getElementById('said')).marginLeft === '7px' && \
        document.getElementById('own').naturalWidth === 1";
    browser.sees(own).await;
    for thing in ["#link", "#top", "#new", "#js", "#send"] {
        browser.click(thing).await;
    }
    is_harmless(&browser, "Read me").await;
    assert_eq!(trap.caught(), [""; 0], "nothing was asked for");

    // The frame holds without what is taken out of the message, too. Only connections that stay
    // empty are governed by no policy: by a preconnect, and ahead of the click on a link.
    let bare = html.replace("Read me", "Read me bare");
    let script = format!("{INNER}.srcdoc = {}", json!(bare));
    browser.run(&script).await;
    browser.enter(Some("iframe.letter")).await;
    browser.enter(Some("iframe")).await;
    browser.sees("document.readyState === 'complete' && document.getElementById('said')").await;
    browser.sees(own).await;
    for thing in ["#top", "#new", "#js", "#send"] {
        browser.click(thing).await;
    }
    is_harmless(&browser, "Read me bare").await;
    browser.open(&format!("{}/control", trap.url)).await;
    let requests = eventually("the trap catches what comes", async || {
        let mut caught = trap.caught();
        caught.retain(|line| line != EMPTY && !line.starts_with("GET /favicon.ico"));
        (!caught.is_empty()).then_some(caught)
    })
    .await;
    assert_eq!(requests, ["GET /control HTTP/1.1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_another_site_reads_nothing_and_changes_nothing() {
    if !need("chromium") {
        return;
    }
    let trap = Trap::set().await;
    let scene = Scene::start().await;
    scene.post("dead", &super::to(&["ada@no.example"], "Stay dead")).await;
    let letter = scene.app.client.dead_letters().await[0]["id"].clone();
    let letter = letter.as_str().expect("an id");
    scene.is_kind.store(true, Ordering::Relaxed);
    let browser = Browser::start().await;
    browser.open(&trap.url).await;
    let server = scene.app.client.url();
    let script = format!(
        "window.outcomes = [];
         const call = (path, options) => fetch('{server}' + path, options)
             .then((answer) => outcomes.push(answer.type), () => outcomes.push('refused'));
         call('/deadletters', {{}});
         call('/deadletters/retry', {{method: 'POST', mode: 'no-cors'}});
         call('/deadletters/{letter}/retry', {{method: 'POST', mode: 'no-cors', body: '{{}}'}});
         call('/deadletters/{letter}', {{method: 'DELETE'}});
         const frame = document.createElement('iframe');
         frame.src = '{server}/';
         frame.onload = () => {{ window.framed = true; }};
         document.body.append(frame);"
    );
    browser.run(&script).await;
    browser.sees("window.framed && outcomes.length === 4").await;
    let outcomes = browser.run("return outcomes.sort()").await;
    assert_eq!(outcomes, json!(["opaque", "opaque", "refused", "refused"]));
    browser.enter(Some("iframe")).await;
    browser.sees("!document.querySelector('main')").await;
    assert_eq!(scene.dead_count().await, 1);
    assert!(scene.sink.letters().is_empty());
}
