//! What the tests share: the server as a process, its callers, its peers, and its disk.

pub mod api;
pub mod app;
pub mod browser;
pub mod cli;
pub mod client;
pub mod clock;
pub mod crashfs;
pub mod disk;
pub mod faults;
pub mod image;
pub mod kube;
pub mod kube_api;
pub mod kube_proxy;
pub mod load;
pub mod mail_servers;
pub mod memory_store;
pub mod metrics;
pub mod openapi;
pub mod operator;
pub mod oracle;
pub mod otlp;
pub mod peer;
pub mod port;
pub mod provider;
pub mod replay;
pub mod served;
pub mod sink;
pub mod smtp;
pub mod sparse;
pub mod token_server;
pub mod trace;
pub mod volume;
pub mod wait;

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use breakglass_mailer::core::job::Job;
use breakglass_mailer::queue::store::Store;

/// The mail servers that Debian 12 has no installable package of, beside Postfix.
const ON_DEMAND: [&str; 4] = ["exim", "haraka", "maildev", "opensmtpd"];

static SKIPPED: AtomicUsize = AtomicUsize::new(0);

/// Whether this machine has what a test needs; a test that gets `false` returns.
///
/// With `CI=true` a missing thing fails the test. Elsewhere each skipped test is counted and named on
/// stderr, past the capture of the test harness. A mail server of `ON_DEMAND` is needed only where
/// `BREAKGLASS_MAILER_TEST_MAIL_SERVERS=all`, and there it must not be missing.
///
/// # Panics
/// When it is missing and must not be.
pub fn need(thing: &str) -> bool {
    let is_set = |name: &str, to: &str| std::env::var(name).is_ok_and(|value| value == to);
    let ci = is_set("CI", "true");
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    let say = |line: String| drop(writeln!(std::io::stderr(), "{line}"));
    let is_on_demand = ON_DEMAND.contains(&thing);
    if is_on_demand && !is_set("BREAKGLASS_MAILER_TEST_MAIL_SERVERS", "all") {
        if ci {
            say(format!("not chosen: {test}; tests/run --all-mail-servers runs it"));
            return false;
        }
    } else if has(thing) {
        return true;
    } else {
        assert!(!ci && !is_on_demand, "{thing} is missing and must not be: see tests/run");
    }
    let nth = SKIPPED.fetch_add(1, Ordering::Relaxed) + 1;
    let by = if is_on_demand { " by tests/run --all-mail-servers" } else { "" };
    say(format!("skipped: {test} needs {thing}{by} ({nth} skipped so far)"));
    false
}

/// The search path, and in front of it the folder in which tests/run keeps helm.
pub fn helm_path() -> OsString {
    let mut path = mail_servers::cache("helm").into_os_string();
    if let Some(others) = std::env::var_os("PATH") {
        path.push(":");
        path.push(others);
    }
    path
}

/// The folder of Python packages in which tests/run keeps schemathesis.
pub fn schemathesis_path() -> PathBuf {
    mail_servers::cache("schemathesis")
}

fn has(thing: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    let there = |paths: &[&str]| paths.iter().all(|path| Path::new(path).exists());
    let cached = |name: &str| root && mail_servers::cache(name).exists();
    match thing {
        "12,000 file descriptors" => {
            let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
            limit.maximum.is_none_or(|files| 12_000 <= files)
        }
        "aiosmtpd" => root && there(&["/usr/lib/python3/dist-packages/aiosmtpd"]),
        "chromium" => there(&["/usr/bin/chromium", "/usr/bin/chromedriver"]),
        "exim" | "opensmtpd" => cached(thing),
        "faketime" => there(&[clock::LIBRARY]),
        "fuse" => {
            let device = std::fs::OpenOptions::new().read(true).write(true).open("/dev/fuse");
            device.is_ok() && (root || there(&["/usr/bin/fusermount3"]))
        }
        "helm" => Command::new("helm").env("PATH", helm_path()).arg("version").output().is_ok(),
        "ipv6" => std::net::TcpListener::bind((std::net::Ipv6Addr::LOCALHOST, 0)).is_ok(),
        "loop" => {
            let tools = ["/usr/sbin/losetup", "/usr/sbin/mkfs.ext4", "/usr/sbin/mkfs.xfs"];
            let free = || Command::new("/usr/sbin/losetup").arg("--find").output();
            root && there(&tools) && free().is_ok_and(|found| found.status.success())
        }
        // Below 1024, so that it can be 465.
        "low port" => root,
        "haraka" | "maildev" => cached(thing) && cached("node"),
        "kube" => {
            let assets = kube::assets();
            ["etcd", "kube-apiserver", "kubectl"].iter().all(|name| assets.join(name).exists())
        }
        "mandoc" => there(&["/usr/bin/mandoc"]),
        "postfix" => {
            root && there(&[
                "/usr/sbin/postfix",
                "/usr/lib/postfix/postfix-pcre.so",
                "/usr/sbin/dovecot",
            ])
        }
        "promtool" => there(&["/usr/bin/promtool"]),
        "schemathesis" => schemathesis_path().join("schemathesis").exists(),
        "smtp-sink" => root && there(&["/usr/sbin/smtp-sink"]),
        "strace" => Command::new("strace")
            .args(["-D", "-f", "-o", "/dev/null", "true"])
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success()),
        "tmpfs" => root && there(&["/usr/bin/mount"]),
        other => unreachable!("no test needs {other}"),
    }
}

/// Whether the long form of a test was asked for, with BREAKGLASS_MAILER_TEST_NIGHTLY=1.
pub fn nightly() -> bool {
    std::env::var("BREAKGLASS_MAILER_TEST_NIGHTLY").is_ok_and(|value| value == "1")
}

/// The lots of one test, from `BREAKGLASS_MAILER_TEST_SEED` when it is set. Prints the seed, which
/// the harness shows when the test fails.
///
/// # Panics
/// When the variable is not a number.
pub fn lots() -> fastrand::Rng {
    let (seed, _) = seed();
    println!("replay with BREAKGLASS_MAILER_TEST_SEED={seed}");
    fastrand::Rng::with_seed(seed)
}

/// `BREAKGLASS_MAILER_TEST_SEED` or a random seed, and whether it was given.
///
/// # Panics
/// When the variable is not a number.
pub fn seed() -> (u64, bool) {
    match std::env::var("BREAKGLASS_MAILER_TEST_SEED") {
        Ok(text) => (text.parse().expect("BREAKGLASS_MAILER_TEST_SEED is a number"), true),
        Err(_) => (fastrand::u64(..), false),
    }
}

/// The jobs that are queued or dead.
///
/// # Panics
/// When the store cannot be read.
pub fn live_jobs(store: &dyn Store) -> Vec<Job> {
    let mut jobs = Vec::new();
    store.live(&mut |job| jobs.push(job)).expect("the store can be read");
    jobs
}
