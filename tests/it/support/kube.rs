//! A real kube-apiserver and its etcd, on a loopback address of their own. As with envtest there are
//! no controllers and no nodes: no Pod ever runs, nothing is collected.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::kube_api::Upstream;
use super::mail_servers::cache;
use super::wait::eventually;

/// Each takes 400 MB and some seconds of a processor to start.
static AT_ONCE: Semaphore = Semaphore::const_new(2);

/// Where the binaries are: by the convention of the field, or where `tests/run` puts them.
pub fn assets() -> PathBuf {
    std::env::var_os("KUBEBUILDER_ASSETS").map_or_else(|| cache("kube"), PathBuf::from)
}

/// Runs until dropped.
pub struct Kube {
    host: String,
    dir: TempDir,
    etcd: Child,
    api: Option<Child>,
    _permit: SemaphorePermit<'static>,
}

impl Kube {
    /// Starts both; needs `need("kube")`.
    ///
    /// # Panics
    /// When one of them does not start.
    pub async fn start() -> Self {
        let permit = AT_ONCE.acquire().await.expect("it is never closed");
        let dir = tempfile::tempdir().expect("a temporary folder");
        let [a, b, c] = [(); 3].map(|()| fastrand::u8(1..255));
        let host = format!("127.{a}.{b}.{c}");
        write_certificates(dir.path(), &host);
        let client = format!("http://{host}:2379");
        let peer = format!("http://{host}:2380");
        let etcd = spawn(
            dir.path(),
            "etcd",
            &[
                "--name=default",
                "--data-dir=etcd",
                "--unsafe-no-fsync",
                &format!("--listen-client-urls={client}"),
                &format!("--advertise-client-urls={client}"),
                &format!("--listen-peer-urls={peer}"),
                &format!("--initial-advertise-peer-urls={peer}"),
                &format!("--initial-cluster=default={peer}"),
            ],
        );
        let mut kube = Self { host, dir, etcd, api: None, _permit: permit };
        fs::write(kube.kubeconfig(), kube.kubeconfig_of(&kube.admin())).expect("a kubeconfig");
        kube.start_api().await;
        kube
    }

    /// Starts the API server again after [`stop_api`](Self::stop_api), with all it knew.
    ///
    /// # Panics
    /// When it does not become ready.
    pub async fn start_api(&mut self) {
        let host = &self.host;
        self.api = Some(spawn(
            self.dir.path(),
            "kube-apiserver",
            &[
                &format!("--etcd-servers=http://{host}:2379"),
                &format!("--bind-address={host}"),
                &format!("--advertise-address={host}"),
                "--secure-port=6443",
                "--endpoint-reconciler-type=none",
                "--service-cluster-ip-range=10.0.0.0/24",
                "--cert-dir=.",
                "--tls-cert-file=server.pem",
                "--tls-private-key-file=server.key",
                "--client-ca-file=ca.pem",
                "--service-account-issuer=https://kubernetes.default.svc",
                "--api-audiences=https://kubernetes.default.svc",
                "--service-account-key-file=accounts.pub",
                "--service-account-signing-key-file=accounts.key",
                "--authorization-mode=RBAC",
                "--disable-admission-plugins=ServiceAccount",
                "--profiling=false",
            ],
        ));
        let mut api = self.api.take().expect("it was started");
        eventually("kube-apiserver is ready", async || {
            if let Some(status) = api.try_wait().expect("wait for it") {
                panic!("kube-apiserver ended: {status}");
            }
            let ready = self.kubectl(&["get", "--raw=/readyz"]).ok()?;
            let namespaced = self.kubectl(&["get", "namespace", "default"]).is_ok();
            (ready == "ok" && namespaced).then_some(())
        })
        .await;
        self.api = Some(api);
    }

    /// How to ask the API server without kubectl, as the administrator.
    pub fn upstream(&self) -> Upstream {
        let file = |name: &str| fs::read(self.dir.path().join(name)).expect("a file of the PKI");
        Upstream::new(&self.host, &file("ca.pem"), &file("admin.pem"), &file("admin.key"))
    }

    /// Ends the API server; etcd stays.
    pub fn stop_api(&mut self) {
        if let Some(mut api) = self.api.take() {
            let _ = api.kill();
            let _ = api.wait();
        }
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.path().join("kubeconfig")
    }

    /// A kubeconfig for a ServiceAccount that exists, beside the administrator's.
    ///
    /// # Panics
    /// When it gets no token.
    pub fn kubeconfig_for(&self, namespace: &str, account: &str) -> PathBuf {
        let token = self.token(namespace, account, &[]);
        let path = self.dir.path().join(format!("kubeconfig-{namespace}-{account}"));
        fs::write(&path, self.kubeconfig_of(&json!({"token": token}))).expect("a kubeconfig");
        path
    }

    /// A token of a ServiceAccount, for these audiences or the API server's own.
    ///
    /// # Panics
    /// When there is none.
    pub fn token(&self, namespace: &str, account: &str, audiences: &[&str]) -> String {
        let mut args = vec!["create", "token", account, "-n", namespace];
        args.extend(audiences.iter().flat_map(|audience| ["--audience", audience]));
        self.kubectl(&args).expect("a token").trim().to_owned()
    }

    /// Runs kubectl as the administrator; what it printed.
    ///
    /// # Errors
    /// What it printed to stderr.
    pub fn kubectl(&self, args: &[&str]) -> Result<String, String> {
        self.kubectl_with(args, "")
    }

    /// `kubectl apply` of these manifests.
    ///
    /// # Errors
    /// What it printed to stderr.
    pub fn apply(&self, manifests: &str) -> Result<String, String> {
        self.kubectl_with(&["apply", "-f", "-"], manifests)
    }

    /// Has the API server judge these manifests without storing them; a warning is an error.
    ///
    /// # Errors
    /// What kubectl printed to stderr.
    pub fn dry_run(&self, manifests: &str) -> Result<String, String> {
        let args = ["create", "--dry-run=server", "--warnings-as-errors", "-f", "-"];
        self.kubectl_with(&args, manifests)
    }

    /// Merges this into an object.
    ///
    /// # Panics
    /// When it is refused.
    pub fn patch(&self, kind: &str, name: &str, patch: &str) {
        self.kubectl(&["patch", kind, name, "--type=merge", "-p", patch]).expect("patched");
    }

    /// Installs the custom resource definitions that our binary prints, and waits until they serve.
    ///
    /// # Panics
    /// When it cannot.
    pub async fn install_crds(&self, names: &[&str]) {
        let printed = Command::new(env!("CARGO_BIN_EXE_breakglass-mailer"))
            .arg("crds")
            .args(names)
            .output()
            .expect("run crds");
        self.apply(&String::from_utf8(printed.stdout).expect("UTF-8")).expect("apply the CRDs");
        for name in names {
            eventually(&format!("{name} are served"), async || {
                self.kubectl(&["get", name]).ok().map(drop)
            })
            .await;
        }
    }

    /// An object as JSON; `None` when it is not there.
    pub fn get(&self, kind: &str, name: &str) -> Option<Value> {
        let found = self.kubectl(&["get", kind, name, "-o", "json"]).ok()?;
        Some(serde_json::from_str(&found).expect("JSON"))
    }

    /// The condition of a MailProvider as `status reason`; empty when it is not there.
    pub fn condition(&self, provider: &str, condition: &str) -> String {
        let found = self.get("mailprovider", provider).unwrap_or_default();
        let mut all = found["status"]["conditions"].as_array().into_iter().flatten();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        all.find(|one| one["type"] == condition)
            .map(|one| format!("{} {}", text(&one["status"]), text(&one["reason"])))
            .unwrap_or_default()
    }

    /// The same with something on its standard input.
    ///
    /// # Errors
    /// What it printed to stderr.
    pub fn kubectl_with(&self, args: &[&str], stdin: &str) -> Result<String, String> {
        let mut child = Command::new(assets().join("kubectl"))
            .arg("--kubeconfig")
            .arg(self.kubeconfig())
            .arg("--cache-dir")
            .arg(self.dir.path().join("kubectl"))
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("start kubectl");
        // It may end before it read everything.
        let _ = child.stdin.take().expect("a pipe").write_all(stdin.as_bytes());
        let output = child.wait_with_output().expect("wait for kubectl");
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    fn admin(&self) -> Value {
        let file = |name: &str| {
            STANDARD.encode(fs::read(self.dir.path().join(name)).expect("a file of the PKI"))
        };
        json!({
            "client-certificate-data": file("admin.pem"),
            "client-key-data": file("admin.key"),
        })
    }

    fn kubeconfig_of(&self, user: &Value) -> String {
        let authority = fs::read(self.dir.path().join("ca.pem")).expect("the authority");
        let cluster = json!({
            "server": format!("https://{}:6443", self.host),
            "certificate-authority-data": STANDARD.encode(authority),
        });
        json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": "test", "user": user}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "current-context": "test",
        })
        .to_string()
    }
}

impl Drop for Kube {
    fn drop(&mut self) {
        self.stop_api();
        let _ = self.etcd.kill();
        let _ = self.etcd.wait();
        if std::thread::panicking() {
            for name in ["etcd", "kube-apiserver"] {
                let log = self.dir.path().join(format!("{name}.log"));
                let text = fs::read_to_string(log).unwrap_or_default();
                let lines: Vec<_> = text.lines().collect();
                let last = lines.len().saturating_sub(30);
                println!("the end of the log of {name}:\n{}", lines[last..].join("\n"));
            }
        }
    }
}

fn spawn(folder: &Path, name: &str, args: &[&str]) -> Child {
    let log = fs::File::create(folder.join(format!("{name}.log"))).expect("a log");
    Command::new(assets().join(name))
        .args(args)
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a second handle"))
        .stderr(log)
        .spawn()
        .unwrap_or_else(|error| panic!("start {name}: {error}"))
}

/// An authority, the server's certificate, the administrator's, and the key of the accounts.
fn write_certificates(folder: &Path, host: &str) {
    let write =
        |name: &str, text: String| fs::write(folder.join(name), text).expect("write a file");
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "Test authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority =
        CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a CA");
    write("ca.pem", authority.pem());
    let sign = |name: &str, params: CertificateParams| {
        let key = KeyPair::generate().expect("a key");
        let signed = params.signed_by(&key, &authority).expect("a certificate");
        write(&format!("{name}.pem"), signed.pem());
        write(&format!("{name}.key"), key.serialize_pem());
    };
    let names = [host, "localhost", "kubernetes", "kubernetes.default.svc"].map(str::to_owned);
    sign("server", CertificateParams::new(names).expect("names"));
    let mut admin = CertificateParams::default();
    admin.distinguished_name.push(DnType::CommonName, "admin");
    admin.distinguished_name.push(DnType::OrganizationName, "system:masters");
    admin.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    sign("admin", admin);
    let accounts = KeyPair::generate().expect("a key");
    write("accounts.key", accounts.serialize_pem());
    write("accounts.pub", accounts.public_key_pem());
}
