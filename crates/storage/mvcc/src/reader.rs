//! Reading while another thread writes.
//!
//! Invariant: every read sees exactly the batches committed before some moment after the read
//! began. While nobody writes, the engine's present state is what readers see, together with the
//! header on the board; nobody holds a view, so that the engine may free what was overwritten, in
//! every state that shares its trees. Before the writer writes, it puts a view of the state so far
//! on the board. A reader that takes a view of its own looks at the board again: if that is as it
//! was, nothing was written before the view was taken. When the writer is gone, so is what readers
//! see: what it wrote may be removed then.

use crate::canary::Canary;
use crate::engine::{Engine, Source};
use crate::error::Error;
use crate::format::{Header, service_name};
use crate::key_value::{KeyMeta, KeyRange, KeyValue, Revision};
use crate::versions::{self, Changes, ChangesRequest, Visit};
use bytes::Bytes;
use quorate_base::Index;
use std::ops::ControlFlow;
use std::sync::{Arc, PoisonError, RwLock};

/// A state as the board shows it.
pub struct Shown<V> {
    /// The header in it.
    pub header: Header,
    /// The bug that is planted, if any.
    pub canary: Canary,
    /// Where it is.
    pub at: At<V>,
}

/// Where a state is that is shown.
pub enum At<V> {
    /// It is the engine's present one.
    Engine,
    /// The engine's is being changed: this view shows it as it was.
    View(V),
    /// Nowhere any more: the store is closed.
    Nowhere,
}

/// Where the writer puts each new state, and readers find it.
pub struct Board<E: Engine> {
    engine: E,
    slot: RwLock<Arc<Shown<E::View>>>,
}

impl<E: Engine> Board<E> {
    /// Starts with `shown`, a state of this engine.
    pub fn new(engine: E, shown: Shown<E::View>) -> Self {
        Board { engine, slot: RwLock::new(Arc::new(shown)) }
    }

    /// What it shows.
    pub fn shown(&self) -> Arc<Shown<E::View>> {
        self.slot.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The latest state.
    pub fn state(&self) -> ReadState<E> {
        loop {
            let shown = self.shown();
            let view = match &shown.at {
                At::View(view) => Some(view.clone()),
                At::Nowhere => None,
                At::Engine => {
                    let view = self.engine.view();
                    if !Arc::ptr_eq(&shown, &self.shown()) {
                        continue;
                    }
                    Some(view)
                }
            };
            return ReadState { view, shown };
        }
    }

    /// Shows another state.
    pub fn show(&self, shown: Shown<E::View>) {
        let new = Arc::new(shown);
        let mut slot = self.slot.write().unwrap_or_else(PoisonError::into_inner);
        let old = std::mem::replace(&mut *slot, new);
        // Closing the old view is the engine's work and need not keep readers waiting.
        drop(slot);
        drop(old);
    }
}

/// What to read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RangeRequest {
    /// Which keys.
    pub range: KeyRange,
    /// As of this revision; zero means now.
    pub revision: Revision,
    /// At most so many keys; zero means all.
    pub limit: u64,
    /// Leave the values out.
    pub keys_only: bool,
    /// Whether to count all keys of the range. It walks all of them (though not their values),
    /// whatever the limit; without it the walk ends at the limit.
    pub count: bool,
}

impl RangeRequest {
    /// All of `range`, now, counted.
    pub fn of(range: KeyRange) -> Self {
        RangeRequest { range, revision: 0, limit: 0, keys_only: false, count: true }
    }
}

/// What was read.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct RangeResult {
    /// The keys, ascending.
    pub kvs: Vec<KeyValue>,
    /// Whether the limit cut some off.
    pub more: bool,
    /// How many keys are in the range whatever the limit; of `kvs` alone if not asked for.
    pub count: u64,
    /// The latest revision of the state that was read.
    pub revision: Revision,
}

/// Checks that a revision can be read, and makes "now" of zero.
pub fn readable(header: &Header, revision: Revision) -> Result<Option<Revision>, Error> {
    if revision == 0 {
        return Ok(None);
    }
    if revision > header.revision {
        return Err(Error::Future { requested: revision, current: header.revision });
    }
    if revision < header.compacted {
        return Err(Error::Compacted { requested: revision, compacted: header.compacted });
    }
    Ok(Some(revision).filter(|&r| r < header.revision))
}

/// See [`Reader::range`].
pub fn range(
    source: &impl Source,
    header: &Header,
    request: &RangeRequest,
    canary: Canary,
) -> Result<RangeResult, Error> {
    let revision = readable(header, request.revision)?;
    let mut result = RangeResult { revision: header.revision, ..RangeResult::default() };
    versions::visit(source, &request.range, revision, canary, |key, meta| {
        if request.limit > 0 && result.kvs.len() as u64 >= request.limit {
            result.more = true;
            if !request.count {
                return Ok(ControlFlow::Break(()));
            }
        } else {
            let value = match request.keys_only {
                true => Bytes::new(),
                false => versions::value(source, meta.at)?,
            };
            result.kvs.push(meta.with(key, value));
        }
        result.count += 1;
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(result)
}

/// Reads a store from any thread. A clone is another handle.
pub struct Reader<E: Engine> {
    board: Arc<Board<E>>,
}

impl<E: Engine> Clone for Reader<E> {
    fn clone(&self) -> Self {
        Reader { board: self.board.clone() }
    }
}

impl<E: Engine> Reader<E> {
    pub(crate) fn new(board: Arc<Board<E>>) -> Self {
        Reader { board }
    }

    /// The state right now, for several reads of one and the same.
    pub fn state(&self) -> ReadState<E> {
        self.board.state()
    }

    /// The latest revision.
    pub fn revision(&self) -> Revision {
        self.board.shown().header.revision
    }

    /// The oldest revision that can be read; zero before the first compaction.
    pub fn compacted_revision(&self) -> Revision {
        self.board.shown().header.compacted
    }

    /// The log's entries up to this index were applied.
    pub fn applied(&self) -> Index {
        self.board.shown().header.applied
    }

    /// The bytes of the versions that can be read, the same on every replica; and how many keys
    /// there are.
    pub fn sizes(&self) -> (u64, u64) {
        let shown = self.board.shown();
        (shown.header.logical_bytes(), shown.header.keys)
    }

    /// Reads keys as of now or an old revision.
    pub fn range(&self, request: &RangeRequest) -> Result<RangeResult, Error> {
        self.state().range(request)
    }

    /// Reads a stretch of history.
    pub fn changes(&self, request: &ChangesRequest) -> Result<Changes, Error> {
        self.state().changes(request)
    }
}

/// One state of a store, which later writes do not change. Hold it briefly: the engine cannot
/// free what it sees.
pub struct ReadState<E: Engine> {
    /// None, if the store was closed before.
    view: Option<E::View>,
    shown: Arc<Shown<E::View>>,
}

impl<E: Engine> Clone for ReadState<E> {
    fn clone(&self) -> Self {
        ReadState { view: self.view.clone(), shown: self.shown.clone() }
    }
}

impl<E: Engine> ReadState<E> {
    pub(crate) fn view(&self) -> Result<&E::View, Error> {
        self.view.as_ref().ok_or(Error::Closed)
    }

    pub(crate) fn canary(&self) -> Canary {
        self.shown.canary
    }

    pub(crate) fn header(&self) -> &Header {
        &self.shown.header
    }

    /// The latest revision.
    pub fn revision(&self) -> Revision {
        self.shown.header.revision
    }

    /// The oldest revision that can be read; zero before the first compaction.
    pub fn compacted_revision(&self) -> Revision {
        self.shown.header.compacted
    }

    /// The log's entries up to this index were applied.
    pub fn applied(&self) -> Index {
        self.shown.header.applied
    }

    /// The bytes of the versions that can be read, the same on every replica.
    pub fn logical_bytes(&self) -> u64 {
        self.shown.header.logical_bytes()
    }

    /// How many keys there are.
    pub fn keys(&self) -> u64 {
        self.shown.header.keys
    }

    /// Reads keys as of now or an old revision.
    pub fn range(&self, request: &RangeRequest) -> Result<RangeResult, Error> {
        range(self.view()?, self.header(), request, self.canary())
    }

    /// Shows `visit` the keys of a range as of `revision` (zero: now), ascending, without their
    /// values: to filter or sort before values are fetched with [`ReadState::value`].
    pub fn visit(
        &self,
        range: &KeyRange,
        revision: Revision,
        visit: impl FnMut(Bytes, KeyMeta) -> Visit,
    ) -> Result<(), Error> {
        let revision = readable(self.header(), revision)?;
        versions::visit(self.view()?, range, revision, self.canary(), visit)
    }

    /// The value of a version of a key that this state showed.
    pub fn value(&self, meta: &KeyMeta) -> Result<Bytes, Error> {
        versions::value(self.view()?, meta.at)
    }

    /// Reads a stretch of history. The first revision may be the compacted one, but not below;
    /// revisions yet to come are not an error, there is only nothing in them.
    pub fn changes(&self, request: &ChangesRequest) -> Result<Changes, Error> {
        let compacted = self.compacted_revision();
        if request.from < compacted {
            return Err(Error::Compacted { requested: request.from, compacted });
        }
        versions::changes(self.view()?, request, compacted)
    }

    /// A named record of the service.
    pub fn meta(&self, name: &[u8]) -> Result<Option<Bytes>, Error> {
        self.view()?.get(crate::engine::Table::Meta, &service_name(name))
    }
}
