//! A Chromium without a window, led through chromedriver by the WebDriver protocol (W3C).

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper_util::client::legacy::{Client as Http, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::wait::eventually;

/// The name under which an answer holds a reference to an element (WebDriver 12.1).
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";
/// What keeps Chromium to itself.
const FLAGS: [&str; 11] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-proxy-server",
    "--window-size=1280,900",
];

/// It takes a free port of IPv4 and needs the same of IPv6, which somebody else may have.
const STARTS_COUNT_MAX: usize = 5;

/// Keys by their code points in WebDriver.
pub const TAB: &str = "\u{e004}";
pub const ENTER: &str = "\u{e007}";
pub const ESCAPE: &str = "\u{e00c}";

/// How long a session may take to end.
const END_TIME_MAX: Duration = Duration::from_secs(10);

/// One browser with a new profile. Ended when dropped.
pub struct Browser {
    driver: Child,
    chromium: Option<Pid>,
    http: Http<HttpConnector, Full<Bytes>>,
    base: String,
    /// The log of the driver and the profile of the browser.
    _dir: TempDir,
}

impl Browser {
    /// With a window of 1280 by 900.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start() -> Self {
        Self::with(json!({})).await
    }

    /// As on a phone, 390 wide and 844 high.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn phone() -> Self {
        let metrics = json!({"width": 390, "height": 844, "pixelRatio": 2, "touch": true});
        Self::with(json!({"mobileEmulation": {"deviceMetrics": metrics}})).await
    }

    async fn with(mut options: Value) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let (driver, port) = drive(dir.path()).await;
        let http = Http::builder(TokioExecutor::new()).build_http();
        let base = format!("http://127.0.0.1:{port}/session");
        let profile = format!("--user-data-dir={}", dir.path().join("profile").display());
        let mut browser = Self { driver, chromium: None, http, base, _dir: dir };
        let mut flags: Vec<&str> = FLAGS.to_vec();
        flags.push(&profile);
        options["args"] = json!(flags);
        options["binary"] = "/usr/bin/chromium".into();
        let wanted = json!({
            "browserName": "chrome",
            "goog:chromeOptions": options,
            "goog:loggingPrefs": {"browser": "ALL"},
        });
        let wanted = json!({"capabilities": {"alwaysMatch": wanted}});
        let session = browser.post("", &wanted).await;
        let id = session["sessionId"].as_str().expect("a session");
        browser.base = format!("{}/{id}", browser.base);
        let process = session["capabilities"]["goog:processID"].as_i64();
        let process = process.and_then(|id| i32::try_from(id).ok());
        browser.chromium = process.and_then(Pid::from_raw);
        browser
    }

    /// Opens an address, and returns once it is loaded.
    ///
    /// # Panics
    /// When it cannot be loaded.
    pub async fn open(&self, url: &str) {
        self.post("/url", &json!({"url": url})).await;
    }

    /// What a function with this body gives.
    ///
    /// # Panics
    /// When it throws.
    pub async fn run(&self, body: &str) -> Value {
        self.post("/execute/sync", &json!({"script": body, "args": []})).await
    }

    /// Waits until this expression is true, or like it.
    ///
    /// # Panics
    /// When it is not after the limit.
    pub async fn sees(&self, expression: &str) -> Value {
        let body = format!("return {expression};");
        eventually(expression, async || {
            let value = self.run(&body).await;
            let is_like_false = value.is_null() || value == false || value == "" || value == 0;
            (!is_like_false).then_some(value)
        })
        .await
    }

    /// Waits until the text of the page contains this.
    ///
    /// # Panics
    /// When it does not after the limit.
    pub async fn reads(&self, text: &str) {
        self.sees(&format!("document.body.innerText.includes({})", json!(text))).await;
    }

    /// Clicks on what a CSS selector finds, once it is there, as a person does: it must be visible
    /// and not covered.
    ///
    /// # Panics
    /// When it cannot be clicked.
    pub async fn click(&self, selector: &str) {
        self.sees(&format!("document.querySelector({})", json!(selector))).await;
        eventually(&format!("{selector} is clicked"), async || {
            let id = self.element(selector).await?;
            self.try_post(&format!("/element/{id}/click"), &json!({})).await.ok()
        })
        .await;
    }

    /// Types into what a CSS selector finds.
    ///
    /// # Panics
    /// When it takes no text.
    pub async fn fill(&self, selector: &str, text: &str) {
        self.sees(&format!("document.querySelector({})", json!(selector))).await;
        let id = self.element(selector).await.expect("it is there");
        self.post(&format!("/element/{id}/clear"), &json!({})).await;
        self.post(&format!("/element/{id}/value"), &json!({"text": text})).await;
    }

    /// Presses a key.
    ///
    /// # Panics
    /// When it cannot be pressed.
    pub async fn press(&self, key: &str) {
        let actions = json!([{"type": "keyDown", "value": key}, {"type": "keyUp", "value": key}]);
        let keyboard = json!({"type": "key", "id": "keyboard", "actions": actions});
        self.post("/actions", &json!({"actions": [keyboard]})).await;
    }

    /// Presses Tab until this expression about the focused element `it` is true.
    ///
    /// # Panics
    /// When it is not after every element of the page had its turn.
    pub async fn tab_to(&self, expression: &str) {
        let script = format!("const it = document.activeElement; return {expression};");
        for _ in 0..60 {
            self.press(TAB).await;
            if self.run(&script).await == true {
                return;
            }
        }
        panic!("60 times Tab do not lead to {expression}");
    }

    /// Goes on within a frame of the document, or from the document at the top.
    ///
    /// # Panics
    /// When there is no such frame.
    pub async fn enter(&self, frame: Option<&str>) {
        let id = match frame {
            Some(selector) => {
                let id = self.element(selector).await.expect("a frame");
                json!({ELEMENT: id})
            }
            None => Value::Null,
        };
        self.post("/frame", &json!({"id": id})).await;
    }

    /// Prefers dark colours from now on, or light ones.
    ///
    /// # Panics
    /// When the browser cannot.
    pub async fn prefer(&self, scheme: &str) {
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        let params = json!({"features": features});
        let command = json!({"cmd": "Emulation.setEmulatedMedia", "params": params});
        self.post("/goog/cdp/execute", &command).await;
    }

    /// What went to the console since the last look: errors of scripts, and what a policy forbade.
    ///
    /// # Panics
    /// When it cannot be read.
    pub async fn console(&self) -> Vec<String> {
        let log = self.post("/se/log", &json!({"type": "browser"})).await;
        let entries = log.as_array().expect("a list").iter();
        entries.map(|entry| entry["message"].as_str().unwrap_or_default().to_owned()).collect()
    }

    async fn element(&self, selector: &str) -> Option<String> {
        let by = json!({"using": "css selector", "value": selector});
        let found = self.try_post("/element", &by).await.ok()?;
        found[ELEMENT].as_str().map(str::to_owned)
    }

    async fn post(&self, path: &str, body: &Value) -> Value {
        self.try_post(path, body).await.unwrap_or_else(|error| panic!("{path} {body}: {error}"))
    }

    async fn try_post(&self, path: &str, body: &Value) -> Result<Value, String> {
        let request = Request::post(format!("{}{path}", self.base))
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body.to_string())))
            .expect("a request");
        let answer = self.http.request(request).await.map_err(|error| format!("{error:?}"))?;
        let is_success = answer.status().is_success();
        let bytes = answer.into_body().collect().await.map_err(|error| error.to_string())?;
        let mut answer: Value =
            serde_json::from_slice(&bytes.to_bytes()).map_err(|error| error.to_string())?;
        let value = answer["value"].take();
        if is_success { Ok(value) } else { Err(value["message"].to_string()) }
    }
}

/// Starts a chromedriver with its files in `folder`; its port.
async fn drive(folder: &Path) -> (Child, String) {
    let log = folder.join("driver.log");
    for _ in 0..STARTS_COUNT_MAX {
        let mut driver = Command::new("/usr/bin/chromedriver")
            .arg("--port=0")
            .env("HOME", folder)
            .env("TMPDIR", folder)
            .stdin(Stdio::null())
            .stdout(File::create(&log).expect("a log file"))
            .stderr(Stdio::null())
            .spawn()
            .expect("start chromedriver");
        let port = eventually("chromedriver tells its port, or is gone", async || {
            let log = std::fs::read_to_string(&log).unwrap_or_default();
            let told = log.split_once("successfully on port ");
            match told.and_then(|(_, told)| told.split_once('.')) {
                Some((port, _)) => Some(Some(port.to_owned())),
                None => driver.try_wait().expect("wait for chromedriver").map(|_| None),
            }
        })
        .await;
        if let Some(port) = port {
            return (driver, port);
        }
    }
    panic!("chromedriver does not start: {:?}", std::fs::read_to_string(&log));
}

impl Browser {
    /// Has chromedriver end the session, and waits until it did: a browser that is killed would
    /// write into its folder while that is removed.
    fn end_session(&self) -> std::io::Result<()> {
        let (_, place) = self.base.split_once("//").unwrap_or_default();
        let (host, path) = place.split_once('/').unwrap_or_default();
        let mut stream = TcpStream::connect(host)?;
        stream.set_read_timeout(Some(END_TIME_MAX))?;
        write!(stream, "DELETE /{path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n")?;
        // It answers when the session has ended, and may keep the connection.
        BufReader::new(stream).read_line(&mut String::new()).map(drop)
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Whatever it answers, both are gone after this.
        let _ = self.end_session();
        if let Some(chromium) = self.chromium {
            let _ = kill_process(chromium, Signal::KILL);
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}
