//! What the tests share: the server as a process, its callers, its peers, and its disk.

pub mod api;
pub mod app;
pub mod cli;
pub mod client;
pub mod crashfs;
pub mod disk;
pub mod image;
pub mod kube;
pub mod load;
pub mod memory_store;
pub mod metrics;
pub mod peer;
pub mod postfix;
pub mod provider;
pub mod sink;
pub mod smtp;
pub mod wait;

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

static SKIPPED: AtomicUsize = AtomicUsize::new(0);

/// Whether this machine has what a test needs; a test that gets `false` returns.
///
/// With `CI=true` a missing thing fails the test. Elsewhere each skipped test is counted and named on
/// stderr, past the capture of the test harness.
///
/// # Panics
/// When it is missing in CI.
pub fn need(thing: &str) -> bool {
    if has(thing) {
        return true;
    }
    let ci = std::env::var("CI").is_ok_and(|value| value == "true");
    assert!(!ci, "{thing} is missing and nothing may be skipped in CI: see tests/run");
    let nth = SKIPPED.fetch_add(1, Ordering::Relaxed) + 1;
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    let _ = writeln!(std::io::stderr(), "skipped: {test} needs {thing} ({nth} skipped so far)");
    false
}

fn has(thing: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    let there = |paths: &[&str]| paths.iter().all(|path| Path::new(path).exists());
    match thing {
        "fuse" => {
            let device = std::fs::OpenOptions::new().read(true).write(true).open("/dev/fuse");
            device.is_ok() && (root || there(&["/usr/bin/fusermount3"]))
        }
        "helm" => Command::new("helm").arg("version").output().is_ok(),
        "ipv6" => std::net::TcpListener::bind((std::net::Ipv6Addr::LOCALHOST, 0)).is_ok(),
        // Below 1024, so that it can be 465.
        "low port" => root,
        "kube" => {
            let assets = kube::assets();
            ["etcd", "kube-apiserver", "kubectl"].iter().all(|name| assets.join(name).exists())
        }
        "postfix" => {
            root && there(&[
                "/usr/sbin/postfix",
                "/usr/lib/postfix/postfix-pcre.so",
                "/usr/sbin/dovecot",
            ])
        }
        "promtool" => there(&["/usr/bin/promtool"]),
        "strace" => Command::new("strace")
            .args(["-D", "-f", "-o", "/dev/null", "true"])
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success()),
        "tmpfs" => root && there(&["/usr/bin/mount"]),
        other => unreachable!("no test needs {other}"),
    }
}

/// The lots of one test, from `BREAKGLASS_MAILER_TEST_SEED` when it is set. Prints the seed, which
/// the harness shows when the test fails.
///
/// # Panics
/// When the variable is not a number.
pub fn lots() -> fastrand::Rng {
    let seed = match std::env::var("BREAKGLASS_MAILER_TEST_SEED") {
        Ok(text) => text.parse().expect("BREAKGLASS_MAILER_TEST_SEED is a number"),
        Err(_) => fastrand::u64(..),
    };
    println!("replay with BREAKGLASS_MAILER_TEST_SEED={seed}");
    fastrand::Rng::with_seed(seed)
}
