//! The admission webhook of `serve --kubernetes`: its flags and their defaults.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

/// The admission webhook.
#[derive(Clone, Debug, Args)]
pub struct Webhook {
    /// Address of the admission webhook, with --kubernetes
    #[arg(long, env = "BREAKGLASS_MAILER_WEBHOOK_LISTEN", default_value = "0.0.0.0:9443")]
    pub webhook_listen: SocketAddr,
    /// A folder with tls.crt and tls.key for the webhook, watched; without it a certificate is
    /// made, kept in a Secret and put into the webhook configuration
    #[arg(long, env = "BREAKGLASS_MAILER_WEBHOOK_CERT_DIR", value_name = "DIR")]
    pub webhook_cert_dir: Option<PathBuf>,
    /// The Service, in the own namespace, that such a certificate is for
    #[arg(
        long,
        env = "BREAKGLASS_MAILER_WEBHOOK_SERVICE",
        value_name = "NAME",
        default_value = "breakglass-mailer-webhook"
    )]
    pub webhook_service: String,
    /// The ValidatingWebhookConfiguration that such a certificate's authority is put into
    #[arg(
        long,
        env = "BREAKGLASS_MAILER_WEBHOOK_CONFIGURATION",
        value_name = "NAME",
        default_value = "breakglass-mailer"
    )]
    pub webhook_configuration: String,
}
