//! `migrate-config` and its flags.

use std::path::PathBuf;

use clap::Args;

use crate::core::provider::is_dns_subdomain;

/// `migrate-config`.
#[derive(Debug, Args)]
pub struct MigrateConfig {
    /// The old config.yaml; - is standard input
    pub file: PathBuf,
    /// Name of the MailProvider
    #[arg(long, env = "BREAKGLASS_MAILER_NAME", default_value = "default-smtp",
          value_parser = object_name)]
    pub name: String,
    /// Name of the Secret
    #[arg(long, env = "BREAKGLASS_MAILER_SECRET_NAME", default_value = "smtp-credentials",
          value_parser = object_name)]
    pub secret_name: String,
}

fn object_name(text: &str) -> Result<String, String> {
    let rule = "must be lower-case letters, digits, hyphens and dots, as Kubernetes names objects";
    is_dns_subdomain(text).then(|| text.to_owned()).ok_or_else(|| rule.to_owned())
}
