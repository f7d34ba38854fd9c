//! The whole keyspace as a snapshot, and back: the store's own stream, with the base beside it.

use crate::canary::{Bug, Canary};
use crate::state::failed;
use quorate_mvcc::{Chunk, Engine, SnapshotReader, SnapshotReceiver, Store};
use quorate_replicated_log::Base;
use quorate_service::{ServiceError, SnapshotChunk, SnapshotSink, SnapshotSource};
use std::any::Any;

struct Source<E: Engine> {
    base: Base,
    reader: SnapshotReader<E>,
}

struct Sink<E: Engine> {
    base: Base,
    receiver: SnapshotReceiver<E>,
    /// A deliberate bug.
    believes: bool,
}

pub(crate) fn open<E: Engine>(
    store: &Store<E>,
    base: Base,
) -> Result<Box<dyn SnapshotSource>, ServiceError> {
    let reader = store.snapshot();
    assert_eq!(reader.applied(), base.position.index, "a snapshot ends at the keyspace's base");
    Ok(Box::new(Source { base, reader }))
}

pub(crate) fn receive<E: Engine>(
    store: &Store<E>,
    base: Base,
    canary: Canary,
) -> Result<Box<dyn SnapshotSink>, ServiceError> {
    let receiver = store.receive().map_err(failed)?;
    let believes = canary.sings(Bug::BelieveSnapshot);
    Ok(Box::new(Sink { base, receiver, believes }))
}

pub(crate) fn install<E: Engine>(
    store: &mut Store<E>,
    received: Box<dyn SnapshotSink>,
) -> Result<(), ServiceError> {
    let foreign = |_| ServiceError::Caller("the snapshot was received by another service".into());
    let sink = received.into_any().downcast::<Sink<E>>().map_err(foreign)?;
    store.install(sink.receiver).map_err(failed)
}

impl<E: Engine> SnapshotSource for Source<E> {
    fn base(&self) -> Base {
        self.base.clone()
    }

    fn next_chunk(&mut self, max_bytes: usize) -> Result<SnapshotChunk, ServiceError> {
        match self.reader.next_chunk(max_bytes).map_err(failed)? {
            Some(Chunk { bytes, last }) => {
                let checksum = crc32c::crc32c(&bytes);
                Ok(SnapshotChunk { bytes, checksum, last })
            }
            None => Err(ServiceError::Caller("the snapshot has no more parts".into())),
        }
    }
}

impl<E: Engine> SnapshotSink for Sink<E> {
    fn base(&self) -> Base {
        self.base.clone()
    }

    fn write_chunk(&mut self, chunk: SnapshotChunk) -> Result<(), ServiceError> {
        let SnapshotChunk { bytes, checksum, last } = chunk;
        if crc32c::crc32c(&bytes) != checksum && !self.believes {
            return Err(ServiceError::Peer("a part of a snapshot has a wrong checksum".into()));
        }
        self.receiver.write_chunk(Chunk { bytes, last }).map_err(failed)
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
