//! Whose data directory this is: cluster, node and format, in a small file written once.
//!
//! Invariant: the file has two copies of the same checksummed record, a page apart, so that one
//! damaged page does not make a node forget who it is.

use crate::error::WalError;
use crate::layout::PAGE_BYTES;
use bytes::Bytes;
use quorate_base::codec::{DecodeError, Reader, Writer};
use quorate_base::{ClusterId, NodeId};
use quorate_disk::{Disk, Operation};

/// Name of the file.
pub const IDENTITY_FILE: &str = "IDENTITY";

/// The format of data directories that this version makes, and the newest that it opens.
pub const DIRECTORY_VERSION: u32 = 1;

const MAGIC: &[u8; 8] = b"QRTENODE";
const RECORD_BYTES: usize = 32;

/// Whose a data directory or a log segment is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct Identity {
    /// The cluster.
    pub cluster: ClusterId,
    /// The node.
    pub node: NodeId,
}

enum Copy {
    Good(Identity),
    Newer(u32),
    Bad,
}

impl Identity {
    /// The file's content.
    pub fn encode(&self) -> Vec<u8> {
        let mut record = Writer::with_capacity(RECORD_BYTES);
        record.raw(MAGIC).u32(DIRECTORY_VERSION).u64(self.cluster.0).u64(self.node.0);
        let mut record = record.into_vec();
        let crc = crc32c::crc32c(&record);
        record.extend_from_slice(&crc.to_le_bytes());
        let mut file = vec![0; 2 * PAGE_BYTES as usize];
        file[..RECORD_BYTES].copy_from_slice(&record);
        file[PAGE_BYTES as usize..][..RECORD_BYTES].copy_from_slice(&record);
        file
    }

    /// Reads the file's content: from either copy, where they do not contradict each other.
    pub fn decode(file: &Bytes) -> Result<Identity, WalError> {
        let at = |start: usize| {
            let end = (start + RECORD_BYTES).min(file.len());
            decode_copy(&file.slice(start.min(file.len())..end)).unwrap_or(Copy::Bad)
        };
        match (at(0), at(PAGE_BYTES as usize)) {
            (Copy::Newer(found), _) | (_, Copy::Newer(found)) => Err(WalError::NewerFormat {
                what: IDENTITY_FILE.into(),
                found,
                known: DIRECTORY_VERSION,
            }),
            (Copy::Good(a), Copy::Good(b)) if a == b => Ok(a),
            (Copy::Good(a), Copy::Bad) | (Copy::Bad, Copy::Good(a)) => Ok(a),
            (Copy::Good(_), Copy::Good(_)) => {
                Err(WalError::Damaged { what: format!("the two copies in {IDENTITY_FILE} differ") })
            }
            (Copy::Bad, Copy::Bad) => {
                Err(WalError::Damaged { what: format!("both copies in {IDENTITY_FILE}") })
            }
        }
    }

    /// The identity that a directory has, or nothing for a new directory. A file that was not
    /// finished when the node first started counts as none: see [`Identity::write`].
    pub fn read(disk: &impl Disk) -> Result<Option<Identity>, WalError> {
        if !disk.list()?.iter().any(|name| name == IDENTITY_FILE) {
            return Ok(None);
        }
        Self::decode(&disk.read(IDENTITY_FILE, 0, 2 * PAGE_BYTES as usize)?).map(Some)
    }

    /// What writes the identity of a new directory, to be run one after the other, each once the
    /// one before has completed. The name appears only when the content is durable.
    pub fn write(&self) -> Vec<Operation> {
        let draft = format!("{IDENTITY_FILE}.new");
        let content = self.encode();
        let bytes = content.len() as u64;
        vec![
            Operation::Create { file: draft.clone(), bytes },
            Operation::Write { file: draft.clone(), offset: 0, parts: vec![content.into()] },
            Operation::Sync { file: draft.clone() },
            Operation::Rename { from: draft, to: IDENTITY_FILE.into() },
            Operation::SyncDirectory,
        ]
    }

    /// Checks a directory's identity against the configured one, writing it where there is none.
    /// For a disk that completes inline.
    pub fn establish(self, disk: &mut impl Disk) -> Result<(), WalError> {
        match Self::read(disk)? {
            Some(found) if found == self => Ok(()),
            Some(found) => Err(WalError::Foreign { found, expected: self }),
            None => {
                let draft = format!("{IDENTITY_FILE}.new");
                let mut todo = self.write();
                if disk.list()?.contains(&draft) {
                    todo.insert(0, Operation::Remove { file: draft });
                }
                for operation in todo {
                    let id = disk.submit(operation);
                    match disk.poll() {
                        Some(done) if done.id == id => done.result?,
                        _ => return Err(WalError::NotInline),
                    }
                }
                Ok(())
            }
        }
    }
}

fn decode_copy(bytes: &Bytes) -> Result<Copy, DecodeError> {
    let mut r = Reader::new(bytes.clone());
    let fields = r.take(RECORD_BYTES - 4)?;
    if r.u32()? != crc32c::crc32c(&fields) {
        return Ok(Copy::Bad);
    }
    let mut r = Reader::new(fields);
    if r.take(MAGIC.len())?[..] != MAGIC[..] {
        return Ok(Copy::Bad);
    }
    let version = r.u32()?;
    if version > DIRECTORY_VERSION {
        return Ok(Copy::Newer(version));
    }
    Ok(Copy::Good(Identity { cluster: ClusterId(r.u64()?), node: NodeId(r.u64()?) }))
}
