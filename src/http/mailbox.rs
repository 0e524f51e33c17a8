//! The mailbox of `dev` as plain text: a list, and one message as its reader would see it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::extract::Path as UrlPath;
use axum::extract::rejection::PathRejection;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use mail_parser::{Addr, Message, MessageParser, PartType};

use super::problem::Problem;

/// The list shows at most this many of the newest messages.
const SHOWN_MAX: usize = 200;

/// `GET /mailbox`, over a folder of messages.
pub(super) async fn list(folder: Arc<Path>) -> Result<Response, Problem> {
    let read = tokio::task::spawn_blocking(move || newest(&folder)).await;
    let lines = read.map_err(std::io::Error::other).and_then(|lines| lines);
    let lines = lines.map_err(|_| Problem::not_found("The mailbox cannot be read."))?;
    let head = match lines.len() {
        0 => "The mailbox is empty.\n".to_owned(),
        1 => "1 message\n".to_owned(),
        count => format!("{count} messages, newest first\n"),
    };
    Ok(text(head + &lines.concat()))
}

/// `GET /mailbox/{name}`.
pub(super) async fn show(
    folder: Arc<Path>,
    name: Result<UrlPath<String>, PathRejection>,
) -> Result<Response, Problem> {
    let missing = || Problem::not_found("There is no such message in the mailbox.");
    // Only names that we gave: nothing in them leads out of the folder.
    let UrlPath(name) = name.map_err(|_| missing())?;
    let id = name.strip_suffix(".eml").and_then(|id| uuid::Uuid::parse_str(id).ok());
    let id = id.ok_or_else(missing)?;
    let bytes = tokio::fs::read(folder.join(format!("{id}.eml"))).await.map_err(|_| missing())?;
    let message = MessageParser::default().parse(&bytes).ok_or_else(missing)?;
    let mut page = String::new();
    for name in ["Date", "From", "To", "Reply-To", "Subject", "Message-ID"] {
        if let Some(value) = header_text(&message, name) {
            page += &format!("{name}: {value}\n");
        }
    }
    for part in &message.parts {
        if let PartType::Text(body) | PartType::Html(body) = &part.body {
            page += &format!("\n{body}\n");
        }
    }
    Ok(text(page))
}

fn newest(folder: &Path) -> std::io::Result<Vec<String>> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "eml"))
        .collect();
    files.sort_unstable_by(|a, b| b.cmp(a));
    files.iter().take(SHOWN_MAX).map(|path| line(path)).collect()
}

fn line(path: &Path) -> std::io::Result<String> {
    let bytes = std::fs::read(path)?;
    let message = MessageParser::default().parse_headers(&bytes).unwrap_or_default();
    let shown = |name| header_text(&message, name).unwrap_or_default();
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    Ok(format!("/mailbox/{name}  {}  {}  {}\n", shown("Date"), shown("To"), shown("Subject")))
}

fn header_text(message: &Message<'_>, name: &str) -> Option<String> {
    let address = |address: Option<&mail_parser::Address<'_>>| {
        let shown = |addr: &Addr<'_>| match (&addr.name, &addr.address) {
            (Some(name), Some(address)) => format!("{name} <{address}>"),
            (_, address) => address.as_deref().unwrap_or_default().to_owned(),
        };
        address.map(|list| list.iter().map(shown).collect::<Vec<_>>().join(", "))
    };
    match name {
        "Date" => message.date().map(mail_parser::DateTime::to_rfc3339),
        "From" => address(message.from()),
        "To" => address(message.to()),
        "Reply-To" => address(message.reply_to()),
        "Subject" => message.subject().map(str::to_owned),
        _ => message.message_id().map(str::to_owned),
    }
}

fn text(page: String) -> Response {
    let plain = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
    (StatusCode::OK, plain, page).into_response()
}
