//! `serve`, its flags and their defaults.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::client::server;
use super::{Log, Webhook, duration, positive_duration};
use crate::core::health::HealthIntervals;
use crate::core::provider::is_dns_subdomain;

/// `serve`.
#[derive(Debug, Args)]
#[group(id = "source", required = true, multiple = false, args = ["providers", "kubernetes"])]
pub struct Serve {
    /// Providers, secrets, escalations and clusters: a YAML file, or a folder of them; watched
    #[arg(long, env = "BREAKGLASS_MAILER_PROVIDERS", value_name = "PATH")]
    pub providers: Option<PathBuf>,
    /// The same from the Kubernetes API, whose MailProviders get their status from here
    #[arg(long, env = "BREAKGLASS_MAILER_KUBERNETES",
          value_parser = clap::builder::FalseyValueParser::new())]
    pub kubernetes: bool,
    /// Where the queue is kept
    #[arg(long, env = "BREAKGLASS_MAILER_DATA_DIR", default_value = "breakglass-mailer-data")]
    pub data_dir: PathBuf,
    /// Own namespace: where bare names and Secrets are looked up first
    #[arg(long, env = "BREAKGLASS_MAILER_NAMESPACE", value_parser = namespace)]
    pub namespace: Option<String>,
    /// Other namespaces whose Secrets a passwordRef may name
    #[arg(long, env = "BREAKGLASS_MAILER_SECRET_NAMESPACES", value_delimiter = ',',
          value_parser = namespace)]
    pub secret_namespaces: Vec<String>,
    /// Address of the API [default: 127.0.0.1:8080, with --kubernetes 0.0.0.0:8080]
    #[arg(long, env = "BREAKGLASS_MAILER_LISTEN")]
    pub listen: Option<SocketAddr>,
    /// How callers are authenticated
    #[arg(long, env = "BREAKGLASS_MAILER_AUTH", default_value = "none")]
    pub auth: AuthMode,
    /// One or two tokens, each on a line and at least 32 characters long; watched
    #[arg(long, env = "BREAKGLASS_MAILER_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// The audience that tokens of --auth kubernetes are made for
    #[arg(long, env = "BREAKGLASS_MAILER_AUDIENCE", default_value = "breakglass-mailer")]
    pub audience: String,
    /// Listen beyond loopback although every caller may then send mail and read dead letters
    #[arg(long, env = "BREAKGLASS_MAILER_INSECURE_NO_AUTH",
          value_parser = clap::builder::FalseyValueParser::new())]
    pub insecure_no_auth: bool,
    /// Export spans to the OTLP collector there, over HTTP [default: $OTEL_EXPORTER_OTLP_ENDPOINT]
    #[arg(long, env = "BREAKGLASS_MAILER_OTLP_ENDPOINT", value_name = "URL")]
    pub otlp_endpoint: Option<String>,
    /// The admission webhook of `--kubernetes`.
    #[command(flatten)]
    pub webhook: Webhook,
    /// What delivery goes by.
    #[command(flatten)]
    pub policy: Policy,
    /// How to log.
    #[command(flatten)]
    pub log: Log,
}

/// What delivery goes by.
#[derive(Clone, Debug, Args)]
pub struct Policy {
    /// A job older than this is not delivered any more
    #[arg(long, env = "BREAKGLASS_MAILER_MAX_AGE", default_value = "24h", value_parser = duration)]
    pub max_age: Duration,
    /// Whether parked mail goes out by itself when its provider recovers
    #[arg(long, env = "BREAKGLASS_MAILER_REDRIVE", default_value = "auto")]
    pub redrive: Redrive,
    /// How long dead letters are kept; parked ones stay
    #[arg(long, env = "BREAKGLASS_MAILER_DEADLETTER_RETENTION", default_value = "720h",
          value_parser = duration)]
    pub deadletter_retention: Duration,
    /// How long delivered and cancelled jobs can be looked up
    #[arg(long, env = "BREAKGLASS_MAILER_HISTORY_RETENTION", default_value = "168h",
          value_parser = duration)]
    pub history_retention: Duration,
    /// How long an Idempotency-Key is honoured
    #[arg(long, env = "BREAKGLASS_MAILER_IDEMPOTENCY_RETENTION", default_value = "24h",
          value_parser = duration)]
    pub idempotency_retention: Duration,
    /// Connections to each provider at once that has no limits.maxConnections
    #[arg(long, env = "BREAKGLASS_MAILER_MAX_CONNECTIONS", default_value_t = 4,
          value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub max_connections: u16,
    /// How long sends under way may take after SIGTERM
    #[arg(long, env = "BREAKGLASS_MAILER_SHUTDOWN_GRACE", default_value = "25s",
          value_parser = duration)]
    pub shutdown_grace: Duration,
    /// Between checks of a healthy provider
    #[arg(long, env = "BREAKGLASS_MAILER_HEALTH_INTERVAL", default_value = "5m",
          value_parser = positive_duration)]
    pub health_interval: Duration,
    /// Between checks of an unhealthy provider
    #[arg(long, env = "BREAKGLASS_MAILER_UNHEALTHY_INTERVAL", default_value = "30s",
          value_parser = positive_duration)]
    pub unhealthy_interval: Duration,
    /// For one whole check
    #[arg(long, env = "BREAKGLASS_MAILER_HEALTH_TIMEOUT", default_value = "10s",
          value_parser = positive_duration)]
    pub health_timeout: Duration,
}

impl Default for Policy {
    /// The defaults of the flags, for `dev`, which has none of them.
    fn default() -> Self {
        let hours = |hours: u64| Duration::from_secs(hours * 3600);
        Self {
            max_age: hours(24),
            redrive: Redrive::Auto,
            deadletter_retention: hours(720),
            history_retention: hours(168),
            idempotency_retention: hours(24),
            max_connections: 4,
            shutdown_grace: Duration::from_secs(25),
            health_interval: HealthIntervals::default().healthy,
            unhealthy_interval: HealthIntervals::default().unhealthy,
            health_timeout: Duration::from_secs(10),
        }
    }
}

/// Whether parked mail goes out by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Redrive {
    /// As soon as a provider of its chain is healthy again.
    Auto,
    /// Only by an operator's hand.
    Off,
}

/// How callers are authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AuthMode {
    /// Not at all: whoever reaches the API may use it.
    None,
    /// By a token of `--token-file`.
    Token,
    /// By the Kubernetes API: a TokenReview, and what RBAC says.
    Kubernetes,
}

/// The namespace of this process: the flag, else `POD_NAMESPACE`, else `default`.
#[must_use]
pub fn own_namespace(flag: Option<String>) -> String {
    flag.or_else(|| std::env::var("POD_NAMESPACE").ok().filter(|name| !name.is_empty()))
        .unwrap_or_else(|| "default".to_owned())
}

impl Serve {
    /// `--listen`: without it, where its callers are.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        let ip = if self.kubernetes { Ipv4Addr::UNSPECIFIED } else { Ipv4Addr::LOCALHOST };
        self.listen.unwrap_or(SocketAddr::from((ip, 8080)))
    }

    /// `--otlp-endpoint`: without it, what the environment says to all programs that export spans.
    ///
    /// # Errors
    /// When it is no URL; does not quote it, because there may be a password in it.
    pub fn otlp_endpoint(&self) -> Result<Option<String>, String> {
        const VARIABLE: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
        let (name, given) = match &self.otlp_endpoint {
            Some(flag) => ("--otlp-endpoint", Some(flag.clone())),
            None => (VARIABLE, std::env::var(VARIABLE).ok()),
        };
        let given = given.filter(|url| !url.is_empty());
        given.map(|url| server(&url).map_err(|rule| format!("{name}: {rule}"))).transpose()
    }

    /// Refuses an address that strangers can reach while nobody is authenticated, and a token file
    /// that is missing or that nobody would ask for.
    ///
    /// # Errors
    /// A sentence that says what to do.
    pub fn check_auth(&self) -> Result<(), String> {
        match (self.auth, &self.token_file) {
            (AuthMode::Token, None) => Err("--auth token needs --token-file FILE".to_owned()),
            (AuthMode::None | AuthMode::Kubernetes, Some(_)) => {
                Err("--token-file has no effect without --auth token: add that, or leave out \
                     --token-file (or unset BREAKGLASS_MAILER_TOKEN_FILE)"
                    .to_owned())
            }
            (AuthMode::Kubernetes, None) if !self.kubernetes => {
                Err("--auth kubernetes needs --kubernetes".to_owned())
            }
            (AuthMode::Token, Some(_)) | (AuthMode::Kubernetes, None) => Ok(()),
            (AuthMode::None, None) if self.insecure_no_auth => Ok(()),
            (AuthMode::None, None) => check_loopback(self.address()),
        }
    }
}

/// Refuses an address that strangers can reach.
///
/// # Errors
/// A sentence that says what to do.
pub fn check_loopback(listen: SocketAddr) -> Result<(), String> {
    if is_loopback(listen.ip()) {
        return Ok(());
    }
    Err(format!(
        "--listen {listen} is reachable from outside, and callers are not authenticated: use a \
         loopback address, --auth token, or --insecure-no-auth if something in front of it checks \
         callers"
    ))
}

/// Whether only this machine itself can be reached there.
#[must_use]
pub fn is_loopback(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_loopback(),
        IpAddr::V6(ip) => {
            ip.is_loopback() || ip.to_ipv4_mapped().as_ref().is_some_and(Ipv4Addr::is_loopback)
        }
    }
}

fn namespace(text: &str) -> Result<String, String> {
    if is_dns_subdomain(text) { Ok(text.to_owned()) } else { Err("is no namespace".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Cli, Command};
    use clap::Parser;

    #[test]
    fn the_defaults_of_the_flags_are_those_of_dev() {
        let cli = Cli::parse_from(["breakglass-mailer", "serve", "--providers", "x"]);
        let Command::Serve(serve) = cli.command else { panic!("serve was given") };
        assert_eq!(format!("{:?}", serve.policy), format!("{:?}", Policy::default()));
    }

    #[test]
    fn strangers_reach_only_what_checks_its_callers() {
        let check = |args: &[&str]| {
            let words = ["breakglass-mailer", "serve", "--providers", "x"].iter().chain(args);
            let Command::Serve(serve) = Cli::parse_from(words).command else { panic!("serve") };
            serve.check_auth().is_ok()
        };
        assert!(check(&["--listen", "127.0.0.1:8080"]) && check(&["--listen", "[::1]:8080"]));
        assert!(!check(&["--listen", "0.0.0.0:8080"]) && !check(&["--listen", "10.0.0.1:80"]));
        assert!(check(&["--listen", "0.0.0.0:8080", "--insecure-no-auth"]));
        assert!(check(&["--listen", "0.0.0.0:8080", "--auth", "token", "--token-file", "x"]));
        assert!(!check(&["--auth", "token"]) && !check(&["--token-file", "x"]));
    }
}
