//! Births: what tells a node that lost its data directory from the one that peers knew.
//!
//! A data directory is born with a number drawn then, in the file `BIRTH`; a node names it in every
//! hand-shake. Peers keep the first one that they hear from each node, in the file `BIRTHS`, before
//! they take anything else from it. A node whose directory was emptied has another one. It does
//! not remember what it promised and acknowledged, so that its votes could undo what was committed
//! with its help: whoever knew it lets it in no more, and it ends and says what to do. Invariant: a
//! peer that has ever taken a message of a node takes none of a later directory under its name.

use crate::error::StartError;
use crate::number_file::NumberFile;
use quorate_base::NodeId;
use quorate_base::codec::{DecodeError, Reader, Writer};
use quorate_disk::{Disk, DiskError, Operation, OsDisk};
use std::collections::BTreeMap;

const BIRTH: NumberFile = NumberFile { name: "BIRTH", draft: "BIRTH.new", magic: b"QRTEBTH1" };

const FILE: &str = "BIRTHS";
const DRAFT: &str = "BIRTHS.new";
const MAGIC: &[u8; 8] = b"QRTEBTS1";
const MOST: u64 = 1 << 16;

/// This data directory's own birth: `drawn`, if it has none yet.
///
/// # Errors
/// [`StartError`]
pub(crate) fn own(disk: &mut impl Disk, drawn: u64) -> Result<u64, StartError> {
    match BIRTH.read(disk)? {
        Some(birth) => Ok(birth),
        None => {
            // Zero says that nothing is known.
            BIRTH.write(disk, drawn.max(1))?;
            Ok(drawn.max(1))
        }
    }
}

/// The births of the peers that were ever heard.
pub(crate) struct Births {
    disk: OsDisk,
    known: BTreeMap<NodeId, u64>,
}

impl Births {
    /// Those on a disk. A file that cannot be read is begun anew: it is the second of two lines.
    pub fn open(disk: OsDisk) -> Result<Births, StartError> {
        let mut known = BTreeMap::new();
        if disk.list()?.iter().any(|file| file == FILE) {
            let bytes = disk.read(FILE, 0, usize::try_from(disk.len(FILE)?).unwrap_or(0))?;
            match decode(bytes) {
                Ok(found) => known = found,
                Err(error) => tracing::warn!(%error, "the file {FILE} is damaged: begun anew"),
            }
        }
        Ok(Births { disk, known })
    }

    /// Whether a node is the one that was known under its name; a new one is remembered first.
    pub fn recognize(&mut self, node: NodeId, birth: u64) -> Result<bool, DiskError> {
        if let Some(known) = self.known.get(&node) {
            return Ok(*known == birth);
        }
        let mut next = self.known.clone();
        next.insert(node, birth);
        self.write(&next)?;
        self.known = next;
        Ok(true)
    }

    fn write(&mut self, births: &BTreeMap<NodeId, u64>) -> Result<(), DiskError> {
        let content = encode(births);
        let (file, draft) = (FILE.to_owned(), DRAFT.to_owned());
        if self.disk.list()?.contains(&draft) {
            self.complete(Operation::Remove { file: draft.clone() })?;
        }
        let bytes = content.len() as u64;
        self.complete(Operation::Create { file: draft.clone(), bytes })?;
        let parts = vec![content.into()];
        self.complete(Operation::Write { file: draft.clone(), offset: 0, parts })?;
        self.complete(Operation::Sync { file: draft.clone() })?;
        self.complete(Operation::Rename { from: draft, to: file })?;
        self.complete(Operation::SyncDirectory)
    }

    fn complete(&mut self, operation: Operation) -> Result<(), DiskError> {
        let doing = format!("{operation:?}");
        let id = self.disk.submit(operation);
        match self.disk.poll() {
            Some(done) if done.id == id => done.result,
            _ => Err(DiskError { doing, source: std::io::Error::other("it did not complete") }),
        }
    }
}

fn encode(births: &BTreeMap<NodeId, u64>) -> Vec<u8> {
    let mut w = Writer::with_capacity(16 + 16 * births.len());
    w.raw(MAGIC).varint(births.len() as u64);
    for (node, birth) in births {
        w.u64(node.0).u64(*birth);
    }
    let mut bytes = w.into_vec();
    let crc = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes
}

fn decode(bytes: bytes::Bytes) -> Result<BTreeMap<NodeId, u64>, DecodeError> {
    let unknown = |value| DecodeError::Unknown { field: "file of births", value };
    let content = bytes.len().checked_sub(4).ok_or_else(|| unknown(0))?;
    let mut r = Reader::new(bytes.slice(content..));
    if r.u32()? != crc32c::crc32c(&bytes[..content]) {
        return Err(unknown(1));
    }
    let mut r = Reader::new(bytes.slice(..content));
    if r.take(MAGIC.len())?[..] != MAGIC[..] {
        return Err(unknown(2));
    }
    let n = r.count(MOST, 16)?;
    let births = (0..n).map(|_| Ok((NodeId(r.u64()?), r.u64()?))).collect::<Result<_, _>>()?;
    r.finish()?;
    Ok(births)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_known_by_its_first_birth_for_ever() {
        let directory = tempfile::tempdir().unwrap();
        let open = || Births::open(OsDisk::open(directory.path()).unwrap()).unwrap();
        let mut births = open();
        assert!(births.recognize(NodeId(1), 10).unwrap());
        assert!(births.recognize(NodeId(2), 20).unwrap());
        assert!(!births.recognize(NodeId(1), 11).unwrap());
        let mut births = open();
        assert!(births.recognize(NodeId(1), 10).unwrap());
        assert!(!births.recognize(NodeId(2), 10).unwrap());
        let mut bytes = encode(&births.known);
        assert_eq!(decode(bytes.clone().into()).unwrap(), births.known);
        bytes[10] ^= 1;
        assert!(decode(bytes.into()).is_err());
    }

    #[test]
    fn a_directory_is_born_once() {
        let directory = tempfile::tempdir().unwrap();
        let mut disk = OsDisk::open(directory.path()).unwrap();
        assert_eq!(own(&mut disk, 7).unwrap(), 7);
        assert_eq!(own(&mut disk, 8).unwrap(), 7);
    }
}
