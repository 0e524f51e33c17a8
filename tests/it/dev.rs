//! The first five minutes: `dev`, the command that it prints, and the mail that it catches.

use serde_json::{Value, json};

use crate::support::app::{App, Home};
use crate::support::wait::{LIMIT, eventually};

/// What the server printed for people, once it is there.
async fn welcome(app: &App) -> String {
    eventually("the welcome", async || {
        let log = app.process.log();
        let lines: Vec<_> = log.lines().filter(|line| !line.starts_with('{')).collect();
        let text = lines.join("\n");
        text.contains("Ctrl-C").then_some(text)
    })
    .await
}

async fn page(app: &App, path: &str) -> String {
    let answer = app.client.call(hyper::Method::GET, path, &[], None).await.expect("an answer");
    assert_eq!(answer.status, 200, "{path}: {}", answer.body);
    answer.body
}

/// The list of the mailbox, once it holds so many messages.
async fn mailbox(app: &App, messages_count: usize) -> Vec<String> {
    eventually("the mailbox holds it", async || {
        let list = page(app, "/mailbox").await;
        let lines: Vec<_> = list.lines().filter(|line| line.starts_with("/mailbox/")).collect();
        (lines.len() == messages_count).then(|| lines.iter().map(ToString::to_string).collect())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn dev_says_how_to_post_and_where_the_mail_is_and_goes_on_from_there() {
    let home = Home::new(&[]);
    let mut app = home.dev().ready().await.expect("it starts");
    let text = welcome(&app).await;
    let url = text.split("ready at ").nth(1).and_then(|rest| rest.split(',').next());
    let url = url.expect("a URL").to_owned();
    assert!(url.starts_with("http://127.0.0.1:"), "{text}");
    assert!(text.contains(&format!("curl -i {url}/notify")), "{text}");
    assert!(text.contains(&format!("{url}/mailbox")) && text.contains(&format!("{url}/queue")));

    let body = text.split("-d '").nth(1).and_then(|rest| rest.split('\'').next()).expect("a body");
    let body: Value = serde_json::from_str(body).expect("what curl would post is JSON");
    let id = app.notify(&body).await;
    app.jobs_are(&id, &["delivered"]).await;
    let lines = mailbox(&app, 1).await;
    assert!(lines[0].contains(body["subject"].as_str().expect("a subject")), "{lines:?}");
    let path = lines[0].split(' ').next().expect("a path").to_owned();
    let mail = page(&app, &path).await;
    for part in [&body["recipients"][0], &body["subject"], &body["text"]] {
        assert!(mail.contains(part.as_str().expect("text")), "{mail}");
    }
    assert_eq!(app.client.status("/mailbox/..%2fstore").await, Some(404));

    app.process.interrupt();
    assert!(app.process.exit(LIMIT).await.success(), "{}", app.process.log());
    let app = home.dev().ready().await.expect("it starts again");
    assert_eq!(page(&app, &path).await, mail);
    app.jobs_are(&id, &["delivered"]).await;
    let again = json!({"recipients": ["ada@example.com"], "subject": "second", "text": "t"});
    let id = app.notify(&again).await;
    app.jobs_are(&id, &["delivered"]).await;
    let lines = mailbox(&app, 2).await;
    assert!(lines[0].contains("second"), "newest first: {lines:?}");
}
