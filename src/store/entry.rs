//! What the index takes of a record: made where the record is encoded, so that neither the journal's
//! thread nor that of the index has to take it apart.

use super::journal::Location;
use super::rows::Row;
use crate::migrations::latest::{Carried, Id, Record, Updated};

/// See the module.
#[derive(Clone, Debug)]
pub(super) enum Entry {
    /// A new row; its record has no place yet.
    Accepted(Row),
    Updated(Updated),
    JobForgotten(Id),
    KeyForgotten(Id),
    Carried(Carried),
}

/// A record that was read.
#[derive(Clone, Debug)]
pub(super) struct Scanned {
    pub(super) sequence: u64,
    pub(super) record: Record,
    pub(super) location: Location,
}

/// A record that is on stable storage, as the index takes it.
#[derive(Clone, Debug)]
pub(super) struct Written {
    pub(super) sequence: u64,
    pub(super) entry: Entry,
    pub(super) location: Location,
}

impl From<Record> for Entry {
    fn from(record: Record) -> Self {
        match record {
            Record::Accepted(accepted) => {
                Self::Accepted(Row::new(accepted, 0, Location::default()))
            }
            Record::Updated(updated) => Self::Updated(updated),
            Record::JobForgotten(job) => Self::JobForgotten(job),
            Record::KeyForgotten(notification) => Self::KeyForgotten(notification),
            Record::Carried(carried) => Self::Carried(carried),
        }
    }
}

impl Entry {
    /// The notification whose record this is.
    pub(super) fn notification(&self) -> Option<&Id> {
        match self {
            Self::Accepted(row) => Some(&row.id),
            Self::Carried(carried) => Some(&carried.notification.id),
            Self::Updated(_) | Self::JobForgotten(_) | Self::KeyForgotten(_) => None,
        }
    }
}

impl From<Scanned> for Written {
    fn from(scanned: Scanned) -> Self {
        let Scanned { sequence, record, location } = scanned;
        Self { sequence, entry: record.into(), location }
    }
}
