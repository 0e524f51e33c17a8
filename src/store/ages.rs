//! Ids by a time, for whoever asks which of them are old.
//!
//! Most come in about the order of their times and are asked for after days, so they are kept like a
//! log: many in one value, whose key is the latest time of them. Nothing is taken out when an id is
//! forgotten; whoever asks says which are known still, and a value with none of them goes.

use std::sync::{Mutex, MutexGuard, PoisonError};

use sled::Tree;

use super::rows::{Applied, broken, id, insert, remove};
use crate::migrations::latest::Id;

/// So many ids lie in one value.
const IDS_COUNT_MAX: usize = 256;
/// With so many in memory they are written out.
const RECENT_COUNT_MAX: usize = 4 * IDS_COUNT_MAX;

/// See the module.
pub(super) struct Ages {
    tree: Tree,
    recent: Mutex<Vec<(u64, Id)>>,
}

impl Ages {
    pub(super) fn new(tree: Tree) -> Self {
        Self { tree, recent: Mutex::default() }
    }

    pub(super) fn push(&self, time: u64, id: Id) -> Applied<()> {
        let count = {
            let mut recent = self.recent();
            recent.push((time, id));
            recent.len()
        };
        if count < RECENT_COUNT_MAX { Ok(()) } else { self.write_out() }
    }

    /// Writes what is in memory to sled.
    pub(super) fn write_out(&self) -> Applied<()> {
        let mut recent = self.recent().clone();
        recent.sort_unstable();
        for some in recent.chunks(IDS_COUNT_MAX) {
            let Some((latest, last)) = some.last() else { continue };
            let mut key = latest.to_be_bytes().to_vec();
            key.extend_from_slice(last);
            let ids: Vec<u8> = some.iter().flat_map(|(_, id)| *id).collect();
            insert(&self.tree, &key, &ids)?;
        }
        // Only the thread that pushes writes out.
        self.recent().clear();
        Ok(())
    }

    /// Up to `limit` ids from before `time` that are known still. One that shares a value with a later
    /// one may be left out until that is old enough.
    pub(super) fn before(
        &self,
        time: u64,
        limit: usize,
        is_known: impl Fn(&Id) -> Applied<bool>,
    ) -> Applied<Vec<Id>> {
        let known = |ids: Vec<Id>| -> Applied<Vec<Id>> {
            let kept = ids.into_iter().map(|id| Ok(is_known(&id)?.then_some(id)));
            kept.filter_map(Result::transpose).collect()
        };
        let mut found = Vec::new();
        for ids in self.tree.range(..time.to_be_bytes()) {
            let (key, ids) = ids.map_err(broken)?;
            let ids = known(ids.chunks(size_of::<Id>()).map(id).collect::<Applied<_>>()?)?;
            if ids.is_empty() {
                remove(&self.tree, &key)?;
            }
            found.extend(ids);
            if limit <= found.len() {
                break;
            }
        }
        if found.len() < limit {
            let recent = self.recent().clone();
            let old = recent.into_iter().filter(|(at, _)| *at < time).map(|(_, id)| id);
            found.extend(known(old.collect())?);
        }
        found.truncate(limit);
        Ok(found)
    }

    fn recent(&self) -> MutexGuard<'_, Vec<(u64, Id)>> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
