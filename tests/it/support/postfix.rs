//! A real Postfix with STARTTLS, implicit TLS and logins by dovecot, on a loopback address of its own.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tempfile::TempDir;

use super::wait::eventually;

/// The only login.
pub const USER: &str = "breakglass";
/// Its password.
pub const PASSWORD: &str = "correct horse ü battery";

/// The account that owns the mail: `nobody`.
const OWNER: u32 = 65534;

/// Runs until dropped. Mail for `nobody@example.com` is refused with 550, all other of that domain
/// ends in one maildir.
pub struct Postfix {
    /// Where it listens: STARTTLS on 587, TLS from the first byte on 465.
    pub host: String,
    /// The authority that signed its certificate, as PEM.
    pub ca: String,
    root: TempDir,
}

impl Postfix {
    /// Starts it; needs root and `need("postfix")`.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start() -> Self {
        let root = tempfile::tempdir().expect("a temporary folder");
        let [a, b, c] = [(); 3].map(|()| fastrand::u8(1..255));
        let host = format!("127.{a}.{b}.{c}");
        let ca = write_certificate(root.path(), &host);
        let postfix = Self { host, ca, root };
        postfix.write_configuration();
        postfix.run("dovecot", &["-c", &postfix.path("dovecot.conf")]);
        postfix.run("postfix", &["-c", &postfix.path("etc"), "start"]);
        for port in [587, 465] {
            let address = format!("{}:{port}", postfix.host);
            eventually("Postfix listens", async || {
                tokio::net::TcpStream::connect(&address).await.ok()
            })
            .await;
        }
        postfix
    }

    /// The messages that arrived so far.
    ///
    /// # Panics
    /// When the maildir cannot be read.
    pub fn messages(&self) -> Vec<Vec<u8>> {
        // The maildir comes with its first message.
        let Ok(entries) = fs::read_dir(self.root.path().join("mail/box/new")) else {
            return Vec::new();
        };
        entries.map(|entry| fs::read(entry.expect("an entry").path()).expect("a message")).collect()
    }

    fn path(&self, name: &str) -> String {
        self.root.path().join(name).to_str().expect("UTF-8").to_owned()
    }

    fn write_configuration(&self) {
        let root = self.root.path();
        // Postfix and dovecot give up root and still have to come through.
        fs::set_permissions(root, Permissions::from_mode(0o755)).expect("open the folder");
        for folder in ["etc", "mail", "spool", "spool/private", "state", "dovecot"] {
            fs::create_dir(root.join(folder)).expect("a folder");
        }
        chown(root.join("mail"), Some(OWNER), Some(OWNER)).expect("give the mail away");
        let postfix = Command::new("id").args(["-u", "postfix"]).output().expect("run id");
        let postfix: u32 =
            String::from_utf8_lossy(&postfix.stdout).trim().parse().expect("the user postfix");
        for folder in ["state", "spool/private"] {
            chown(root.join(folder), Some(postfix), None).expect("give a folder away");
        }
        let write = |name: &str, text: &str| {
            let text = text
                .replace("@ROOT@", root.to_str().expect("UTF-8"))
                .replace("@HOST@", &self.host)
                .replace("@UID@", &OWNER.to_string())
                .replace("@GID@", &OWNER.to_string());
            fs::write(root.join(name), text).expect("write a file");
        };
        write("etc/main.cf", include_str!("postfix/main.cf"));
        write("etc/master.cf", include_str!("postfix/master.cf"));
        write("dovecot.conf", include_str!("postfix/dovecot.conf"));
        write("recipients", "/^nobody@/ 550 5.1.1 no such user here\n");
        write("users", &format!("{USER}:{{PLAIN}}{PASSWORD}\n"));
    }

    /// Runs one of its commands; a command that stays behind as a daemon must not hold our output.
    fn run(&self, command: &str, args: &[&str]) {
        let out = fs::File::create(self.root.path().join("command.log")).expect("a log");
        let status = Command::new(format!("/usr/sbin/{command}"))
            .args(args)
            .stdin(Stdio::null())
            .stdout(out.try_clone().expect("a second handle"))
            .stderr(out)
            .status()
            .expect("run a command");
        assert!(status.success(), "{command} {args:?}: {status}\n{}", self.logs());
    }

    fn logs(&self) -> String {
        ["command.log", "maillog", "dovecot.log"]
            .map(|name| fs::read_to_string(self.path(name)).unwrap_or_default())
            .concat()
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        let stop = |command: &str, args: &[&str]| -> std::io::Result<Output> {
            Command::new(command).args(args).output()
        };
        let _ = stop("/usr/sbin/postfix", &["-c", &self.path("etc"), "stop"]);
        let _ = stop("/usr/bin/doveadm", &["-c", &self.path("dovecot.conf"), "stop"]);
        if std::thread::panicking() {
            println!("{}", self.logs());
        }
    }
}

/// Makes an authority and a certificate for `host`; gives the authority as PEM.
fn write_certificate(root: &Path, host: &str) -> String {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "Test authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key");
    let authority = CertifiedIssuer::self_signed(params, key).expect("an authority");
    let key = KeyPair::generate().expect("a key");
    let server = CertificateParams::new([host.to_owned()])
        .and_then(|params| params.signed_by(&key, &authority))
        .expect("a certificate");
    fs::write(root.join("server.pem"), server.pem()).expect("write the certificate");
    fs::write(root.join("server.key"), key.serialize_pem()).expect("write the key");
    authority.pem()
}
