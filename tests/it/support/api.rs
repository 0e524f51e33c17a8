//! The API in this process: a router over a queue over a [`MemoryStore`], without sockets.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use breakglass_mailer::clock::Clock;
use breakglass_mailer::core::health::{HealthEvent, HealthIntervals};
use breakglass_mailer::core::job::{Attempt, AttemptOutcome, DeadReason, Job};
use breakglass_mailer::core::notification::{Address, Content};
use breakglass_mailer::core::outcome::{Reply, Stage};
use breakglass_mailer::core::provider::{
    Provider, ProviderName, RetryPolicy, Security, Sender, Smtp,
};
use breakglass_mailer::core::route::Catalog;
use breakglass_mailer::http::{Api, Auth, BodyBudget, router};
use breakglass_mailer::metrics::Metrics;
use breakglass_mailer::queue::{Accept, Ids, Queue};
use breakglass_mailer::registry::Registry;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::sync::watch;
use tower::ServiceExt;

use breakglass_mailer::core::decide::Verdict;
use breakglass_mailer::tracer::Tracer;

use super::memory_store::MemoryStore;
use super::openapi;

/// See the module.
pub struct TestApi {
    pub store: MemoryStore,
    pub queue: Arc<Queue>,
    pub registry: Arc<Registry>,
    pub clock: Clock,
    pub ready: watch::Sender<bool>,
    pub router: axum::Router,
}

/// An answer, read to its end.
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub text: String,
}

impl Answer {
    /// Its body.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).expect("a JSON body")
    }

    /// The value of a header, or nothing.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("ASCII"))
    }

    /// Status, media type, Retry-After and body, for snapshots.
    pub fn shown(&self) -> String {
        let retry = self.header("retry-after");
        format!("{} {} {retry}\n{}", self.status, self.header("content-type"), self.text)
    }
}

impl TestApi {
    /// One enabled default provider named `main` whose queue takes 10 jobs, and `spare` beside it.
    pub fn start() -> Self {
        Self::over(None)
    }

    /// The same as in `dev`, with a mailbox.
    pub fn with_mailbox(folder: &Path) -> Self {
        Self::over(Some(folder.to_owned()))
    }

    fn over(mailbox: Option<PathBuf>) -> Self {
        let clock = Clock::start();
        let store = MemoryStore::default();
        let age_max = Duration::from_secs(86_400);
        let queue = Queue::open(Arc::new(store.clone()), clock, Ids::random(), age_max)
            .expect("an empty store");
        let registry = Arc::new(Registry::new(HealthIntervals::default(), clock));
        let (ready, is_ready) = watch::channel(true);
        let api = Api {
            queue: queue.clone(),
            registry: registry.clone(),
            metrics: Arc::new(Metrics::new().expect("distinct names")),
            tracer: Tracer::default(),
            clock,
            ready: is_ready,
            auth: Auth::Local,
            bodies: BodyBudget::default(),
            redrives: true,
            history: Arc::default(),
            mailbox,
        };
        let test = Self { store, queue, registry, clock, ready, router: router(api) };
        test.configure([provider("main", true), provider("spare", false)]);
        test
    }

    /// Replaces the providers.
    pub fn configure(&self, providers: impl IntoIterator<Item = Provider>) {
        let providers = providers.into_iter().map(|p| (p.name.clone(), Arc::new(p))).collect();
        self.replace(Catalog { namespace: "default".into(), providers, ..Catalog::default() });
    }

    /// Replaces the catalog.
    pub fn replace(&self, catalog: Catalog) {
        self.registry.replace(catalog);
    }

    /// Sends a request.
    pub async fn send(&self, request: Request<Body>) -> Answer {
        send(self.router.clone(), request).await
    }

    /// Sends a request without a body.
    pub async fn call(&self, method: &str, path: &str) -> Answer {
        let request = Request::builder().method(method).uri(path);
        self.send(request.body(Body::empty()).expect("a request")).await
    }

    /// GET that is answered 200.
    pub async fn get(&self, path: &str) -> Value {
        let answer = self.call("GET", path).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.text);
        answer.json()
    }

    /// Posts JSON.
    pub async fn post(&self, path: &str, body: Value) -> Answer {
        let answer = self.send(post(path, &body)).await;
        openapi::check_request("POST", path, Some(&body), answer.status.as_u16());
        answer
    }

    /// What happened with a provider as it is now.
    pub fn observe(&self, provider: &str, event: &HealthEvent) {
        let catalog = self.registry.catalog();
        self.registry.observe(&catalog.providers[&name(provider)], event);
    }

    /// Posts a notification to these recipients; the answer is 202.
    pub async fn notify(&self, recipients: &[&str]) -> Value {
        let answer = self.post("/notify", notification(recipients)).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.text);
        answer.json()
    }

    /// Attempts the job of `main` whose turn it is, and buries it for `reason`; the server said
    /// 550 5.1.1.
    pub async fn bury(&self, reason: DeadReason) -> Job {
        let claim = self.queue.claim(&name("main"), |_| true).expect("a job is due");
        let job = claim.job().clone();
        let attempt = Attempt {
            number: job.progress.attempts_all + 1,
            at: self.clock.now(),
            provider: name("main"),
            stage: Stage::Rcpt,
            outcome: AttemptOutcome::Rejected,
            reply: Some(Reply::new(550, Some([5, 1, 1]), "no".into())),
            message: "no such user".into(),
            duration: Duration::from_millis(12),
        };
        let verdict = Verdict::Bury { reason, detail: "given up".into() };
        let after = verdict.apply(&job.progress, true, self.clock.now());
        self.queue.settle(vec![claim.becomes(after, Some(attempt))]).await.expect("a commit");
        job
    }
}

/// Sends a request to a router, and holds the answer against the document of the API.
pub async fn send(router: axum::Router, request: Request<Body>) -> Answer {
    let (method, path) = (request.method().to_string(), request.uri().to_string());
    let response = router.oneshot(request).await.expect("a router never fails");
    let (head, body) = response.into_parts();
    let bytes = body.collect().await.expect("a body").to_bytes();
    let text = String::from_utf8(bytes.to_vec()).expect("UTF-8");
    openapi::check(&method, &path, head.status.as_u16(), &head.headers, &text);
    Answer { status: head.status, headers: head.headers, text }
}

/// A POST of JSON.
pub fn post(path: &str, body: &Value) -> Request<Body> {
    let request = Request::post(path).header("content-type", "application/json");
    request.body(Body::from(body.to_string())).expect("a request")
}

/// A good notification.
pub fn notification(recipients: &[&str]) -> Value {
    json!({"recipients": recipients, "subject": "Escalation approved", "text": "hello"})
}

/// A valid provider name.
pub fn name(text: &str) -> ProviderName {
    ProviderName::new(text).expect("a valid name")
}

/// An enabled provider whose queue takes 10 jobs.
pub fn provider(text: &str, default: bool) -> Provider {
    let smtp = Smtp::new("smtp.example.com", 25, Security::Opportunistic);
    let sender = Sender { address: Address::parse("s@example.com").expect("valid"), name: None };
    let retry = RetryPolicy { queue_size: 10, ..RetryPolicy::default() };
    Provider { default, retry, ..Provider::new(name(text), smtp, sender) }
}

/// A short notification to so many recipients by this chain, whose first queue takes `capacity` jobs.
pub fn accept(
    recipients_count: usize,
    chain: impl Into<Arc<[ProviderName]>>,
    capacity: usize,
) -> Accept {
    let recipient = |n| Address::parse(&format!("r{n}@example.com")).expect("valid");
    let text = Some("Please look.".to_owned());
    Accept {
        recipients: (0..recipients_count).map(recipient).collect(),
        content: Content { subject: "x".into(), html: None, text, reply_to: None },
        expires_at: None,
        chain: chain.into(),
        capacity,
        warnings: vec![],
        key: None,
        trace: None,
    }
}
