//! The client commands: what a person and a program get from a real server, and which exit code.
//! `unlike_ours` has the servers that do what ours does not, `waiting` those that are away for a
//! moment.

mod unlike_ours;
mod waiting;

use serde_json::{Value, json};

use crate::support::app::{App, Home, Provider};
use crate::support::cli::Shell;
use crate::support::client::text;
use crate::support::smtp::{Script, SmtpServer, Verb, say};
use crate::support::wait::eventually;

fn shell(app: &App) -> Shell {
    Shell::at(app.client.url())
}

/// A server that takes all mail but that to `no-…`, and its mail server.
async fn picky() -> (App, SmtpServer) {
    let script = Script::plain().on_line(Verb::Rcpt, "no-", say("550 5.1.1 no such user"));
    let server = SmtpServer::start(script).await;
    let app = Home::new(&[Provider::plain("main", server.port())]).start().await;
    (app, server)
}

/// The ids of so many dead letters, each of a notification of its own.
async fn dead_letters(app: &App, count: usize) -> Vec<String> {
    let mut ids = Vec::new();
    for n in 0..count {
        let to = format!("no-{n}@example.com");
        let id =
            app.notify(&json!({"recipients": [to], "subject": "s", "text": "The body."})).await;
        ids.push(text(&app.jobs_are(&id, &["dead"]).await["jobs"][0]["id"]));
    }
    ids
}

#[tokio::test(flavor = "multi_thread")]
async fn what_notify_hands_in_is_found_by_its_id_and_in_every_list() {
    let (app, server) = picky().await;
    let shell = shell(&app);
    let args = [
        "notify",
        "--to",
        "ada@example.com",
        "--to",
        "bob@example.com",
        "--subject",
        "Look",
        "--text-file",
        "-",
        "--html",
        "<p>Look</p>",
        "--escalation",
        "nowhere",
        "-o",
        "json",
    ];
    let ran = shell.run_with(&args, "From standard input.\n").await;
    assert!(ran.err.contains("warning: ") && ran.err.contains("nowhere"), "{ran:?}");
    let accepted = ran.json();
    assert_eq!(accepted["jobs"].as_array().map(Vec::len), Some(2), "{accepted}");
    let id = text(&accepted["id"]);
    app.jobs_are(&id, &["delivered"]).await;
    let mail = String::from_utf8_lossy(&server.accepted()[0].bytes).into_owned();
    assert!(mail.contains("From standard input.") && mail.contains("<p>Look</p>"), "{mail}");

    let shown = shell.run(&["jobs", "show", &id]).await.ended(0);
    for part in [&*id, "Look", "ada@example.com", "bob@example.com", "delivered", "main"] {
        assert!(shown.out.contains(part), "{part} is not in {shown:?}");
    }
    let jobs = shell.run(&["jobs", "--state", "delivered", "--provider", "main"]).await.ended(0);
    let lines: Vec<_> = jobs.out.lines().collect();
    assert!(lines[0].starts_with("NOTIFICATION ") && lines.len() == 3, "{jobs:?}");
    assert!(lines[1..].iter().all(|line| line.starts_with(&id)), "{jobs:?}");
    let queue = shell.run(&["queue"]).await.ended(0);
    assert!(queue.out.lines().nth(1).is_some_and(|line| line.starts_with("main ")), "{queue:?}");
    let providers = shell.run(&["providers"]).await.ended(0);
    assert!(providers.out.contains(&format!("127.0.0.1:{}", server.port())), "{providers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn json_is_one_document_and_an_empty_list_says_so_on_stderr_alone() {
    let (app, _server) = picky().await;
    let shell = shell(&app).env("BREAKGLASS_MAILER_OUTPUT", "json");
    for (args, path) in [
        (&["queue"][..], "/queue"),
        (&["queue", "--provider", "main"], "/queue?provider=main"),
        (&["jobs"], "/jobs"),
        (&["deadletters", "list"], "/deadletters"),
    ] {
        assert_eq!(shell.run(args).await.json(), app.client.get(path).await, "{path}");
    }
    assert_eq!(shell.run(&["providers"]).await.json()["items"][0]["name"], "main");
    let ran = shell.run(&["deadletters", "list", "-o", "table"]).await.ended(0);
    assert_eq!((&*ran.out, &*ran.err), ("", "no dead letters\n"));
    assert_eq!(shell.run(&["jobs", "-o", "table"]).await.ended(0).err, "no jobs\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn notify_waits_for_the_end_of_its_jobs_and_fails_unless_all_are_delivered() {
    let script = Script::plain().on_line(Verb::Rcpt, "no-", say("550 5.1.1 no such user")).on_line(
        Verb::Rcpt,
        "later-",
        say("451 4.3.0 not now"),
    );
    let server = SmtpServer::start(script).await;
    let main = Provider::plain("main", server.port()).retry(1, 60_000);
    let app = Home::new(&[main]).start().await;
    let shell = shell(&app);
    let wait = async |to: &'static str, limit: &'static str| {
        let args = ["notify", "--subject", "s", "--text", "t", "--to", to, "--wait", limit];
        shell.run(&args).await
    };
    let ran = wait("ada@example.com", "1h").await.ended(0);
    assert!(ran.out.contains("delivered"), "{ran:?}");
    let ran = wait("ada@example.com,no-one@example.com", "1h").await.ended(1);
    assert!(ran.out.contains("550 5.1.1 no such user"), "{ran:?}");
    assert!(ran.err.contains("1 of 2 jobs are not delivered"), "{ran:?}");
    wait("later-ada@example.com", "1s").await.ended(1);
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_shown_sent_again_and_taken_out() {
    let (app, server) = picky().await;
    let shell = shell(&app);
    let ids = dead_letters(&app, 3).await;
    let list = shell.run(&["deadletters", "list", "--reason", "rejected"]).await.ended(0);
    let shown: Vec<_> = list.out.lines().skip(1).map(|line| &line[..36]).collect();
    assert_eq!(shown, [&ids[2], &ids[1], &ids[0]], "newest first");
    let few = shell.run(&["deadletters", "list", "--limit", "2"]).await.ended(0);
    assert_eq!((few.out.lines().count(), &*few.err), (3, "there are more: --all shows them\n"));

    let one = shell.run(&["deadletters", "show", &ids[0]]).await.ended(0);
    assert!(
        one.out.contains("550 5.1.1 no such user") && !one.out.contains("The body."),
        "{one:?}"
    );
    let one = shell.run(&["deadletters", "show", &ids[0], "--content"]).await.ended(0);
    assert!(one.out.contains("\nTEXT\nThe body.\n"), "{one:?}");

    let deleted = shell.run(&["deadletters", "delete", &ids[0]]).await.ended(0);
    assert_eq!(deleted.out, format!("{} deleted\n", ids[0]));
    server.follow(Script::plain());
    // One that is gone does not hold up the others.
    let ran = shell.run(&["deadletters", "retry", &ids[0], &ids[1]]).await.ended(1);
    assert_eq!(ran.out, format!("{} queued again\n", ids[1]));
    assert!(ran.err.contains(&format!("{}: the server refused (404)", ids[0])), "{ran:?}");
    assert!(ran.err.contains("1 of 2 failed\nhint: `breakglass-mailer deadletters list`"));
    let ran = shell.run(&["deadletters", "retry", "--all", "--reason", "expired"]).await.ended(0);
    assert_eq!(ran.out, "0 queued again\n");
    let ran = shell.run(&["deadletters", "retry", "--all", "-o", "json"]).await;
    assert_eq!(ran.json(), json!({"retried": 1, "refused": 0}));
    app.drained().await;
    assert_eq!(server.accepted().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_id_that_failed_is_told_to_a_program_with_the_problem() {
    let (app, _server) = picky().await;
    let ids = dead_letters(&app, 1).await;
    let args = ["deadletters", "retry", &ids[0], "--mail-provider", "nobody", "-o", "json"];
    let ran = shell(&app).run(&args).await.ended(1);
    assert!(ran.err.contains("  /mailProvider: does not exist\n"), "{ran:?}");
    let done: Value = serde_json::from_str(&ran.out).expect("JSON");
    assert_eq!(done["retried"], json!([]));
    assert_eq!(done["failed"][0]["id"], ids[0].as_str());
    assert_eq!(done["failed"][0]["problem"]["errors"][0]["pointer"], "/mailProvider");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_names_each_bad_field_and_what_to_do() {
    let (app, _server) = picky().await;
    let shell = shell(&app);
    let bad = ["notify", "--to", "ada", "--subject", "", "--text", "t"];
    let ran = shell.run(&bad).await.ended(1);
    assert!(ran.out.is_empty() && ran.err.contains("refused (422)"), "{ran:?}");
    assert!(ran.err.contains("  /recipients/0: ") && ran.err.contains("  /subject: "), "{ran:?}");
    let unknown = "01a205c3-2dd0-7680-b861-77841a510462";
    for (args, listing) in [
        (["jobs", "show", unknown], "jobs"),
        (["deadletters", "show", unknown], "deadletters list"),
        (["deadletters", "delete", unknown], "deadletters list"),
    ] {
        let ran = shell.run(&args).await.ended(1);
        assert!(ran.err.contains("refused (404)"), "{ran:?}");
        assert!(ran.err.contains(&format!("\nhint: `breakglass-mailer {listing}` ")), "{ran:?}");
    }
    let ran = shell.run(&["queue", "--provider", "nobody"]).await.ended(1);
    let told = "the server has no provider nobody\nhint: `breakglass-mailer providers` ";
    assert!(ran.out.is_empty() && ran.err.contains(told), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_flags_of_the_server_are_taken_before_and_after_show() {
    let (app, _server) = picky().await;
    let post = json!({"recipients": ["ada@example.com"], "subject": "s", "text": "t"});
    let id = app.notify(&post).await;
    let shell = Shell::default().env("BREAKGLASS_MAILER_SERVER", "http://127.0.0.1:1");
    let url = app.client.url();
    for args in [
        ["jobs", "--server", url, "-o", "json", "show", &id],
        ["jobs", "show", &id, "--server", url, "-o", "json"],
        ["jobs", "-o", "json", "show", &id, "--server", url],
    ] {
        assert_eq!(shell.run(&args).await.json()["id"], *id);
    }
}

#[tokio::test]
async fn help_tells_what_the_program_is() {
    let help = Shell::default().run(&["--help"]).await.ended(0).out;
    assert!(help.starts_with("A durable mail gateway: a notification that was answered 202 "));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_given_twice_is_one_notification() {
    let (app, server) = picky().await;
    let shell = shell(&app).env("BREAKGLASS_MAILER_IDEMPOTENCY_KEY", "k-1");
    let args = ["notify", "--to", "ada@example.com", "--subject", "s", "--text", "t", "-o", "json"];
    let first = shell.run(&args).await.json();
    let again = shell.run(&args).await;
    assert!(again.err.contains("no second mail"), "{again:?}");
    assert_eq!(again.json(), first);
    app.drained().await;
    assert_eq!(server.accepted().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_went_away_is_no_failure() {
    let (app, _server) = picky().await;
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let mut child = shell(&app).command(&["providers"]).stdout(writer).spawn().expect("start it");
    let status = eventually("it ended", async || child.try_wait().expect("wait")).await;
    assert_eq!(status.code(), Some(0));
}

#[tokio::test]
async fn wrong_usage_is_exit_code_2() {
    let shell = Shell::default();
    for args in [
        &["notify", "--subject", "s"][..],
        &["notify", "--subject", "s", "--text-file", "-", "--html-file", "-"],
        &["notify", "--subject", "s", "--text", "t", "--text-file", "x"],
        &["queue", "--server", "127.0.0.1:8080"],
        &["jobs", "--state", "gone"],
        &["jobs", "show", "not-an-id"],
        &["deadletters", "retry"],
        &["deadletters", "retry", "--all", "--mail-provider", "other"],
        &["deadletters", "delete", "--all"],
    ] {
        let ran = shell.run(args).await.ended(2);
        assert!(ran.out.is_empty() && !ran.err.is_empty(), "{ran:?}");
    }
}

#[tokio::test]
async fn every_state_of_a_job_can_be_asked_for() {
    let help = Shell::default().run(&["jobs", "--help"]).await.ended(0).out;
    for state in breakglass_mailer::queue::Phase::ALL {
        assert!(help.contains(state.as_str()), "{}", state.as_str());
    }
}

#[tokio::test]
async fn completions_are_scripts_that_know_the_commands() {
    let shell = Shell::default();
    for name in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = shell.run(&["completions", name]).await.ended(0).out;
        assert!(script.contains("deadletters") && script.contains("retry"), "{name}: {script}");
    }
    if !std::path::Path::new("/bin/bash").exists() {
        return;
    }
    let script = shell.run(&["completions", "bash"]).await.out;
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), script).expect("write it");
    let check = std::process::Command::new("/bin/bash").arg("-n").arg(file.path()).output();
    let check = check.expect("run bash");
    assert!(check.status.success() && check.stderr.is_empty(), "{check:?}");
}
