//! What was heard on a connection, step by step: outcomes are drawn from this record.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::reply::RawReply;
use crate::core::outcome::Stage;

/// Why a connection is of no use any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Closed or reset by the peer.
    Lost,
    /// A reply beyond the bounds.
    TooLong,
    /// Bytes that arrived before they were asked for.
    Unasked,
    /// Bytes that are no SMTP reply.
    NotSmtp,
}

/// What the guard heard, for whoever drives the dialogue above lettre. Clones share one record.
#[derive(Clone, Debug)]
pub(super) struct Transcript(Arc<Mutex<Record>>);

#[derive(Debug)]
struct Record {
    stage: Stage,
    /// One command may go out.
    is_command_due: bool,
    /// The first thing heard in this step.
    heard: Option<Result<RawReply, Fault>>,
    /// More than the reply arrived with it.
    has_unasked: bool,
}

impl Transcript {
    /// A record at `stage`.
    pub(super) fn new(stage: Stage) -> Self {
        let record = Record { stage, is_command_due: false, heard: None, has_unasked: false };
        Self(Arc::new(Mutex::new(record)))
    }

    /// Begins a step: forgets what was heard and lets one command out.
    pub(super) fn enter(&self, stage: Stage) {
        let mut record = self.lock();
        record.stage = stage;
        record.is_command_due = true;
        record.heard = None;
    }

    /// Forgets all of a connection that is closed: the next one begins at `stage`.
    pub(super) fn restart(&self, stage: Stage) {
        *self.lock() = Record { stage, is_command_due: false, heard: None, has_unasked: false };
    }

    /// The step that was entered last.
    pub(super) fn stage(&self) -> Stage {
        self.lock().stage
    }

    /// What was heard since the step began.
    pub(super) fn take(&self) -> Option<Result<RawReply, Fault>> {
        self.lock().heard.take()
    }

    /// Whether nothing came that was not asked for.
    pub(super) fn is_in_step(&self) -> bool {
        !self.lock().has_unasked
    }

    /// Notes what was heard; the first thing in a step stands.
    pub(super) fn hear(&self, heard: Result<RawReply, Fault>, has_unasked: bool) {
        let mut record = self.lock();
        record.heard.get_or_insert(heard);
        record.has_unasked |= has_unasked;
    }

    /// Whether a command may go out; only the first after [`enter`](Self::enter) may.
    pub(super) fn take_due_command(&self) -> bool {
        std::mem::take(&mut self.lock().is_command_due)
    }

    fn lock(&self) -> MutexGuard<'_, Record> {
        // Each field is set whole, so a panic elsewhere leaves no half of one.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
