//! A caller of the API: JSON over kept connections, any number of calls at once.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{HeaderMap, Method, Request};
use hyper_util::client::legacy::{Client as Http, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

use super::openapi;
use super::wait::LIMIT;

/// Speaks to one server. A clone shares its connections.
#[derive(Clone)]
pub struct Client {
    base: String,
    http: Http<HttpConnector, Full<Bytes>>,
}

/// What the server said.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: String,
}

impl Answer {
    /// The body as JSON.
    ///
    /// # Panics
    /// When it is none.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body)
            .unwrap_or_else(|_| panic!("{}: no JSON: {}", self.status, self.body))
    }
}

impl Client {
    /// For the server at `address`, as `127.0.0.1:8080`.
    pub fn new(address: &str) -> Self {
        // A post that is sent twice would look like a ghost. The server ends a connection that is
        // idle for 30 s, perhaps just when the next request is on its way.
        let http = Http::builder(TokioExecutor::new())
            .retry_canceled_requests(false)
            .pool_idle_timeout(Duration::from_secs(10))
            .build_http();
        Self { base: format!("http://{address}"), http }
    }

    /// The URL of the server.
    pub fn url(&self) -> &str {
        &self.base
    }

    /// One exchange, held against the document of the API. An error means that no whole answer was
    /// read.
    ///
    /// # Errors
    /// Why it was not, for a person.
    ///
    /// # Panics
    /// When the document describes it otherwise.
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        sent: Option<&Value>,
    ) -> Result<Answer, String> {
        let asked = method.to_string();
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if sent.is_some() {
            request = request.header("content-type", "application/json");
        }
        let bytes = sent.map_or_else(Bytes::new, |value| value.to_string().into());
        let request = request.body(Full::new(bytes)).expect("a valid request");
        let exchange = async {
            let answer = self.http.request(request).await.map_err(|e| format!("{e:?}"))?;
            let (head, body) = answer.into_parts();
            let bytes = body.collect().await.map_err(|e| format!("{e:?}"))?.to_bytes();
            let (status, headers) = (head.status.as_u16(), head.headers);
            let text = String::from_utf8_lossy(&bytes).into_owned();
            openapi::check(&asked, path, status, &headers, &text);
            openapi::check_request(&asked, path, sent, status);
            Ok(Answer { status, headers, body: text })
        };
        tokio::time::timeout(Duration::from_secs(30), exchange)
            .await
            .unwrap_or_else(|_| Err("no answer within 30 s".into()))
    }

    /// Posts to `/notify`.
    ///
    /// # Errors
    /// As `call`.
    pub async fn notify(&self, body: &Value, key: Option<&str>) -> Result<Answer, String> {
        let headers: Vec<_> = key.map(|key| ("idempotency-key", key)).into_iter().collect();
        self.call(Method::POST, "/notify", &headers, Some(body)).await
    }

    /// Posts to `/notify` and gives the 202's body.
    ///
    /// # Panics
    /// When it is not accepted.
    pub async fn accepted(&self, body: &Value) -> Value {
        let answer = self.notify(body, None).await.expect("an answer");
        assert_eq!(answer.status, 202, "{}", answer.body);
        answer.json()
    }

    /// Posts to `/notify` until it is accepted: a connection that ends before it is answered says
    /// only that others come first. The subject is its idempotency key.
    ///
    /// # Panics
    /// When it is refused, or not accepted after the limit.
    pub async fn accepted_in_the_end(&self, body: &Value) {
        let key = body["subject"].as_str().expect("a subject of its own");
        let begun = Instant::now();
        loop {
            match self.notify(body, Some(key)).await {
                // Not while its first attempt is still being answered.
                Ok(answer) if answer.status != 409 => {
                    assert_eq!(answer.status, 202, "{}", answer.body);
                    return;
                }
                Ok(_) | Err(_) => assert!(begun.elapsed() < 3 * LIMIT, "{key} is not accepted"),
            }
            tokio::task::yield_now().await;
        }
    }

    /// The JSON at `path`.
    ///
    /// # Panics
    /// When the answer is not a 200.
    pub async fn get(&self, path: &str) -> Value {
        let answer = self.call(Method::GET, path, &[], None).await.expect("an answer");
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        answer.json()
    }

    /// Posts JSON to `path`.
    ///
    /// # Panics
    /// When nobody answers.
    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.call(Method::POST, path, &[], Some(body)).await.expect("an answer")
    }

    /// `DELETE` of `path`.
    ///
    /// # Panics
    /// When nobody answers.
    pub async fn delete(&self, path: &str) -> Answer {
        self.call(Method::DELETE, path, &[], None).await.expect("an answer")
    }

    /// The status of `path`; `None` when nobody answers.
    pub async fn status(&self, path: &str) -> Option<u16> {
        self.call(Method::GET, path, &[], None).await.ok().map(|answer| answer.status)
    }

    /// All dead letters, over all pages.
    ///
    /// # Panics
    /// When a page is not a 200.
    pub async fn dead_letters(&self) -> Vec<Value> {
        self.all_of("/deadletters?limit=100").await
    }

    /// All jobs that are remembered, over all pages.
    ///
    /// # Panics
    /// When a page is not a 200.
    pub async fn jobs(&self) -> Vec<Value> {
        self.all_of("/jobs?limit=1000").await
    }

    async fn all_of(&self, first: &str) -> Vec<Value> {
        let mut all = Vec::new();
        let mut path = first.to_owned();
        loop {
            let mut page = self.get(&path).await;
            all.append(page["items"].as_array_mut().expect("items"));
            match page["next"].as_str() {
                Some(next) => path = format!("{first}&cursor={next}"),
                None => return all,
            }
        }
    }
}

/// The condition of this type of an item of `GET /providers`; null when it has none.
///
/// # Panics
/// When the item has no list of conditions.
pub fn condition(provider: &Value, condition_type: &str) -> Value {
    let mut all = provider["conditions"].as_array().expect("conditions").iter();
    all.find(|condition| condition["type"] == condition_type).cloned().unwrap_or_default()
}

/// A string of an answer.
///
/// # Panics
/// When it is none.
pub fn text(value: &Value) -> String {
    value.as_str().expect("a string").to_owned()
}
