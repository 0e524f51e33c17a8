//! Who can use the page: with a token, without a mouse, on a phone, at night.

use serde_json::json;

use super::{Scene, ran_cleanly, to};
use crate::support::browser::{Browser, ENTER, ESCAPE};
use crate::support::need;
use std::sync::atomic::Ordering;

const TOKEN: &str = "right-0123456789abcdef0123456789abcdef";

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_token_is_refused_and_the_right_one_is_kept_in_its_tab_alone() {
    if !need("chromium") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("tokens");
    std::fs::write(&file, TOKEN).expect("write the token");
    let file = file.to_str().expect("UTF-8");
    let scene = Scene::with(&["--auth", "token", "--token-file", file]).await;
    let browser = Browser::start().await;
    browser.open(&scene.page("")).await;
    browser.reads("This server asks for a token.").await;
    browser.fill("#token", "wrong-0123456789abcdef0123456789abcdef").await;
    browser.press(ENTER).await;
    browser.sees("document.querySelector('.sign-in [role=alert]').checkVisibility()").await;
    browser.reads("The server does not take this token.").await;

    browser.fill("#token", TOKEN).await;
    browser.press(ENTER).await;
    browser.reads("Providers in trouble").await;
    browser.sees("localStorage.length === 0 && document.cookie === ''").await;
    browser.sees(&format!("!document.documentElement.outerHTML.includes('{TOKEN}')")).await;
    browser.open("about:blank").await;
    browser.open(&scene.page("jobs")).await;
    browser.reads("There are no jobs").await;

    browser.click("#sign-out").await;
    browser.reads("This server asks for a token.").await;
    browser.sees("sessionStorage.length === 0").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_can_be_done_with_the_keyboard_alone() {
    if !need("chromium") {
        return;
    }
    let scene = Scene::start().await;
    scene.post("dead", &to(&["ada@no.example"], "By keyboard")).await;
    scene.is_kind.store(true, Ordering::Relaxed);
    let browser = Browser::start().await;
    browser.open(&scene.page("")).await;
    browser.reads("Providers in trouble").await;
    browser.tab_to("it.matches('nav a[data-view=deadletters]')").await;
    browser.press(ENTER).await;
    browser.sees("document.activeElement.innerText === 'Dead letters'").await;
    browser.tab_to("it.matches('button[data-act=retry]')").await;
    let outline = "getComputedStyle(document.activeElement).outlineStyle !== 'none'";
    browser.sees(outline).await;

    browser.press(ENTER).await;
    browser
        .sees("document.activeElement.closest('dialog[open]')?.matches('[aria-labelledby]')")
        .await;
    browser.press(ESCAPE).await;
    browser.sees("!document.querySelector('dialog[open]')").await;
    browser.sees("document.activeElement.matches('button[data-act=retry]')").await;
    assert_eq!(scene.dead_count().await, 1);

    browser.press(ENTER).await;
    browser.sees("document.activeElement.closest('dialog[open]')").await;
    browser.tab_to("it.matches('dialog button[type=submit]')").await;
    browser.sees(outline).await;
    browser.press(ENTER).await;
    assert_eq!(scene.delivered(1).await, ["ada@no.example"]);
    browser
        .sees("document.querySelector('[role=status]').innerText.startsWith('Queued again')")
        .await;
    // Every control says what it is.
    let nameless = "[...document.querySelectorAll('a, button, input, select')].filter((it) => \
        !(it.innerText || it.labels?.length || it.ariaLabel)).length";
    for path in ["", "jobs", "deadletters"] {
        browser.open(&scene.page(path)).await;
        browser.sees("document.getElementById('main').ariaBusy === 'false'").await;
        assert_eq!(browser.run(&format!("return {nameless}")).await, 0, "{path}");
    }
    ran_cleanly(&browser).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_phone_nothing_is_wider_than_the_screen_by_day_and_by_night() {
    if !need("chromium") {
        return;
    }
    let scene = Scene::start().await;
    let long = format!("{}@no.example", "a".repeat(60));
    let subject = format!("{} {}", "Breakglass".repeat(40), "<wide>".repeat(60));
    let id = scene.post("dead", &to(&[&long], &subject)).await;
    let letter = scene.app.client.dead_letters().await[0]["id"].clone();
    let letter = format!("deadletters/{}", letter.as_str().expect("an id"));
    let browser = Browser::phone().await;
    let notification = format!("notifications/{id}");
    for path in ["", "jobs", "deadletters", &notification, &letter] {
        browser.open(&scene.page(path)).await;
        browser.sees("document.querySelector('#main h1')").await;
        let widths = "return [innerWidth, document.documentElement.scrollWidth]";
        assert_eq!(browser.run(widths).await, json!([390, 390]), "{path}");
    }
    browser.click("button[data-act=retry]").await;
    browser
        .sees("document.querySelector('dialog[open]')?.getBoundingClientRect().right <= 390")
        .await;
    browser.click("dialog .no").await;

    let ground = "return getComputedStyle(document.body).backgroundColor.match(/[0-9]+/)[0] * 1";
    browser.prefer("light").await;
    let day = browser.run(ground).await.as_u64().expect("a colour");
    browser.prefer("dark").await;
    let night = browser.run(ground).await.as_u64().expect("a colour");
    assert!(200 < day && night < 60, "{day} {night}");
    ran_cleanly(&browser).await;
}
