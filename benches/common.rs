//! What several of the programs need.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use breakglass_mailer::core::job::JobId;
use breakglass_mailer::core::notification::{Address, Content, Notification, NotificationId};
use breakglass_mailer::core::provider::ProviderName;
use breakglass_mailer::core::time::Time;
use breakglass_mailer::queue::store::Change;
use uuid::Uuid;

/// So many bytes of a plain text with lines.
pub fn text(bytes: usize) -> String {
    const LINE: &str = "Alice asks for cluster-admin on prod-1; please look at it and approve.\n";
    LINE.chars().cycle().take(bytes).collect()
}

/// A notification with one recipient, as the queue would have it stored.
pub fn accept(provider: &str, recipient: &str, body: &str) -> Change {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = Time(since.as_millis().try_into().unwrap_or(u64::MAX));
    let subject = "Breakglass request on prod-1".to_owned();
    let notification = Notification {
        id: NotificationId(Uuid::now_v7()),
        subject: subject.clone(),
        accepted_at: now,
        expires_at: None,
        chain: Arc::new([ProviderName::new(provider).expect("a name")]),
        warnings: Vec::new(),
        jobs: vec![(JobId(Uuid::now_v7()), Address::parse(recipient).expect("an address"))],
        trace: None,
    };
    let content = Content { subject, html: None, text: Some(body.to_owned()), reply_to: None };
    let deadline = now.plus(Duration::from_secs(24 * 3600));
    Change::Accept { notification, content, deadline, key: None }
}
