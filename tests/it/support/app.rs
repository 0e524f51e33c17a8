//! The real binary as a process with a folder of its own.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::client::Client;
use super::wait::{LIMIT, eventually, within};

/// One `MailProvider` of the providers file. The first of a file is the default.
#[derive(Clone)]
pub struct Provider {
    name: &'static str,
    smtp: Value,
    retry: Value,
    password: Option<&'static str>,
    sender_name: Option<&'static str>,
}

impl Provider {
    /// Speaks to `127.0.0.1:port` without TLS, tries once, and takes all that the tests post.
    pub fn plain(name: &'static str, port: u16) -> Self {
        Self {
            name,
            smtp: json!({"host": "127.0.0.1", "port": port, "disableTLS": true}),
            retry: json!({"count": 0, "initialBackoffMs": 10, "queueSize": 10000}),
            password: None,
            sender_name: None,
        }
    }

    /// Speaks TLS to `host:port` (from the first byte on port 465) and trusts `ca`, a PEM.
    pub fn tls(name: &'static str, host: &str, port: u16, ca: &str) -> Self {
        let smtp = json!({"host": host, "port": port, "certificateAuthority": ca});
        Self { smtp, ..Self::plain(name, port) }
    }

    /// Logs in.
    pub fn login(mut self, username: &str, password: &'static str) -> Self {
        self.smtp["username"] = username.into();
        self.smtp["passwordRef"] = json!({"name": self.name});
        self.password = Some(password);
        self
    }

    /// Retries `count` times, the first time after `backoff_ms`.
    pub fn retry(mut self, count: u32, backoff_ms: u32) -> Self {
        self.retry["count"] = count.into();
        self.retry["initialBackoffMs"] = backoff_ms.into();
        self
    }

    /// Sends under a display name.
    pub fn sender_name(mut self, name: &'static str) -> Self {
        self.sender_name = Some(name);
        self
    }

    /// The manifests, one JSON document each: JSON is YAML.
    fn manifests(&self, default: bool) -> String {
        let mut sender = json!({"address": "noreply@example.com"});
        if let Some(name) = self.sender_name {
            sender["name"] = name.into();
        }
        let provider = json!({
            "apiVersion": "breakglass.t-caas.telekom.com/v1alpha1",
            "kind": "MailProvider",
            "metadata": {"name": self.name},
            "spec": {
                "default": default, "smtp": self.smtp, "sender": sender, "retry": self.retry,
            },
        });
        let secret = self.password.map_or_else(String::new, |password| {
            let secret = json!({
                "apiVersion": "v1", "kind": "Secret", "metadata": {"name": self.name},
                "type": "Opaque", "stringData": {"password": password},
            });
            format!("---\n{secret}\n")
        });
        format!("---\n{provider}\n{secret}")
    }
}

/// Where a server lives: its data folder, its providers file and the logs of its runs.
pub struct Home {
    dir: TempDir,
    data: PathBuf,
    args: Vec<String>,
    env: Vec<(&'static str, &'static str)>,
    under: Vec<String>,
    runs: AtomicU32,
}

impl Home {
    /// A new home with an empty data folder.
    ///
    /// # Panics
    /// When the disk is at fault.
    pub fn new(providers: &[Provider]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let data = dir.path().join("data");
        std::fs::create_dir(&data).expect("a data folder");
        let home =
            Self { dir, data, args: vec![], env: vec![], under: vec![], runs: AtomicU32::new(0) };
        home.providers(providers);
        home
    }

    /// The same with its data elsewhere.
    pub fn at(data: PathBuf, providers: &[Provider]) -> Self {
        Self { data, ..Self::new(providers) }
    }

    /// More flags for `serve`.
    pub fn args(mut self, args: &[&str]) -> Self {
        self.args.extend(args.iter().map(ToString::to_string));
        self
    }

    /// An environment variable for the server.
    pub fn env(mut self, name: &'static str, value: &'static str) -> Self {
        self.env.push((name, value));
        self
    }

    /// A command in front of the server's own, which must become the server by `exec`.
    pub fn under(mut self, command: &[&str]) -> Self {
        self.under.extend(command.iter().map(ToString::to_string));
        self
    }

    /// The data folder.
    pub fn data(&self) -> &PathBuf {
        &self.data
    }

    /// A path beside the data folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes the providers file anew.
    ///
    /// # Panics
    /// When the disk is at fault.
    pub fn providers(&self, providers: &[Provider]) {
        let text: String =
            providers.iter().enumerate().map(|(n, provider)| provider.manifests(n == 0)).collect();
        std::fs::write(self.path("new.yaml"), text).expect("write the providers");
        std::fs::rename(self.path("new.yaml"), self.path("providers.yaml")).expect("rename");
    }

    /// Starts the server and returns at once.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn spawn(&self) -> Process {
        let run = self.runs.fetch_add(1, Ordering::Relaxed) + 1;
        let log = self.path(&format!("run-{run}.log"));
        let out = File::create(&log).expect("a log file");
        let mut words = self.under.clone();
        words.push(env!("CARGO_BIN_EXE_breakglass-mailer").into());
        let child = Command::new(&words[0])
            .args(&words[1..])
            .args(["serve", "--listen", "127.0.0.1:0", "--auth", "none", "--log-format", "json"])
            .arg("--providers")
            .arg(self.path("providers.yaml"))
            .arg("--data-dir")
            .arg(&self.data)
            .args(&self.args)
            .envs(self.env.iter().copied())
            .stdin(Stdio::null())
            .stdout(out.try_clone().expect("a second handle"))
            .stderr(out)
            .spawn()
            .expect("start the server");
        Process { child, log }
    }

    /// Starts the server and waits until it is ready.
    ///
    /// # Panics
    /// When it exits instead.
    pub async fn start(&self) -> App {
        self.try_start().await.unwrap_or_else(|refusal| {
            panic!("the server exited with {}:\n{}", refusal.status, refusal.log)
        })
    }

    /// Starts the server and waits until it is ready, or has exited.
    ///
    /// # Errors
    /// How it exited.
    pub async fn try_start(&self) -> Result<App, Refusal> {
        self.spawn().ready().await
    }
}

/// A server that exited instead of becoming ready.
#[derive(Debug)]
pub struct Refusal {
    pub status: ExitStatus,
    pub log: String,
}

/// A started server. Killed when dropped.
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Waits until the server is ready, or has exited.
    ///
    /// # Errors
    /// How it exited.
    ///
    /// # Panics
    /// When it does neither.
    pub async fn ready(mut self) -> Result<App, Refusal> {
        let mut client = None;
        let what = format!("ready or gone; its log is {}", self.log.display());
        let gone = eventually(&what, async || {
            if let Some(status) = self.child.try_wait().expect("wait for the server") {
                return Some(Some(status));
            }
            if client.is_none() {
                client = self.address().map(|address| Client::new(&address));
            }
            let ready = client.as_ref()?.status("/readyz").await == Some(200);
            ready.then_some(None)
        })
        .await;
        match (gone, client) {
            (None, Some(client)) => Ok(App { process: self, client }),
            (status, _) => Err(Refusal { status: status.expect("it has exited"), log: self.log() }),
        }
    }

    fn address(&self) -> Option<String> {
        self.log().lines().find_map(|line| {
            let line: Value = serde_json::from_str(line).ok()?;
            let listening = line["fields"]["message"] == "listening";
            listening.then(|| line["fields"]["address"].as_str().map(str::to_owned))?
        })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// All that it printed.
    pub fn log(&self) -> String {
        std::fs::read(&self.log)
            .map_or_else(|_| String::new(), |bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// SIGKILL, and gone.
    ///
    /// # Panics
    /// When it cannot be waited for.
    pub fn kill9(&mut self) {
        let _ = self.child.kill();
        self.child.wait().expect("wait for the server");
    }

    /// SIGTERM.
    ///
    /// # Panics
    /// When it is gone already.
    pub fn term(&self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).expect("send SIGTERM");
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it does not end within `limit`.
    pub async fn exit(&mut self, limit: Duration) -> ExitStatus {
        within(limit, "the server exits", async || {
            self.child.try_wait().expect("wait for the server")
        })
        .await
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A server that is ready.
pub struct App {
    pub process: Process,
    pub client: Client,
}

impl App {
    /// Ends it as an orchestrator does.
    ///
    /// # Panics
    /// When it does not exit with 0.
    pub async fn stop(mut self) {
        self.process.term();
        let status = self.process.exit(LIMIT).await;
        assert!(status.success(), "{status}:\n{}", self.process.log());
    }

    /// Waits until every job is at its end.
    ///
    /// # Panics
    /// When some are not after the limit.
    pub async fn drained(&self) {
        eventually("the queue is empty", async || {
            (self.client.get("/queue").await["depth"] == 0).then_some(())
        })
        .await;
    }
}
