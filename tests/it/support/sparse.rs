//! Bytes of which most are zero, as those of a disk: only pages that hold something take memory.

use std::collections::BTreeMap;

const PAGE: usize = 4096;

/// See the module.
#[derive(Clone, Default)]
pub struct Sparse {
    len: usize,
    pages: BTreeMap<usize, Box<[u8; PAGE]>>,
}

impl Sparse {
    pub fn len(&self) -> usize {
        self.len
    }

    /// Cuts its end off, or appends zeros.
    pub fn resize(&mut self, len: usize) {
        if len < self.len {
            self.pages.split_off(&len.div_ceil(PAGE));
            if let Some(page) = self.pages.get_mut(&(len / PAGE)) {
                page[len % PAGE..].fill(0);
            }
        }
        self.len = len;
    }

    /// The bytes from `begin` on, `count` of them or as many as there are.
    pub fn read(&self, begin: usize, count: usize) -> Vec<u8> {
        let begin = begin.min(self.len);
        let mut bytes = vec![0; count.min(self.len - begin)];
        for (page, from, to) in parts(begin, bytes.len()) {
            if let Some(page) = self.pages.get(&page) {
                bytes[to.clone()].copy_from_slice(&page[from..from + to.len()]);
            }
        }
        bytes
    }

    /// Puts `bytes` at `begin`, and zeros before them when it ended earlier. Nothing changes nothing.
    pub fn write(&mut self, begin: usize, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.len = self.len.max(begin + bytes.len());
        for (page, to, from) in parts(begin, bytes.len()) {
            let part = &bytes[from];
            if self.pages.contains_key(&page) || part.iter().any(|byte| *byte != 0) {
                let page = self.pages.entry(page).or_insert_with(|| Box::new([0; PAGE]));
                page[to..to + part.len()].copy_from_slice(part);
            }
        }
    }

    /// All of it.
    pub fn to_vec(&self) -> Vec<u8> {
        // The zeros of a new vector take no memory before they are written.
        let mut bytes = vec![0; self.len];
        for (page, held) in &self.pages {
            let begin = page * PAGE;
            let end = self.len.min(begin + PAGE);
            bytes[begin..end].copy_from_slice(&held[..end - begin]);
        }
        bytes
    }
}

impl From<&[u8]> for Sparse {
    fn from(bytes: &[u8]) -> Self {
        let mut sparse = Self::default();
        sparse.write(0, bytes);
        sparse
    }
}

/// The pages that `count` bytes from `begin` on lie in: the number of each, the offset in it, and
/// which of the bytes these are.
fn parts(
    begin: usize,
    count: usize,
) -> impl Iterator<Item = (usize, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let (page, offset) = ((begin + done) / PAGE, (begin + done) % PAGE);
        let part = done..count.min(done + PAGE - offset);
        done = part.end;
        (!part.is_empty()).then_some((page, offset, part))
    })
}
