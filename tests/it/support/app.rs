//! The real binary as a process with a folder of its own.

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use super::client::{Client, text};
use super::provider;
pub use super::provider::Provider;
use super::wait::{LIMIT, eventually, within};

/// Where a server lives: its data folder, its providers file and the logs of its runs.
pub struct Home {
    dir: Arc<TempDir>,
    data: PathBuf,
    /// The flags that name where the manifests come from.
    source: Vec<OsString>,
    args: Vec<String>,
    env: Vec<(&'static str, String)>,
    under: Vec<String>,
    log_format: &'static str,
    runs: AtomicU32,
}

impl Home {
    /// A new home with an empty data folder.
    ///
    /// # Panics
    /// When the disk is at fault.
    pub fn new(providers: &[Provider]) -> Self {
        let dir = Arc::new(tempfile::tempdir().expect("a temporary folder"));
        let data = dir.path().join("data");
        std::fs::create_dir(&data).expect("a data folder");
        let source = vec!["--providers".into(), dir.path().join("providers.yaml").into()];
        let (args, env, under, runs) = (vec![], vec![], vec![], AtomicU32::new(0));
        let log_format = "json";
        let home = Self { dir, data, source, args, env, under, log_format, runs };
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
    pub fn env(mut self, name: &'static str, value: &str) -> Self {
        self.env.push((name, value.to_owned()));
        self
    }

    /// A command in front of the server's own, which must become the server by `exec`.
    pub fn under(mut self, command: &[impl ToString]) -> Self {
        self.under.extend(command.iter().map(ToString::to_string));
        self
    }

    /// Logs lines for people.
    pub fn text_log(self) -> Self {
        Self { log_format: "text", ..self }
    }

    /// The data folder.
    pub fn data(&self) -> &PathBuf {
        &self.data
    }

    /// A path beside the data folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Takes its manifests from another file, or from a folder.
    pub fn reading(mut self, manifests: PathBuf) -> Self {
        self.source = vec!["--providers".into(), manifests.into()];
        self
    }

    /// Takes its resources from the API server of a kubeconfig.
    pub fn on_kubernetes(mut self, kubeconfig: &Path) -> Self {
        let kubeconfig = kubeconfig.to_str().expect("UTF-8").to_owned();
        self.env.push(("KUBECONFIG", kubeconfig));
        self.source = ["--kubernetes", "--webhook-listen", "127.0.0.1:0"].map(Into::into).into();
        self
    }

    /// Writes the providers file anew.
    ///
    /// # Panics
    /// When the disk is at fault.
    pub fn providers(&self, providers: &[Provider]) {
        self.write(&provider::manifests(providers));
    }

    /// The same with any text.
    ///
    /// # Panics
    /// When the disk is at fault.
    pub fn write(&self, manifests: &str) {
        std::fs::write(self.path("new.yaml"), manifests).expect("write the providers");
        std::fs::rename(self.path("new.yaml"), self.path("providers.yaml")).expect("rename");
    }

    /// Starts the server and returns at once.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn spawn(&self) -> Process {
        let mut serve = vec!["serve".into()];
        serve.extend(self.source.iter().cloned());
        self.run(serve)
    }

    /// Starts `dev` and returns at once.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn dev(&self) -> Process {
        self.run(vec!["dev".into()])
    }

    fn run(&self, command: Vec<OsString>) -> Process {
        let run = self.runs.fetch_add(1, Ordering::Relaxed) + 1;
        let log = self.path(&format!("run-{run}.log"));
        let out = File::create(&log).expect("a log file");
        let mut words = self.under.clone();
        words.push(env!("CARGO_BIN_EXE_breakglass-mailer").into());
        let child = Command::new(&words[0])
            .args(&words[1..])
            .args(command)
            .args(["--listen", "127.0.0.1:0", "--log-format", self.log_format])
            .arg("--data-dir")
            .arg(&self.data)
            .args(&self.args)
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(out.try_clone().expect("a second handle"))
            .stderr(out)
            .spawn()
            .expect("start the server");
        Process { child, log, _dir: self.dir.clone() }
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
    /// The folder outlives the server.
    _dir: Arc<TempDir>,
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
        self.address_of("listening")
    }

    /// The address that a line of the log tells.
    pub fn address_of(&self, message: &str) -> Option<String> {
        self.log().lines().find_map(|line| {
            if let Some((_, address)) = line.split_once(&format!("{message} address=")) {
                return Some(address.to_owned());
            }
            let line: Value = serde_json::from_str(line).ok()?;
            let told = line["fields"]["message"] == message;
            told.then(|| line["fields"]["address"].as_str().map(str::to_owned))?
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

    /// Ctrl-C.
    ///
    /// # Panics
    /// When it is gone already.
    pub fn interrupt(&self) {
        kill_process(Pid::from_child(&self.child), Signal::INT).expect("send SIGINT");
    }

    /// Whether it has ended by itself.
    ///
    /// # Panics
    /// When it cannot be waited for.
    pub fn has_exited(&mut self) -> bool {
        self.child.try_wait().expect("wait for the server").is_some()
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

    /// Posts a notification; its id.
    ///
    /// # Panics
    /// When it is not accepted.
    pub async fn notify(&self, body: &Value) -> String {
        text(&self.client.accepted(body).await["id"])
    }

    /// Waits until the jobs of a notification are all in one of these states; the notification.
    ///
    /// # Panics
    /// When they are not after the limit.
    pub async fn jobs_are(&self, notification: &str, states: &[&str]) -> Value {
        let path = format!("/notifications/{notification}");
        eventually(&format!("the jobs are {states:?}"), async || {
            let found = self.client.get(&path).await;
            let jobs = found["jobs"].as_array().expect("jobs");
            let there = |job: &Value| states.contains(&job["state"].as_str().unwrap_or_default());
            jobs.iter().all(there).then_some(found)
        })
        .await
    }

    /// Waits until the queue of a provider shows this `count`, such as `parked`.
    ///
    /// # Panics
    /// When it does not after the limit.
    pub async fn queue_has(&self, provider: &str, count: &str, jobs_count: usize) -> Value {
        let path = format!("/queue?provider={provider}");
        eventually(&format!("{jobs_count} jobs of {provider} are {count}"), async || {
            let queue = self.client.get(&path).await["providers"][0].clone();
            (queue[count] == jobs_count).then_some(queue)
        })
        .await
    }

    /// Waits until what `GET /providers` shows of a provider fulfils `wanted`.
    ///
    /// # Panics
    /// When it does not after the limit.
    pub async fn provider_is(&self, name: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        eventually(&format!("the provider {name} is as wanted"), async || {
            let all = self.client.get("/providers").await;
            let mut all = all["items"].as_array().expect("items").iter();
            all.find(|shown| shown["name"] == name && wanted(shown)).cloned()
        })
        .await
    }
}
