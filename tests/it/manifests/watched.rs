//! Changes of the files while the program runs.

use std::os::unix::fs::symlink;
use std::sync::Arc;
use std::time::Duration;

use breakglass_mailer::clock::Clock;
use breakglass_mailer::core::health::HealthIntervals;
use breakglass_mailer::manifests::watch;
use breakglass_mailer::registry::Registry;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::*;

/// A registry that follows a path.
struct Watched {
    registry: Arc<Registry>,
    _stop: DropGuard,
}

impl Watched {
    fn start(path: &Path) -> Self {
        let registry = Arc::new(Registry::new(HealthIntervals::default(), Clock::start()));
        let stop = CancellationToken::new();
        tokio::spawn(watch(source(path), Arc::clone(&registry), stop.clone()));
        Self { registry, _stop: stop.drop_guard() }
    }

    async fn becomes(&self, names: &[&str]) {
        let mut catalogs = self.registry.watch();
        let same = catalogs.wait_for(|catalog| {
            catalog.providers.keys().map(ProviderName::as_str).eq(names.iter().copied())
        });
        // Far beyond the quiet time and the poll, for a machine that is busy.
        let waited = timeout(Duration::from_secs(60), same).await;
        assert!(waited.is_ok(), "the providers never became {names:?}");
    }
}

#[tokio::test]
async fn a_file_that_an_editor_replaces_is_read_again() {
    let folder = Folder::of([("a.yaml", relay("one").as_str())]);
    let watched = Watched::start(&folder.path().join("a.yaml"));
    watched.becomes(&["one"]).await;
    folder.write(".a.yaml.swp", &relay("two"));
    fs::rename(folder.path().join(".a.yaml.swp"), folder.path().join("a.yaml")).expect("renamed");
    watched.becomes(&["two"]).await;
}

#[tokio::test]
async fn a_mounted_configmap_is_read_again_when_its_link_is_swapped() {
    let folder = Folder::new();
    let version = |name: &str, provider: &str| {
        let inner = folder.path().join(name);
        fs::create_dir(&inner).expect("created");
        fs::write(inner.join("a.yaml"), relay(provider)).expect("written");
    };
    version("..1", "one");
    version("..2", "two");
    symlink("..1", folder.path().join("..data")).expect("linked");
    symlink("..data/a.yaml", folder.path().join("a.yaml")).expect("linked");
    let watched = Watched::start(folder.path());
    watched.becomes(&["one"]).await;
    symlink("..2", folder.path().join("..data_tmp")).expect("linked");
    let swapped = fs::rename(folder.path().join("..data_tmp"), folder.path().join("..data"));
    swapped.expect("renamed");
    watched.becomes(&["two"]).await;
}
