//! The rows of the index, one for each notification, by id.
//!
//! Those that changed last are in memory: most of what happens to a job happens within a moment, and
//! then its row is written once. From there they go to sled, a dozen in one value, because sled takes
//! as long for one row as for a dozen.
//!
//! Such a block holds rows in the order of their ids, each behind its length, and its key is the id of
//! the first. A row belongs to the block with the greatest key that is not greater than its id.
//!
//! One thread changes rows; any number read them.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use sled::{IVec, Tree};

use super::frame::array;
use super::rows::{Applied, Head, Row, broken, encode, insert, read, remove};
use crate::migrations::latest::Id;
use crate::queue::store::StoreError;

/// A block larger than this is divided.
const BLOCK_BYTES_MAX: usize = 3 << 10;
/// What the parts of a divided block have, about.
const BLOCK_BYTES: usize = 2 << 10;
/// Rows and their jobs that are in memory before they are written out; some 8 MiB.
const WEIGHT_MAX: usize = 1 << 14;

/// See the module.
pub(super) struct Table {
    blocks: Tree,
    recent: RwLock<Recent>,
}

/// What is not yet in a block, or there as it was. A row that is none was removed.
#[derive(Default)]
struct Recent {
    rows: BTreeMap<Id, Option<Arc<Row>>>,
    weight: usize,
}

impl Table {
    pub(super) fn new(blocks: Tree) -> Self {
        Self { blocks, recent: RwLock::default() }
    }

    pub(super) fn get(&self, id: &Id) -> Applied<Option<Arc<Row>>> {
        if let Some(row) = self.recent().rows.get(id) {
            return Ok(row.clone());
        }
        let Some((_, block)) = self.block_of(id)? else { return Ok(None) };
        for bytes in rows_in(&block)? {
            if read::<Head>(bytes)?.id == *id {
                return read(bytes).map(Arc::new).map(Some);
            }
        }
        Ok(None)
    }

    /// The row at `id` or else the one before it, as far as it exists still.
    pub(super) fn at_or_before(&self, id: &Id) -> Applied<Option<Arc<Row>>> {
        let recent =
            self.recent().rows.range(..=*id).next_back().map(|(id, row)| (*id, row.clone()));
        let written = self.written_at_or_before(id)?;
        match (recent, written) {
            (Some((at, row)), written) if written.as_ref().is_none_or(|row| row.id <= at) => {
                Ok(row)
            }
            (_, written) => Ok(written.map(Arc::new)),
        }
    }

    /// Like [`at_or_before`](Self::at_or_before), among the rows in memory alone.
    pub(super) fn recent_at_or_before(&self, id: &Id) -> Option<Arc<Row>> {
        self.recent().rows.range(..=*id).next_back()?.1.clone()
    }

    fn written_at_or_before(&self, id: &Id) -> Applied<Option<Row>> {
        let Some((_, block)) = self.block_of(id)? else { return Ok(None) };
        let mut last = None;
        for bytes in rows_in(&block)? {
            if read::<Head>(bytes)?.id > *id {
                break;
            }
            last = Some(bytes);
        }
        last.map(read).transpose()
    }

    /// The first id behind `id` that a row has, or had a moment ago.
    pub(super) fn next_id(&self, id: &Id) -> Applied<Option<Id>> {
        let behind = (Bound::Excluded(*id), Bound::Unbounded);
        let recent = self.recent().rows.range(behind).next().map(|(id, _)| *id);
        let mut written = None;
        let blocks =
            [self.block_of(id)?, self.blocks.range(behind).next().transpose().map_err(broken)?];
        for (_, block) in blocks.into_iter().flatten() {
            for bytes in rows_in(&block)? {
                let head: Head = read(bytes)?;
                if *id < head.id && written.is_none() {
                    written = Some(head.id);
                }
            }
        }
        Ok([recent, written].into_iter().flatten().min())
    }

    /// All rows before `before`, newest first.
    pub(super) fn newest_first(&self, before: Option<&Id>) -> NewestFirst {
        let until = before.map_or(Bound::Unbounded, |id| Bound::Excluded(*id));
        let recent = self.recent().rows.range((Bound::Unbounded, until)).rev().map(clone).collect();
        let blocks = match before {
            Some(id) => self.blocks.range(..id.as_slice()),
            None => self.blocks.iter(),
        };
        NewestFirst { recent, blocks: blocks.rev(), block: Vec::new(), before: before.copied() }
    }

    /// Calls `visit` with the head of each row. All of them have to be written out.
    pub(super) fn heads(&self, mut visit: impl FnMut(Head)) -> Applied<()> {
        for block in self.blocks.iter().values() {
            for bytes in rows_in(&block.map_err(broken)?)? {
                visit(read(bytes)?);
            }
        }
        Ok(())
    }

    /// Lets sled's memory go back to its bound after many rows were read. sled 0.34 counts reads in 256
    /// lists, by the number of the page, and lets go of a page only when 64 more were counted in its
    /// list; what is read once would stay for good. So some neighbouring pages are read often enough
    /// that each list is counted.
    pub(super) fn shed_pages(&self) -> Applied<()> {
        // A page has at least 4 blocks, but for the last, and at most 16.
        for key in self.blocks.iter().keys().step_by(8).take(2 * 512) {
            let key = key.map_err(broken)?;
            for _ in 0..64 {
                self.blocks.get(&key).map_err(broken)?;
            }
        }
        Ok(())
    }

    pub(super) fn put(&self, row: Row) {
        self.set(row.id, Some(Arc::new(row)));
    }

    pub(super) fn remove(&self, id: &Id) {
        self.set(*id, None);
    }

    fn set(&self, id: Id, row: Option<Arc<Row>>) {
        let weight = row.as_deref().map_or(1, weight);
        let mut recent = self.recent.write().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Vacant(vacant) = recent.rows.entry(id) {
            vacant.insert(row);
            recent.weight += weight;
        } else {
            recent.rows.insert(id, row);
        }
    }

    /// Takes a row that was just read into memory, where it is found when it is changed.
    pub(super) fn bring(&self, row: Arc<Row>) {
        if !self.recent().rows.contains_key(&row.id) {
            self.set(row.id, Some(row));
        }
    }

    /// Changes a row; `None` when there is none.
    pub(super) fn change<T>(
        &self,
        id: &Id,
        change: impl FnOnce(&mut Row) -> T,
    ) -> Applied<Option<T>> {
        if !self.recent().rows.contains_key(id) {
            let Some(row) = self.get(id)? else { return Ok(None) };
            self.set(*id, Some(row));
        }
        let mut recent = self.recent.write().unwrap_or_else(PoisonError::into_inner);
        let row = recent.rows.get_mut(id).and_then(Option::as_mut);
        Ok(row.map(|row| change(Arc::make_mut(row))))
    }

    /// Whether so much is in memory that some of it should be written out.
    pub(super) fn is_full(&self) -> bool {
        WEIGHT_MAX <= self.recent().weight
    }

    /// Writes the oldest rows in memory to sled: so many, or all of them.
    pub(super) fn write_out(&self, count: Option<usize>) -> Applied<()> {
        let count = count.unwrap_or(usize::MAX);
        let oldest: Vec<_> = self.recent().rows.iter().take(count).map(clone).collect();
        let mut rest = &oldest[..];
        while let Some((first, _)) = rest.first() {
            let behind = (Bound::Excluded(*first), Bound::Unbounded);
            let next = self.blocks.range(behind).next().transpose().map_err(broken)?;
            let count = next.map_or(rest.len(), |(key, _)| {
                rest.partition_point(|(id, _)| id.as_slice() < key.as_ref())
            });
            let (changed, later) = rest.split_at(count);
            self.rewrite(self.block_of(first)?, changed)?;
            rest = later;
        }
        // Nobody else changes rows, so these are as they were written.
        let mut recent = self.recent.write().unwrap_or_else(PoisonError::into_inner);
        for (id, row) in oldest {
            recent.rows.remove(&id);
            recent.weight -= row.as_deref().map_or(1, weight).min(recent.weight);
        }
        if recent.rows.is_empty() {
            recent.weight = 0;
        }
        Ok(())
    }

    /// Writes a block again with the rows that changed in it, as more blocks when it has grown.
    fn rewrite(
        &self,
        old: Option<(IVec, IVec)>,
        changed: &[(Id, Option<Arc<Row>>)],
    ) -> Applied<()> {
        let mut rows: BTreeMap<Id, Vec<u8>> = BTreeMap::new();
        if let Some((_, block)) = &old {
            for bytes in rows_in(block)? {
                rows.insert(read::<Head>(bytes)?.id, bytes.to_owned());
            }
        }
        for (id, row) in changed {
            match row {
                Some(row) => rows.insert(*id, encode(&**row)),
                None => rows.remove(id),
            };
        }
        let all: usize = rows.values().map(Vec::len).sum();
        let part =
            if all <= BLOCK_BYTES_MAX { all } else { all.div_ceil(all.div_ceil(BLOCK_BYTES)) };
        let mut parts: Vec<(Id, Vec<u8>)> = Vec::new();
        for (id, bytes) in rows {
            if parts.last().is_none_or(|(_, block)| part <= block.len()) {
                parts.push((id, Vec::with_capacity(part + part / 4)));
            }
            let (_, block) = parts.last_mut().expect("one was begun just now");
            let length =
                u32::try_from(bytes.len()).expect("a row is smaller than a frame of the journal");
            block.extend_from_slice(&length.to_le_bytes());
            block.extend_from_slice(&bytes);
        }
        // The last first, and the old block until all are there: at no time is a row in none of them,
        // and one that is in two comes out of the newer.
        for (key, block) in parts.iter().rev() {
            insert(&self.blocks, key, block)?;
        }
        match old {
            Some((key, _)) if parts.first().is_none_or(|(first, _)| *first != key.as_ref()) => {
                remove(&self.blocks, &key)
            }
            _ => Ok(()),
        }
    }

    /// The block that a row belongs to.
    fn block_of(&self, id: &Id) -> Applied<Option<(IVec, IVec)>> {
        self.blocks.range(..=id.as_slice()).next_back().transpose().map_err(broken)
    }

    fn recent(&self) -> RwLockReadGuard<'_, Recent> {
        // A row is changed whole or not at all, but for a panic that ends the index.
        self.recent.read().unwrap_or_else(PoisonError::into_inner)
    }
}

fn clone((id, row): (&Id, &Option<Arc<Row>>)) -> (Id, Option<Arc<Row>>) {
    (*id, row.clone())
}

/// What a row takes of the memory, in that of a usual job.
fn weight(row: &Row) -> usize {
    1 + row.jobs.len()
}

/// The rows of a block, encoded.
fn rows_in(block: &[u8]) -> Applied<Vec<&[u8]>> {
    let mut rows = Vec::new();
    let mut rest = block;
    while !rest.is_empty() {
        let row = rest.split_at_checked(4).and_then(|(length, behind)| {
            behind.split_at_checked(u32::from_le_bytes(array(length)) as usize)
        });
        let Some((row, behind)) = row else {
            return Err(StoreError::Stopped("a block of the index has no end".to_owned()));
        };
        rows.push(row);
        rest = behind;
    }
    Ok(rows)
}

/// See [`Table::newest_first`]. A row that changes meanwhile comes as it was or as it is, and rows
/// beside one that is written out just now may be left out.
pub(super) struct NewestFirst {
    /// Newest first.
    recent: std::collections::VecDeque<(Id, Option<Arc<Row>>)>,
    blocks: std::iter::Rev<sled::Iter>,
    /// Newest last.
    block: Vec<Arc<Row>>,
    before: Option<Id>,
}

impl NewestFirst {
    /// The newest row of the blocks that was not yet answered.
    fn written(&mut self) -> Applied<Option<Arc<Row>>> {
        while self.block.is_empty() {
            let Some(block) = self.blocks.next() else { return Ok(None) };
            let (_, block) = block.map_err(broken)?;
            for bytes in rows_in(&block)? {
                let row: Row = read(bytes)?;
                if self.before.is_none_or(|before| row.id < before) {
                    self.block.push(Arc::new(row));
                }
            }
            // Of blocks that are being divided some rows are in two.
            self.before = self.block.first().map(|row| row.id).or(self.before);
        }
        Ok(self.block.last().cloned())
    }
}

impl Iterator for NewestFirst {
    type Item = Applied<Arc<Row>>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let written = match self.written() {
                Ok(written) => written,
                Err(error) => return Some(Err(error)),
            };
            let recent = self.recent.front().map(|(id, _)| *id);
            let written_id = written.as_ref().map(|row| row.id);
            if written_id.is_some() && recent <= written_id {
                self.block.pop();
            }
            if recent < written_id {
                return written.map(Ok);
            }
            match self.recent.pop_front() {
                Some((_, Some(row))) => return Some(Ok(row)),
                Some((_, None)) => {}
                None => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests;
