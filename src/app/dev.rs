//! `dev`: one provider, which is a mailbox inside this process.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use tokio::net::TcpListener;

use super::{App, Mode, bind, run_to_end};
use crate::cli::catch_all;
use crate::config::{Dev, Policy, check_loopback, own_namespace};
use crate::core::notification::Address;
use crate::core::provider::{Provider, ProviderName, Security, Sender, Smtp};
use crate::core::route::Catalog;
use crate::http::Auth;

/// Runs `dev` until it is told to stop.
///
/// # Errors
/// When it cannot start, or when the store stopped.
pub fn dev(dev: Dev) -> anyhow::Result<()> {
    check_loopback(dev.listen).map_err(anyhow::Error::msg)?;
    let folder = dev.data_dir.join("mailbox");
    run_to_end(async {
        let listener = bind(dev.listen, "--listen").await?;
        std::fs::create_dir_all(&folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
        let app = App::open(&dev.data_dir.join("store"), &Policy::default())?;
        let mailbox = TcpListener::bind("127.0.0.1:0").await.context("cannot open the mailbox")?;
        app.registry.replace(dev_catalog(mailbox.local_addr()?)?);
        tokio::spawn(catch_all::run(mailbox, folder.clone()));
        println!("{}", welcome(listener.local_addr()?, &dev.data_dir));
        app.run(listener, Mode { mailbox: Some(folder), ..Mode::new(Auth::Local) }).await
    })
}

/// The one provider of `dev`.
fn dev_catalog(mailbox: SocketAddr) -> anyhow::Result<Catalog> {
    let name = ProviderName::new("mailbox").context("the name of the provider is valid")?;
    let address = Address::parse("breakglass@dev.example").map_err(anyhow::Error::msg)?;
    let smtp = Smtp::new(&mailbox.ip().to_string(), mailbox.port(), Security::Plaintext);
    let sender = Sender { address, name: Some("Breakglass Dev".to_owned()) };
    let provider = Provider {
        display_name: Some("Catch-all mailbox".to_owned()),
        default: true,
        ..Provider::new(name.clone(), smtp, sender)
    };
    let providers = [(name, Arc::new(provider))].into();
    Ok(Catalog { namespace: own_namespace(None), providers, ..Catalog::default() })
}

fn welcome(address: SocketAddr, folder: &Path) -> String {
    format!(
        "
breakglass-mailer is ready at http://{address}, its data is in {folder}.

Send a notification:

  curl -i http://{address}/notify -H 'Content-Type: application/json' -d '{{
    \"recipients\": [\"oncall@example.com\"],
    \"subject\": \"Breakglass request on prod-1\",
    \"text\": \"Alice asks for cluster-admin on prod-1.\"
  }}'

Read the mailbox:      http://{address}/mailbox
Look at the queue:     http://{address}/queue
The operator's page:   http://{address}/
Stop:                  Ctrl-C; a second start goes on from here
",
        folder = folder.display()
    )
}
