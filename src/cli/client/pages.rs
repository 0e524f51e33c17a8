//! Lists of the server: one page, or all of them as one.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::failure::Failure;
use super::screen;
use super::server::{Answer, Server};
use crate::config::client::Pages;

/// The items of one page or of all.
#[derive(Deserialize)]
pub(super) struct Items<T> {
    pub items: Vec<T>,
    next: Option<String>,
}

/// The most that a server gives at once.
const PAGE_LEN_MAX: u16 = 1000;

/// Fetches the list at `path`: all pages as one document where all are wanted. Where there are
/// more than were wanted it says so on stderr.
///
/// # Errors
/// See [`Failure`].
pub(super) fn fetch<T: DeserializeOwned>(
    pages: &Pages,
    server: &Server,
    path: &str,
    filter: &[(&str, Option<&str>)],
) -> Result<Answer<Items<T>>, Failure> {
    let limit = if pages.all { PAGE_LEN_MAX } else { pages.limit }.to_string();
    let page = |cursor: Option<&str>| {
        let mut query = filter.to_vec();
        query.extend([("limit", Some(&*limit)), ("cursor", cursor)]);
        server.get::<Items<T>>(path, &query)
    };
    let mut found = page(None)?;
    if !pages.all {
        if found.view.next.is_some() {
            screen::note("there are more: --all shows them");
        }
        return Ok(found);
    }
    while let Some(cursor) = found.view.next.take() {
        let Answer { mut json, view, .. } = page(Some(&cursor))?;
        if view.next.as_ref() == Some(&cursor) {
            return Err(server.foreign("a list that does not go on"));
        }
        found.view.items.extend(view.items);
        found.view.next = view.next;
        if let Some(Value::Array(all)) = found.json.get_mut("items")
            && let Some(Value::Array(items)) = json.get_mut("items")
        {
            all.append(items);
        }
    }
    found.json["next"] = Value::Null;
    Ok(found)
}
