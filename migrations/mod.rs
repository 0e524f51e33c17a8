//! The history of the bytes on disk.
//!
//! Every frame of the journal carries the schema that wrote it, so a store is never rewritten: a
//! record is read by the version that wrote it and taken step by step to the latest one, each time
//! it is read. `README.md` beside this file has the table of schemas and the rules.

#[cfg(test)]
mod golden;
#[cfg(test)]
mod golden_v0002;
pub mod v0001;
pub mod v0002;

pub use v0002 as latest;

/// The schema that new records are written in.
pub const SCHEMA: u16 = latest::SCHEMA;

/// Why bytes are no record.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Written by a newer program.
    #[error("schema {0} is newer than this program, which knows schemas up to {SCHEMA}")]
    Newer(u16),
    /// There is no such schema.
    #[error("schema {0} does not exist")]
    Unknown(u16),
    /// The bytes do not have the shape of their schema.
    #[error("schema {schema}: {reason}")]
    Malformed {
        /// The schema that the frame names.
        schema: u16,
        /// What the decoder says.
        reason: String,
    },
}

/// Reads a record of any schema as the latest one.
///
/// # Errors
/// When the schema is not known or the bytes do not have its shape.
pub fn record(schema: u16, bytes: &[u8]) -> Result<latest::Record, DecodeError> {
    let read = match schema {
        v0001::SCHEMA => v0001::record(bytes).map(latest::Record::from),
        v0002::SCHEMA => v0002::record(bytes),
        other => return Err(unknown(other)),
    };
    read.map_err(|reason| DecodeError::Malformed { schema, reason })
}

/// Reads a content of any schema as the latest one.
///
/// # Errors
/// When the schema is not known or the bytes do not have its shape.
pub fn content(schema: u16, bytes: &[u8]) -> Result<latest::Content, DecodeError> {
    let read = match schema {
        v0001::SCHEMA => v0001::content(bytes),
        v0002::SCHEMA => v0002::content(bytes),
        other => return Err(unknown(other)),
    };
    read.map_err(|reason| DecodeError::Malformed { schema, reason })
}

fn unknown(schema: u16) -> DecodeError {
    if schema > SCHEMA { DecodeError::Newer(schema) } else { DecodeError::Unknown(schema) }
}
