//! Where a mail server of a test lives: a folder, a loopback address, a certificate, its processes.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustix::process::{Pid, Signal, kill_process_group};
use tempfile::TempDir;

use super::{PASSWORD, USER};
use crate::support::wait::eventually;

/// The account that owns the mail: `nobody`.
const OWNER: u32 = 65534;

/// Ends what runs there when it is dropped, and shows the logs when the test failed.
pub struct Site {
    pub host: String,
    /// The authority that signed `server.pem`, as PEM.
    pub ca: String,
    root: TempDir,
    children: Vec<Child>,
    at_end: Vec<Command>,
}

impl Site {
    /// A folder with `server.pem`, `server.key` and `mail/`, which belongs to `nobody`.
    pub fn new() -> Self {
        let root = tempfile::tempdir().expect("a temporary folder");
        // Servers give up root and still have to come through.
        fs::set_permissions(root.path(), Permissions::from_mode(0o755)).expect("open the folder");
        let [a, b, c] = [(); 3].map(|()| fastrand::u8(1..255));
        let host = format!("127.{a}.{b}.{c}");
        let ca = write_certificate(root.path(), &host);
        let site = Self { host, ca, root, children: Vec::new(), at_end: Vec::new() };
        site.folder("mail", OWNER);
        site
    }

    /// A path in the folder.
    pub fn path(&self, name: &str) -> String {
        self.root.path().join(name).to_str().expect("UTF-8").to_owned()
    }

    /// Makes a folder that belongs to `owner`.
    pub fn folder(&self, name: &str, owner: u32) {
        let path = self.path(name);
        fs::create_dir_all(&path).expect("make a folder");
        chown(&path, Some(owner), Some(owner)).expect("give the folder away");
    }

    /// Writes a file, with `@ROOT@`, `@HOST@`, `@USER@` and `@PASSWORD@` filled in.
    pub fn write(&self, name: &str, text: &str) {
        let text = text
            .replace("@ROOT@", self.root.path().to_str().expect("UTF-8"))
            .replace("@HOST@", &self.host)
            .replace("@USER@", USER)
            .replace("@PASSWORD@", PASSWORD);
        let path = self.root.path().join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("make a folder");
        fs::write(path, text).expect("write a file");
    }

    /// Runs a command to its end; one that stays behind as a daemon must not hold our output.
    pub fn run(&self, mut command: Command) {
        let status = self.with_log(&mut command).status().expect("run a command");
        assert!(status.success(), "{command:?}: {status}\n{}", self.logs());
    }

    /// Starts a command that runs until the end of the site.
    pub fn spawn(&mut self, mut command: Command) {
        // A group of its own, so that the end reaches the children of the server too.
        let child = self.with_log(command.process_group(0)).spawn().expect("start a server");
        self.children.push(child);
    }

    /// The same by an exec at the end of `script`, a shell's, in the folder. It has mounts that
    /// nobody else sees: an /etc that knows only root, nobody and `accounts`, and no name server,
    /// and an empty folder in the place of each of `emptied`.
    pub fn spawn_apart(&mut self, accounts: &[&str], emptied: &[&str], script: &str) {
        let all = [("root", 0), ("nobody", OWNER)].into_iter();
        let all = all.chain(accounts.iter().copied().zip(4001..));
        let (mut passwd, mut group) = (String::new(), String::new());
        for (name, id) in all {
            passwd += &format!("{name}:x:{id}:{id}::/nonexistent:/bin/sh\n");
            group += &format!("{name}:x:{id}:\n");
        }
        self.write("etc/passwd", &passwd);
        self.write("etc/group", &group);
        self.write("etc/hosts", "127.0.0.1 localhost\n");
        self.write("etc/nsswitch.conf", "hosts: files\n");
        // The same for the resolver of OpenBSD.
        self.write("etc/resolv.conf", "lookup file\n");
        let mut whole = String::from("cd \"$1\"\nmount --bind etc /etc\n");
        whole.extend(emptied.iter().map(|folder| format!("mount -t tmpfs none {folder}\n")));
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-e", "-c", &(whole + script), "sh"]).arg(self.root.path());
        self.spawn(command);
    }

    /// Runs a command when the site ends.
    pub fn at_end(&mut self, command: Command) {
        self.at_end.push(command);
    }

    /// Waits until somebody listens on `port`.
    ///
    /// # Panics
    /// When a process of the site ends instead.
    pub async fn listens(&mut self, port: u16) {
        let address = format!("{}:{port}", self.host);
        eventually(&format!("{address} listens"), async || {
            for child in &mut self.children {
                let status = child.try_wait().expect("look after a process");
                assert!(status.is_none(), "a server ended with {status:?} before it listened");
            }
            tokio::net::TcpStream::connect(&address).await.ok()
        })
        .await;
    }

    /// The files below `mail/` that contain `words`.
    pub fn mail(&self, words: &str) -> Vec<Vec<u8>> {
        let mut found = Vec::new();
        let mut folders = vec![self.root.path().join("mail")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).expect("the mail").flatten() {
                let path = entry.path();
                // What a maildir has in tmp is not whole yet.
                if path.is_dir() && entry.file_name() != "tmp" {
                    folders.push(path);
                } else if let Ok(message) = fs::read(path) {
                    found.push(message);
                }
            }
        }
        let has =
            |message: &[u8]| message.windows(words.len()).any(|part| part == words.as_bytes());
        found.into_iter().filter(|message| has(message)).collect()
    }

    fn with_log<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        let log = File::options().create(true).append(true).open(self.path("output.log"));
        let log = log.expect("a log");
        let again = log.try_clone().expect("a second handle");
        command.stdin(Stdio::null()).stdout(log).stderr(again)
    }

    fn logs(&self) -> String {
        let paths = fs::read_dir(self.root.path()).expect("the folder").flatten().map(|e| e.path());
        let logs = paths.filter(|path: &PathBuf| path.extension().is_some_and(|e| e == "log"));
        logs.map(|path| {
            let text = fs::read(&path).unwrap_or_default();
            format!("{}:\n{}\n", path.display(), String::from_utf8_lossy(&text))
        })
        .collect()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        for command in &mut self.at_end {
            let _ = command.output();
        }
        for child in &mut self.children {
            let _ = kill_process_group(Pid::from_child(child), Signal::KILL);
            let _ = child.wait();
        }
        if std::thread::panicking() {
            println!("{}", self.logs());
        }
    }
}

/// What a program prints.
pub fn printed(command: &mut Command) -> String {
    let output = command.output().expect("run a command");
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
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
    let path = root.join("server.key");
    fs::write(&path, key.serialize_pem()).expect("write the key");
    fs::set_permissions(path, Permissions::from_mode(0o600)).expect("guard the key");
    authority.pem()
}
