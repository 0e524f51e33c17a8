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
    /// The step whose reply is awaited or came last.
    stage: Stage,
    /// The steps after it whose commands go out with its own.
    next: &'static [Stage],
    /// So many commands may still go out.
    due_count: usize,
    /// What goes out is no command but a message.
    is_message: bool,
    is_reply_due: bool,
    /// The replies to the commands, in their order.
    replies: Vec<RawReply>,
    /// What ended the connection after these replies.
    fault: Option<Fault>,
    /// More came than the replies, or it ended.
    is_spoilt: bool,
}

/// A command that may go out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// By itself, or as the last of a group.
    Now,
    /// Together with the next one.
    WithNext,
    /// It is a message, whose final dot comes next.
    Message,
}

impl Record {
    fn at(stage: Stage) -> Self {
        Self {
            stage,
            next: &[],
            due_count: 0,
            is_message: false,
            is_reply_due: true,
            replies: Vec::new(),
            fault: None,
            is_spoilt: false,
        }
    }
}

impl Transcript {
    /// A record at `stage`.
    pub(super) fn new(stage: Stage) -> Self {
        Self(Arc::new(Mutex::new(Record::at(stage))))
    }

    /// Begins a step: forgets what was heard and lets one command out.
    pub(super) fn enter(&self, stage: Stage) {
        self.enter_group(stage, &[]);
    }

    /// Begins steps whose commands go out together (RFC 2920), one for each.
    pub(super) fn enter_group(&self, first: Stage, others: &'static [Stage]) {
        let mut record = self.lock();
        let is_spoilt = record.is_spoilt;
        *record =
            Record { next: others, due_count: 1 + others.len(), is_spoilt, ..Record::at(first) };
    }

    /// Begins the last step of a transaction, in which a message goes out.
    pub(super) fn enter_message(&self) {
        self.enter(Stage::Dot);
        self.lock().is_message = true;
    }

    /// Forgets all of a connection that is closed: the next one begins at `stage`.
    pub(super) fn restart(&self, stage: Stage) {
        *self.lock() = Record::at(stage);
    }

    /// The step that was entered last; of a group, the one whose reply is awaited or came last.
    pub(super) fn stage(&self) -> Stage {
        self.lock().stage
    }

    /// Says which step of a group decided.
    pub(super) fn decided_at(&self, stage: Stage) {
        self.lock().stage = stage;
    }

    /// The replies since the step began, and what ended the connection after them. One that is still
    /// due would come too late: the connection is not to be used again.
    pub(super) fn take_all(&self) -> (Vec<RawReply>, Option<Fault>) {
        let mut record = self.lock();
        record.is_spoilt |= record.is_reply_due;
        (std::mem::take(&mut record.replies), record.fault.take())
    }

    /// Whether the connection may be used again: all that came was asked for.
    pub(super) fn is_in_step(&self) -> bool {
        !self.lock().is_spoilt
    }

    /// Notes a reply, if one is due. Answers whether another one is.
    pub(super) fn hear(&self, reply: RawReply) -> bool {
        let mut record = self.lock();
        if record.is_reply_due {
            record.replies.push(reply);
            match record.next {
                [next, rest @ ..] => (record.stage, record.next) = (*next, rest),
                [] => record.is_reply_due = false,
            }
        }
        record.is_reply_due
    }

    /// Notes what ended the connection; the first thing in a step stands.
    pub(super) fn fail(&self, fault: Fault) {
        let mut record = self.lock();
        record.is_reply_due = false;
        record.is_spoilt = true;
        record.fault.get_or_insert(fault);
    }

    /// Notes that the connection is not to be used again.
    pub(super) fn spoil(&self) {
        self.lock().is_spoilt = true;
    }

    /// How a command may go out, if one may.
    pub(super) fn take_due_command(&self) -> Option<Due> {
        let mut record = self.lock();
        record.due_count = record.due_count.checked_sub(1)?;
        Some(match record.due_count {
            0 if record.is_message => Due::Message,
            0 => Due::Now,
            _ => Due::WithNext,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Record> {
        // Each field is set whole, so a panic elsewhere leaves no half of one.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
