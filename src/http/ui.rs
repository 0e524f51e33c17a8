//! The operator's web page: files within the binary. They hold no data, so they are answered
//! without authentication; what the page shows it reads from the API as any caller does.
//!
//! The page runs no script and loads nothing but these files. A message is shown in a frame within
//! `message.html`, whose policy is its own: the styles that a message brings along and the images
//! that are part of it, no script, no form, nothing from elsewhere.

use std::sync::Arc;

use axum::Router;
use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use sha2::{Digest, Sha256};

use super::Api;
use super::problem::Problem;

/// One file of the page.
struct File {
    /// Below `/ui/`; the page itself has none and is at `/`.
    name: &'static str,
    media_type: &'static str,
    text: &'static str,
}

macro_rules! files {
    ($($name:literal: $media_type:ident),* $(,)?) => {
        [$(File {
            name: $name,
            media_type: $media_type,
            text: include_str!(concat!("ui/", $name)),
        }),*]
    };
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

const PAGE: &str = "index.html";
const MESSAGE: &str = "message.html";

static FILES: [File; 18] = files! {
    "index.html": HTML,
    "message.html": HTML,
    "icon.svg": SVG,
    "style.css": CSS,
    "controls.css": CSS,
    "parts.css": CSS,
    "lists.css": CSS,
    "act.js": JS,
    "api.js": JS,
    "app.js": JS,
    "chart.js": JS,
    "detail.js": JS,
    "dialog.js": JS,
    "dom.js": JS,
    "lists.js": JS,
    "message.js": JS,
    "overview.js": JS,
    "words.js": JS,
};

/// What the page may do: run and load its own files, and call its own server.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    img-src 'self'; connect-src 'self'; frame-src 'self'; base-uri 'none'; form-action 'self'; \
    frame-ancestors 'none'";

/// What a message may do. The frame in it inherits this, and so it cannot lead elsewhere either.
const MESSAGE_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'self'";

/// `/`, and the files below `/ui/`.
pub(super) fn router() -> Router<Arc<Api>> {
    let page = async |headers: HeaderMap| answer(PAGE, &headers);
    Router::new().route("/", get(page)).route("/ui/{name}", get(below))
}

/// Whether this path is the page or one of its files.
pub(super) fn is_file(path: &str) -> bool {
    path == "/" || path.strip_prefix("/ui/").is_some_and(|name| find(name).is_some())
}

async fn below(path: Result<Path<String>, PathRejection>, headers: HeaderMap) -> Response {
    match path {
        Ok(Path(name)) => answer(&name, &headers),
        Err(_) => missing(),
    }
}

fn missing() -> Response {
    Problem::not_found("There is no such file.").into_response()
}

fn find(name: &str) -> Option<&'static File> {
    FILES.iter().find(|file| file.name == name)
}

fn answer(name: &str, asked: &HeaderMap) -> Response {
    let Some(file) = find(name) else { return missing() };
    let tag = tag(file);
    let known = asked.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    let is_known = known.is_some_and(|known| known.split(',').any(|one| one.trim() == tag));
    let mut response = match is_known {
        true => StatusCode::NOT_MODIFIED.into_response(),
        false => ([(header::CONTENT_TYPE, file.media_type)], file.text).into_response(),
    };
    let policy = if file.name == MESSAGE { MESSAGE_POLICY } else { PAGE_POLICY };
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::REFERRER_POLICY, "no-referrer"),
        // A new version of the server brings a new page: asked for each time, sent when it changed.
        (header::CACHE_CONTROL, "no-cache"),
        (header::X_DNS_PREFETCH_CONTROL, "off"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        headers.insert(header::ETAG, tag);
    }
    response
}

fn tag(file: &File) -> String {
    let digest = Sha256::digest(file.text);
    let digits: String = digest.iter().take(12).map(|byte| format!("{byte:02x}")).collect();
    format!("\"{digits}\"")
}
